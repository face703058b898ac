import os
import signal

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from helpers.apps import film
from helpers.apps.colorize_files import split_films
from helpers.apps.film import SteadyColor, colorize_frames
from helpers.cli import main
from helpers.data.images import write_image
from helpers.data.lab import bgr_to_lab
from helpers.files import InputError
from helpers.training.weights import WEIGHTS, load_weights


@pytest.fixture
def net():
    return load_weights(WEIGHTS / "portrait.safetensors")[0]


def write_clip(path, frames):
    size = frames[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, size)
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def noisy_frames(number=10, size=(64, 96)):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    still = 120 + 60 * np.sin(x / 9) * np.cos(y / 7)
    noisy = [np.clip(still + rng.normal(0, 8, size), 0, 255) for _ in range(number)]
    return [cv2.merge([frame.astype(np.uint8)] * 3) for frame in noisy]


def test_colors_flicker_less_than_frame_by_frame(net):
    frames = noisy_frames()

    def flicker(results):
        ab = np.stack([bgr_to_lab(frame)[..., 1:] for frame in results])
        return np.abs(np.diff(ab[2:], axis=0)).mean()

    steady = flicker(list(colorize_frames(net, iter(frames))))
    alone = [next(colorize_frames(net, iter([frame]))) for frame in frames]
    assert steady < 0.5 * flicker(alone)


def test_the_color_of_a_still_picture_does_not_change():
    steady, L = SteadyColor(), np.full((8, 8), 50, np.float32)
    ab = np.ones((4, 4, 2), np.float32)
    for _ in range(3):
        assert np.allclose(steady.smooth(ab, L), ab)


def test_smoothing_restarts_at_a_cut_and_weakens_where_the_picture_changes():
    dark, light = (np.full((8, 8), n, np.float32) for n in (20, 80))
    zero, one = np.zeros((4, 4, 2), np.float32), np.ones((4, 4, 2), np.float32)
    steady = SteadyColor()
    steady.smooth(zero, dark)
    assert 0 < steady.smooth(one, dark).max() < 0.5
    assert np.array_equal(steady.smooth(one, light), one)  # a cut
    moved = light.copy()
    moved[:, :2] = 20  # a quarter changes: no cut
    result = steady.smooth(zero, moved)
    assert result[:, 0].max() < 0.01 and result[:, 3].min() > 0.5


def test_a_clip_keeps_its_size_rate_and_number_of_frames(tmp_path):
    clip = write_clip(tmp_path / "clip.avi.mp4", noisy_frames())
    arguments = ["colorize", clip, "-o", tmp_path / "out"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    film = cv2.VideoCapture(str(tmp_path / "out" / clip.name))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 10
    assert film.get(cv2.CAP_PROP_FPS) == 10
    is_read, frame = film.read()
    assert is_read and frame.shape == (64, 96, 3)
    assert np.ptp(frame.astype(int), axis=2).mean() > 5
    assert [p.name for p in (tmp_path / "out").iterdir()] == [clip.name]
    again = CliRunner().invoke(main, list(map(str, arguments)))
    assert again.exit_code == 2 and "already exists" in again.output


@pytest.mark.parametrize("content", [b"", b"not a film" * 50])
def test_a_broken_film_is_one_line_and_leaves_nothing(tmp_path, content):
    (tmp_path / "clip.mp4").write_bytes(content)
    arguments = ["colorize", tmp_path / "clip.mp4", "-o", tmp_path / "out"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 2
    assert "clip.mp4: not a film that OpenCV can read" in result.output
    assert not (tmp_path / "out").exists()


def test_a_missing_film_and_a_place_in_a_film_are_input_errors(tmp_path):
    for name, given, said in (
        ("no.mp4", [], "no such file"),
        ("clip.mp4", ["--hint", "1,1=red"], "are for photographs"),
        ("clip.mp4", ["--box", "1,1,9,9"], "are for photographs"),
        ("clip.mp4", ["--compare"], "are for photographs"),
    ):
        (tmp_path / "clip.mp4").write_bytes(b"")
        arguments = ["colorize", str(tmp_path / name), "-o", str(tmp_path / "o")]
        result = CliRunner().invoke(main, [*arguments, *given])
        assert result.exit_code == 2 and said in result.output


@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_no_unfinished_film(net, tmp_path, monkeypatch, name):
    number, passed_on = getattr(signal, name), []
    before = signal.signal(number, lambda *_: passed_on.append(number))

    def frames_and_a_signal(net, frames, *_):
        for frame_bgr in frames:
            yield frame_bgr
            os.kill(os.getpid(), number)

    monkeypatch.setattr(film, "colorize_frames", frames_and_a_signal)
    clip = write_clip(tmp_path / "clip.mp4", noisy_frames())
    try:
        with pytest.raises(KeyboardInterrupt):
            film.colorize_film(net, clip, tmp_path / "out" / "clip.mp4")
    finally:
        signal.signal(number, before)
    assert list((tmp_path / "out").iterdir()) == []
    assert passed_on == ([] if name == "SIGINT" else [number])


def test_two_films_never_become_one_file(tmp_path):
    for name in ("a/clip.mp4", "b/clip.mp4"):
        (tmp_path / name).parent.mkdir()
        write_clip(tmp_path / name, noisy_frames(2))
    inputs = [str(tmp_path / x / "clip.mp4") for x in "ab"]
    arguments = ["colorize", *inputs, "-o", str(tmp_path / "out"), "--force"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "both would become" in result.output
    assert not (tmp_path / "out").exists()


def test_a_film_is_colorized_even_if_no_photograph_can_be_read(tmp_path):
    write_clip(tmp_path / "clip.mp4", noisy_frames(2))
    (tmp_path / "bad.jpg").write_bytes(b"no photograph")
    inputs = [str(tmp_path / name) for name in ("bad.jpg", "clip.mp4")]
    result = CliRunner().invoke(main, ["colorize", *inputs, "-o", str(tmp_path / "o")])
    assert result.exit_code == 2 and "no photograph can be read" in result.output
    assert (tmp_path / "o" / "clip.mp4").is_file()


def test_a_film_never_replaces_itself(tmp_path):
    write_clip(tmp_path / "clip.mp4", noisy_frames(2))
    before = (tmp_path / "clip.mp4").read_bytes()
    arguments = ["colorize", str(tmp_path / "clip.mp4"), "-o", str(tmp_path)]
    result = CliRunner().invoke(main, [*arguments, "--force"])
    assert result.exit_code == 2 and "use another output folder" in result.output
    assert (tmp_path / "clip.mp4").read_bytes() == before


def test_a_broken_film_is_found_before_any_work(tmp_path):
    write_clip(tmp_path / "good.mp4", noisy_frames(2))
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    inputs = [str(tmp_path / f"{x}.mp4") for x in ("good", "bad")]
    result = CliRunner().invoke(main, ["colorize", *inputs, "-o", str(tmp_path / "o")])
    assert result.exit_code == 2 and "bad.mp4: not a film" in result.output
    assert not (tmp_path / "o").exists()


def test_a_network_without_hints_refuses_them_for_a_film_too(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", noisy_frames(2))
    write_image(tmp_path / "red.png", np.full((9, 9, 3), (20, 20, 220), np.uint8))
    arguments = ["colorize", clip, "-o", tmp_path / "out", "--weights", "colorizer"]
    arguments += ["--like", tmp_path / "red.png"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 2 and "does not accept color hints" in result.output


def test_a_film_cut_off_by_a_full_disk_is_a_failure(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", noisy_frames(2))
    target = tmp_path / "out" / "clip.mp4"
    target.parent.mkdir()
    target.write_bytes(b"an earlier film")
    really_write = film._write

    def write(path, *more):
        count = really_write(path, *more)
        path.write_bytes(path.read_bytes()[:-200])
        return count

    monkeypatch.setattr(film, "_write", write)
    arguments = ["colorize", str(clip), "-o", str(target.parent), "--force"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "check the free space" in result.output
    assert target.read_bytes() == b"an earlier film"


def test_an_unreadable_photograph_does_not_cost_the_film(tmp_path):
    write_clip(tmp_path / "clip.mp4", noisy_frames(2))
    write_image(tmp_path / "good.png", noisy_frames(1)[0])
    (tmp_path / "bad.jpg").write_bytes(b"no photograph")
    inputs = [str(tmp_path / name) for name in ("good.png", "bad.jpg", "clip.mp4")]
    result = CliRunner().invoke(main, ["colorize", *inputs, "-o", str(tmp_path / "o")])
    assert result.exit_code == 1 and "1 of 2 photographs cannot be" in result.output
    written = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert written == ["clip.mp4", "good.png"]


def test_films_are_found_by_a_pattern(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, noisy_frames(2))
    films, others = split_films([str(tmp_path / "*.mp4"), "x.jpg", "clip.mp4"])
    assert [film.name for film in films] == ["a.mp4", "b.mp4", "clip.mp4"]
    assert others == ["x.jpg"]
    with pytest.raises(InputError, match=r"\*\.avi: matches no films"):
        split_films([str(tmp_path / "*.avi")])


def test_a_file_in_place_of_the_folder_is_found_before_any_work(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", noisy_frames(2))
    (tmp_path / "file").write_bytes(b"mine")
    result = CliRunner().invoke(
        main, ["colorize", str(clip), "-o", str(tmp_path / "file")]
    )
    assert result.exit_code == 2 and "file: cannot write here" in result.output


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for ffmpeg")
@pytest.mark.parametrize("works", [True, False])
def test_the_sound_is_joined_and_a_failure_costs_only_the_sound(
    tmp_path, monkeypatch, works
):
    clip = write_clip(tmp_path / "clip.mp4", noisy_frames(2))
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    script = 'for last; do :; done; echo joined > "$last"' if works else "exit 3"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    arguments = ["colorize", str(clip), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    asked = (tmp_path / "asked").read_text()
    assert str(clip) in asked and "-map 1:a?" in asked
    target = tmp_path / "out" / "clip.mp4"
    if works:
        assert target.read_text() == "joined\n"
    else:
        assert "colorized without its sound (ffmpeg: 3)" in result.output
        assert cv2.VideoCapture(str(target)).get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert len(list((tmp_path / "out").iterdir())) == 1
