import importlib
import itertools
import threading
import time
import tracemalloc
import zipfile
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import nets
from helpers.apps.colorize import (
    AHEAD,
    STRIP_PIXELS,
    colorize,
    colorize_all,
    grayscale,
    predict_mean_chrominance,
)
from helpers.data.images import decode_image, open_source
from helpers.data.lab import bgr_to_lab
from helpers.files import InputError, free_cores

module = importlib.import_module("helpers.apps.colorize")  # not the function
SHAPES = [(1, 1), (7, 300), (300, 200), (128, 128), (40, 1), (129, 257), (5, 3)]


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return smooth colors of medium brightness, all inside sRGB."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(80, 170, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def small_net(**options) -> nets.Colorizer:
    torch.manual_seed(0)
    net = nets.Colorizer(**{"maps": 3, "num_down": 3, "head": "tanh", **options})
    net.train()(torch.rand(4, 1, 16, 16))  # updates the running statistics
    return net


class Painter(nn.Module):
    """A stand-in for a network: predicts color(L) and records its inputs."""

    def __init__(self, color, num_down: int = 5):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.color, self.num_down, self.seen = color, num_down, []

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        self.seen.append(L.clone())
        return self.color(L)

    predict_map = predict


class Pattern(nn.Module):
    """A network stand-in with a known low-resolution map, upsampled by `upscale`."""

    num_down = 4

    def __init__(self, upscale: int):
        super().__init__()
        self.weight, self.upscale = nn.Parameter(torch.zeros(1)), upscale

    def predict_map(self, L: torch.Tensor) -> torch.Tensor:
        shape = (len(L), 2, *(n // self.upscale for n in L.shape[2:]))
        return 20 * torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        small = self.predict_map(L)
        return F.interpolate(small, scale_factor=self.upscale, mode="bilinear")


def constant(a: float, b: float):
    ab = torch.tensor([float(a), float(b)]).view(1, 2, 1, 1)
    return lambda L: ab.repeat(len(L), 1, *L.shape[2:])


def state(net: nn.Module) -> dict:
    return {name: value.clone() for name, value in net.state_dict().items()}


def lightness(image_bgr: np.ndarray) -> np.ndarray:
    return bgr_to_lab(image_bgr)[..., 0]


@pytest.mark.parametrize("network", ["colorizer", "unet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_keeps_its_size_and_lightness(shape, network):
    image = photograph(*shape)
    unet = nets.UNet(base=2, levels=3, head="tanh")
    result = colorize(small_net() if network == "colorizer" else unet, image)
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert np.abs(lightness(result) - lightness(image)).max() < 0.6


@pytest.mark.parametrize("shape", SHAPES)
def test_the_photograph_gets_the_predicted_color(shape):
    image = photograph(*shape)
    lab = bgr_to_lab(colorize(Painter(constant(20, -15)), image))
    assert np.abs(lab[..., 1] - 20).max() < 1.5
    assert np.abs(lab[..., 2] + 15).max() < 1.5
    assert np.abs(lab[..., 0] - lightness(image)).max() < 0.6


def test_fine_detail_of_the_lightness_is_kept():
    rng = np.random.default_rng(0)
    image = rng.integers(90, 160, (300, 200, 1), dtype=np.uint8).repeat(3, axis=2)
    result = colorize(Painter(constant(10, 10)), image)
    assert np.abs(lightness(result) - lightness(image)).max() < 0.6
    assert lightness(image).std() > 5


def test_a_gray_photograph_gets_color_and_a_color_photograph_loses_its_own():
    image = photograph(60, 90)
    lab = bgr_to_lab(image)
    lab[..., 1:] = 0
    gray = np.rint(255 * cv2.cvtColor(lab, cv2.COLOR_Lab2BGR)).astype(np.uint8)
    net = small_net()
    from_gray, from_color = colorize(net, gray), colorize(net, image)
    assert np.abs(from_gray.astype(int) - from_color).max() <= 4
    assert np.abs(from_color.astype(int) - image).max() > 20
    painted = colorize(Painter(constant(30, 30)), gray)
    assert (painted[..., 2] > painted[..., 0].astype(int) + 20).all()


def test_each_color_is_where_its_lightness_is():
    image = np.full((90, 240, 3), 90, np.uint8)
    image[:30, :60] = 160  # a light patch in the upper left corner

    def light_is_red(L):
        light = (L > 50).float()
        return torch.cat([40 * light - 20 * (1 - light), torch.zeros_like(L)], dim=1)

    a = bgr_to_lab(colorize(Painter(light_is_red), image))[..., 1]
    assert a[:26, :56].min() > 35
    assert a[34:].max() < -15
    assert a[:, 64:].max() < -15


@pytest.mark.parametrize(
    ("shape", "num_down", "expected"),
    [
        ((300, 200), 5, (192, 128)),
        ((128, 128), 5, (128, 128)),
        ((64, 96), 5, (128, 192)),
        ((300, 211), 3, (184, 128)),
        ((1, 1), 4, (128, 128)),
        ((500, 1000), 7, (128, 256)),
    ],
)
def test_the_network_input_has_a_shorter_side_of_128_in_multiples_of_its_step(
    shape, num_down, expected
):
    painter = Painter(constant(0, 0), num_down)
    colorize(painter, photograph(*shape))
    assert painter.seen[0].shape == (1, 1, *expected)
    assert painter.seen[0].dtype == torch.float32


def test_the_network_input_is_l_in_natural_units():
    painter = Painter(constant(0, 0))
    colorize(painter, np.full((50, 70, 3), 128, np.uint8))
    assert painter.seen[0].min().item() == pytest.approx(53.585, abs=0.02)
    assert painter.seen[0].max().item() == pytest.approx(53.585, abs=0.02)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0])
def test_the_strength_multiplies_the_chrominance(strength):
    image = photograph(60, 90)
    lab = bgr_to_lab(colorize(Painter(constant(10, -8)), image, strength))
    assert np.abs(lab[..., 1] - 10 * strength).max() < 1.5
    assert np.abs(lab[..., 2] + 8 * strength).max() < 1.5
    assert np.abs(lab[..., 0] - lightness(image)).max() < 0.6


def test_a_photograph_of_128_pixels_gets_the_plain_prediction():
    image, net = photograph(128, 128), small_net().eval()
    lab = torch.from_numpy(bgr_to_lab(image)).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = net.predict(lab[:, :1])[0].permute(1, 2, 0).numpy()
    found = bgr_to_lab(colorize(net, image))[..., 1:]
    assert np.abs(found - expected).max() < 1.5


def test_the_network_input_of_a_long_strip_is_limited():
    painter = Painter(constant(0, 0))
    result = colorize(painter, photograph(1, 1000))
    assert result.shape == (1, 1000, 3)
    assert painter.seen[0].numel() <= 2**20  # 64 times a square of 128 pixels


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_unchanged(training):
    net = small_net().train(training)
    before = state(net)
    colorize(net, photograph(40, 60))
    assert all(module.training is training for module in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_frozen_layer_stays_frozen():
    net = small_net().train()
    net.down[1].eval()
    colorize(net, photograph(40, 60))
    assert net.training
    assert not net.down[1].training


def test_the_mode_is_restored_after_an_error():
    net = nets.Regressor().train()
    with pytest.raises(RuntimeError):
        net.layers[0].weight.data = torch.zeros(3, 4, 3, 3)
        predict_mean_chrominance(net, photograph(20, 20))
    assert net.training


def test_the_result_is_the_same_again_and_in_either_mode():
    image, net = photograph(70, 50), small_net()
    first = colorize(net.train(), image)
    assert np.array_equal(first, colorize(net, image))
    colorize(net, photograph(30, 30, seed=1))
    assert np.array_equal(first, colorize(net.eval(), image))


def test_the_input_is_not_changed():
    image = photograph(70, 50)
    before = image.copy()
    colorize(small_net(), image)
    predict_mean_chrominance(nets.Regressor(), image)
    assert np.array_equal(image, before)


def test_a_view_into_a_larger_image_can_be_colored():
    view = photograph(90, 90)[10:60, 5:75]
    expected = colorize(small_net(), view.copy())
    assert np.array_equal(colorize(small_net(), view), expected)


def test_black_and_white_stay_black_and_white_under_neutral_color():
    image = np.zeros((40, 40, 3), np.uint8)
    assert colorize(Painter(constant(0, 0)), image).max() == 0
    assert colorize(Painter(constant(0, 0)), image + 255).min() >= 254


# Alpha and 16 bits ----------------------------------------------------------------


def test_alpha_is_kept_and_does_not_change_the_colors():
    image, rng = photograph(50, 70), np.random.default_rng(1)
    alpha = rng.integers(0, 256, (50, 70), dtype=np.uint8)
    result = colorize(small_net(), np.dstack([image, alpha]))
    assert np.array_equal(result[..., 3], alpha)
    assert np.array_equal(result[..., :3], colorize(small_net(), image))


def test_a_16_bit_photograph_gives_the_same_colors_in_16_bits():
    image = photograph(50, 70)
    result = colorize(small_net(), image.astype(np.uint16) * 257)
    assert result.dtype == np.uint16
    assert np.abs(result / 257 - colorize(small_net(), image)).max() < 2


def test_a_16_bit_gradient_stays_smooth():
    ramp = np.linspace(20_000, 24_000, 4001).astype(np.uint16)  # 16 steps of 8 bits
    image = np.dstack([np.tile(ramp, (4, 1))] * 3)
    gray = colorize(Painter(constant(0, 0)), image)
    assert np.abs(gray.astype(int) - image).max() <= 3
    red = colorize(Painter(constant(20, 15)), image)[0].astype(int)
    assert (np.ptp(red, axis=1) > 5000).all()  # it is colored
    steps = np.diff(red, axis=0)
    assert steps.min() >= -1 and steps.max() <= 4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grayscale_keeps_the_lightness_only(dtype):
    image = photograph(60, 40).astype(dtype) * (257 if dtype == np.uint16 else 1)
    gray = grayscale(image)
    assert gray.shape == image.shape and gray.dtype == dtype
    assert np.ptp(gray.astype(int), axis=2).max() <= np.iinfo(dtype).max / 255
    expected = colorize(Painter(constant(0, 0)), image)
    assert np.array_equal(gray, expected)
    with_alpha = grayscale(np.dstack([image, image[..., 0]]))
    assert np.array_equal(with_alpha[..., 3], image[..., 0])


@pytest.fixture
def upsampled(monkeypatch):
    """The maps passed to DetailedMap."""
    maps = []

    class Spy(module.DetailedMap):
        def __init__(self, ab, L):
            maps.append(ab)
            super().__init__(ab, L)

    monkeypatch.setattr(module, "DetailedMap", Spy)
    return maps


def test_a_large_photograph_gets_the_network_s_own_map_unchanged(upsampled):
    net = Pattern(upscale=4)
    colorize(net, photograph(300, 450), strength=0.5)
    pattern = net.predict_map(torch.zeros(1, 1, 128, 192))[0].permute(1, 2, 0)
    assert np.array_equal(upsampled[0], 0.5 * pattern.numpy())


def test_only_a_photograph_larger_than_the_input_gets_the_small_map(upsampled):
    net = nets.UNet(base=2, levels=2, unshuffle=4)
    for shape in ((256, 384), (128, 192), (60, 90)):
        colorize(net, photograph(*shape))
    shapes = [ab.shape for ab in upsampled]
    assert shapes == [(32, 48, 2), (128, 192, 2), (128, 192, 2)]


# Boxes ----------------------------------------------------------------------------


def test_a_box_is_predicted_separately_and_the_rest_is_unchanged():
    image, box = photograph(400, 600), (100, 50, 96, 80)
    painter = Painter(
        lambda L: constant(L.shape[3] / 10, 0)(L)
    )  # a* is a tenth of the width
    a = bgr_to_lab(colorize(painter, image, boxes=[box]))[..., 1]
    assert [tuple(L.shape[2:]) for L in painter.seen] == [(128, 192), (128, 160)]
    assert np.abs(a[62:118, 112:184] - 16).max() < 0.8  # an eighth of 80 fades
    outside = np.ones(a.shape, bool)
    outside[50:130, 100:196] = False
    assert np.abs(a[outside] - 19.2).max() < 0.8
    across = np.diff(a[80:100, 95:115].mean(axis=0))
    assert across.min() > -0.8  # a smooth change from 19.2 to 16


def test_the_input_for_a_box_is_its_own_pixels():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    painter = Painter(constant(0, 0))
    colorize(painter, image, boxes=[(20, 150, 128, 128)])
    expected = lightness(image[150:278, 20:148])
    assert np.abs(painter.seen[1][0, 0].numpy() - expected).max() < 1e-3


def test_a_box_around_the_whole_photograph_changes_nothing():
    image, net = photograph(90, 60), small_net()
    expected = colorize(net, image)
    assert np.array_equal(colorize(net, image, boxes=[(0, 0, 60, 90)]), expected)


def test_the_later_of_two_boxes_is_on_top():
    image, colors = photograph(200, 200), iter([(0, 0), (20, 0), (-20, 0)])
    painter = Painter(lambda L: constant(*next(colors))(L))
    a = bgr_to_lab(
        colorize(painter, image, boxes=[(0, 0, 200, 100), (0, 50, 200, 100)])
    )[..., 1]
    assert np.abs(a[:45] - 20).max() < 1.5
    assert np.abs(a[65:135] + 20).max() < 1.5
    assert np.abs(a[155:]).max() < 1.5


@pytest.mark.parametrize(
    "box",
    [
        (-1, 0, 9, 9),
        (0, -1, 9, 9),
        (0, 0, 31, 9),
        (25, 0, 6, 9),
        (0, 0, 0, 9),
        (2, 20, 5, 1),
    ],
)
def test_a_box_outside_the_photograph_is_an_input_error(box):
    with pytest.raises(InputError, match="not inside the photograph of 30 x 20 pixels"):
        colorize(small_net(), photograph(20, 30), boxes=[box])


# Strips ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        *((1, 1), (5, 3), (1, 2000), (2000, 1), (517, 1031), (2000, 3000)),
        (3, 2 * STRIP_PIXELS),
    ],
)
def test_strips_give_the_same_pixels_as_the_whole_at_once(shape, monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    net, boxes = small_net().eval(), [(0, 0, shape[1], (shape[0] + 1) // 2)]
    in_strips = colorize(net, image, boxes=boxes)
    monkeypatch.setattr(module, "STRIP_PIXELS", 10**9)
    at_once = colorize(net, image, boxes=boxes).astype(int)
    assert np.abs(in_strips - at_once).max() <= 1  # rounding of 0.5
    assert (in_strips != at_once).mean() < 1e-3


def test_a_large_photograph_needs_few_bytes_per_pixel():
    image = photograph(3000, 2000)
    painter = Painter(constant(20, -15))
    tracemalloc.start()
    try:
        colorize(painter, image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / (3000 * 2000) < 12  # L*: 4, result: 3, and one strip


# Many photographs -----------------------------------------------------------------


class Album:
    """Photographs to read and write; counts how many are in memory."""

    def __init__(self, images):
        self.images, self.written, self.reported = images, {}, []
        self.in_memory, self.max_in_memory, self.max_named = 0, 0, 0
        self.lock = threading.Lock()

    def photographs(self):
        for index in range(len(self.images)):
            self.max_named = max(self.max_named, index + 1 - len(self.reported))
            yield index, lambda index=index: self.read(index)

    def read(self, index):
        with self.lock:
            self.in_memory += 1
            self.max_in_memory = max(self.max_in_memory, self.in_memory)
        if isinstance(self.images[index], Exception):
            with self.lock:
                self.in_memory -= 1
            raise self.images[index]
        return self.images[index]

    def write(self, index, image_bgr, result_bgr):
        assert image_bgr is self.images[index]
        with self.lock:
            self.in_memory -= 1
            self.written[index] = result_bgr

    def report(self, index, error):
        self.reported.append((index, error))

    def colorize(self, net, workers=4):
        colorize_all(net, self.photographs(), self.write, self.report, workers)


def tiny(count: int) -> list[np.ndarray]:
    return [photograph(3 + seed % 5, 4, seed) for seed in range(count)]


@pytest.fixture
def one_thread():
    """Use one torch thread, like the workers, so that results are bit-identical."""
    found = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(found)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("workers", [1, 4])
def test_many_photographs_get_the_same_colors_as_single_ones(workers):
    images = [photograph(9 + 7 * i, 80 - i, seed=i) for i in range(40)]
    album, net = Album(images), small_net()
    album.colorize(net, workers)
    assert sorted(album.written) == list(range(40))
    for index, image in enumerate(images):
        assert np.array_equal(album.written[index], colorize(net, image)), index


def test_the_order_is_kept_when_the_first_is_read_last():
    album, others_are_done = Album(tiny(8)), threading.Event()
    read, write = album.read, album.write

    def read_slowly(index):
        assert index or others_are_done.wait(60)
        return read(index)

    def write_and_signal(index, *images):
        write(index, *images)
        if len(album.written) == 7:
            others_are_done.set()

    album.read, album.write = read_slowly, write_and_signal
    album.colorize(small_net(), workers=2)
    assert list(album.written)[-1] == 0
    assert album.reported == [(index, None) for index in range(8)]


def test_reading_and_writing_of_different_photographs_overlap():
    album, second_is_read = Album(tiny(2)), threading.Event()
    read, write = album.read, album.write

    def read_and_signal(index):
        if index == 1:
            second_is_read.set()
        return read(index)

    def write_after_the_second_is_read(index, *images):
        assert second_is_read.wait(60)
        write(index, *images)

    album.read, album.write = read_and_signal, write_after_the_second_is_read
    album.colorize(small_net(), workers=2)
    assert sorted(album.written) == [0, 1]


@pytest.mark.parametrize("workers", [1, 3])
def test_few_of_many_photographs_are_in_memory_or_queued(workers):
    album = Album(tiny(200))
    album.colorize(Painter(constant(5, 5)), workers)
    assert [index for index, _ in album.reported] == list(range(200))
    assert album.max_in_memory <= workers
    assert album.max_named <= AHEAD * workers


def test_by_default_every_free_core_colors_a_photograph():
    album = Album(tiny(free_cores()))
    together = threading.Barrier(free_cores())  # opens when all have arrived
    read = album.read

    def read_together(index):
        together.wait(60)
        return read(index)

    album.read = read_together
    album.colorize(Painter(constant(5, 5)), workers=0)
    assert len(album.written) == free_cores()


def test_one_bad_file_among_many_is_reported_in_order():
    images, bad = tiny(50), InputError("photo.jpg: empty file")
    images[17] = bad
    album = Album(images)
    album.colorize(small_net())
    assert album.reported == [(i, bad if i == 17 else None) for i in range(50)]
    assert sorted(album.written) == [i for i in range(50) if i != 17]


@pytest.mark.parametrize(
    "error", [InputError("x.png: cannot write (No space left)"), OSError("unexpected")]
)
def test_an_error_while_writing_stops_the_work_and_is_raised(error):
    album, net = Album(tiny(500)), small_net().train()
    threads = torch.get_num_threads()
    write = album.write

    def full(index, *images):
        write(index, *images)
        if index == 20:
            raise error

    album.write = full
    with pytest.raises(type(error)) as caught:
        album.colorize(net)
    assert caught.value is error
    assert album.reported == [(index, None) for index in range(20)]
    assert len(album.written) <= 20 + AHEAD * 4
    assert net.training
    assert torch.get_num_threads() == threads


def test_an_unexpected_error_while_reading_is_raised():
    images = tiny(20)
    images[3] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        Album(images).colorize(small_net())


def test_an_error_of_the_network_is_raised():
    def broken(L):
        raise RuntimeError("wrong shape")

    with pytest.raises(RuntimeError, match="wrong shape"):
        Album(tiny(20)).colorize(Painter(broken))


@pytest.mark.usefixtures("one_thread")
def test_ctrl_c_stops_the_work_with_complete_results_only():
    album, net = Album(tiny(500)), small_net()

    def interrupt(index, error):
        if index == 20:
            raise KeyboardInterrupt

    album.report = interrupt
    with pytest.raises(KeyboardInterrupt):
        album.colorize(net)
    assert 20 < len(album.written) < 21 + AHEAD * 4
    for index, result in album.written.items():
        assert np.array_equal(result, colorize(net, album.images[index]))
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("ThreadPoolExecutor")]


def test_after_an_error_nothing_more_is_read_or_colored():
    album, begun, go = Album(tiny(100)), threading.Semaphore(0), threading.Event()
    read, reads = album.read, []

    def read_and_wait(index):
        reads.append(index)
        if index:
            begun.release()
            assert go.wait(60)
        return read(index)

    def fail(index, error):
        begun.acquire(timeout=60)
        begun.acquire(timeout=60)  # both workers are reading
        threading.Timer(0.5, go.set).start()
        raise RuntimeError

    album.read, album.report = read_and_wait, fail
    with pytest.raises(RuntimeError):
        album.colorize(small_net(), workers=2)
    assert sorted(reads) == [0, 1, 2]
    assert list(album.written) == [0]


def test_an_endless_iterable_is_consumed_step_by_step():
    def stop_at_300(index, error):
        if index == 300:
            raise KeyboardInterrupt

    endless = ((index, lambda: photograph(4, 4)) for index in itertools.count())
    with pytest.raises(KeyboardInterrupt):
        colorize_all(
            Painter(constant(5, 5)), endless, lambda *_: None, stop_at_300, workers=2
        )
    assert next(endless)[0] <= 300 + AHEAD * 2 + 1


@pytest.mark.parametrize("training", [True, False])
def test_many_photographs_leave_the_network_unchanged(training):
    net = small_net().train(training)
    net.down[1].eval()
    before = state(net)
    Album(tiny(20)).colorize(net)
    assert net.training is training
    assert net.down[0].training is training
    assert not net.down[1].training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_each_photograph_uses_one_torch_thread_and_no_gradients():
    seen = set()

    def note(L):
        seen.add((torch.get_num_threads(), torch.is_grad_enabled()))
        return constant(0, 0)(L)

    found, threads_later = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        Album(tiny(20)).colorize(Painter(note))
        assert torch.get_num_threads() == 3
        later = threading.Thread(
            target=lambda: threads_later.append(torch.get_num_threads())
        )
        later.start()
        later.join()
    finally:
        torch.set_num_threads(found)
    assert seen == {(1, False)}
    assert threads_later == [3]


def test_large_photographs_are_colored_one_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "LARGE_PIXELS", 100)
    busy, counts = [], []

    def note(L):
        busy.append(1)
        counts.append(len(busy))
        time.sleep(0.005)  # long enough for the others to start
        busy.pop()
        return constant(0, 0)(L)

    Album([photograph(20, 20)] * 20).colorize(Painter(note))
    assert counts == [1] * 20


def test_an_empty_list_is_no_error():
    album = Album([])
    album.colorize(small_net())
    assert album.reported == []


def test_a_zip_can_be_read_from_many_threads(tmp_path):
    images = {f"{i:03}.png": photograph(6, 5, seed=i) for i in range(100)}
    with zipfile.ZipFile(tmp_path / "album.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, image in images.items():
            archive.writestr(name, cv2.imencode(".png", image)[1].tobytes())
    source, read, errors = open_source(tmp_path / "album.zip"), {}, []

    def decode(turn, name):
        read[turn, name] = decode_image(source.read(name))
        return read[turn, name]

    colorize_all(
        Painter(constant(0, 0)),
        ((n, partial(decode, t, n)) for t in range(5) for n in source.names),
        lambda *_: None,
        lambda name, error: errors.append(error),
        workers=8,
    )
    assert errors == [None] * 500
    assert all(np.array_equal(read[t, n], images[n]) for t, n in read)


# The regressor --------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_chrominance_is_two_numbers_for_any_size(shape):
    torch.manual_seed(0)
    a, b = predict_mean_chrominance(nets.Regressor(), photograph(*shape))
    assert type(a) is type(b) is float
    assert np.isfinite([a, b]).all()


def test_the_mean_chrominance_is_the_network_s_prediction():
    torch.manual_seed(0)
    net, image = nets.Regressor(8, batchnorm=True).train(), photograph(128, 128)
    L = torch.from_numpy(lightness(image))[None, None]
    with torch.no_grad():
        expected = net.eval().predict(L)[0].tolist()
    net.train()
    assert predict_mean_chrominance(net, image) == pytest.approx(expected, abs=1e-3)
    assert net.training


def test_the_regressor_input_is_128_by_128_pixels_of_natural_lightness():
    painter = Painter(lambda L: L.mean(dim=(2, 3)) * torch.tensor([1.0, -1.0]))
    gray = np.full((300, 40, 3), 128, np.uint8)
    a, b = predict_mean_chrominance(painter, gray)
    assert painter.seen[0].shape == (1, 1, 128, 128)
    assert a == pytest.approx(53.585, abs=0.02)
    assert b == -a
