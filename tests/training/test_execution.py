import ctypes
import io
import os
import signal
import subprocess
import sys

import pytest
import torch
from engine import assert_same_weights as assert_same
from engine import fit, fresh_photographs, photographs, recipe, small_net, weights

from helpers import progress as progress_module
from helpers.files import InputError
from helpers.progress import progress
from helpers.training import autotune as tuning
from helpers.training.autotune import OPTIONS, choose_execution
from helpers.training.execution import (
    M_MMAP_MAX,
    M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD,
    PLAIN,
    Execution,
    keep_freed_memory,
)
from helpers.training.state import TrainingDiverged

LONG = recipe(num_epochs=100_000)


def trained(execution, **changes):
    net = small_net(head="linear")
    history = fit(net, photographs(), recipe=recipe(**changes), execution=execution)
    return weights(net), history["train_mse"][-1]


@pytest.mark.parametrize(
    "execution",
    [
        Execution(threads=2),
        Execution(channels_last=True),
        Execution(fused=True),
        Execution(bf16=True),
        Execution(threads=1, channels_last=True, bf16=True, fused=True),
    ],
    ids=str,
)
def test_every_form_computes_the_same_training_nearly(execution):
    known, known_mse = trained(PLAIN, num_epochs=10)
    found, mse = trained(execution, num_epochs=10)
    assert mse == pytest.approx(known_mse, rel=0.1 if execution.bf16 else 1e-3)
    for name in known:
        assert found[name].dtype == known[name].dtype
        assert found[name].shape == known[name].shape


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_has_a_fused_form(optimizer):
    known, _ = trained(PLAIN, optimizer=optimizer)
    found, _ = trained(Execution(fused=True), optimizer=optimizer)
    torch.testing.assert_close(found, known, rtol=1e-3, atol=1e-4)


def test_threads_layout_and_layers_are_put_back():
    before, net = torch.get_num_threads(), small_net()
    form = Execution(before + 1, True, timed_kernels=True)
    state = weights(net)
    with pytest.raises(ZeroDivisionError), form.active(net):
        assert torch.get_num_threads() == before + 1
        assert net.down[3].weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.backends.cudnn.benchmark
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before
    assert not torch.backends.cudnn.benchmark
    assert net.down[3].weight.is_contiguous()
    assert_same(weights(net), state)


def test_a_form_is_told_in_words():
    assert str(PLAIN) == "plain"
    every = Execution(2, True, True, True, True, "default")
    words = "2 threads, channels_last, bf16, fused optimizer, timed kernels, "
    words += "torch.compile (default)"
    assert str(every) == words


# Choosing -------------------------------------------------------------------------


class Stopwatch:
    """Replace the measurement with seconds per step that a test chooses."""

    def __init__(self, seconds_of, start=0.0):
        self.seconds_of, self.start, self.asked = seconds_of, start, []

    def __call__(self, net, train, recipe, stop, execution):
        self.asked.append(execution)
        start = self.start if execution.compiled else 0.0
        return start, self.seconds_of(execution)


def chosen(monkeypatch, watch, given=LONG, **options):
    monkeypatch.setattr(tuning, "_seconds_per_step", watch)
    monkeypatch.setattr(tuning, "free_cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(tuning, "cpu_has_bf16", lambda: True)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return choose_execution(small_net(), photographs(), given, **options)


def test_the_fastest_form_is_chosen(monkeypatch):
    watch = Stopwatch(
        lambda e: (
            1.0
            * (0.5 if e.threads == 2 else 1)
            * (1.3 if e.channels_last and not e.bf16 else 1)
            * (0.6 if e.channels_last and e.bf16 else 1)
            * (2 if e.compiled else 1)
        )
    )
    lines = []
    best = chosen(monkeypatch, watch, log=lines.append)
    assert best == Execution(threads=2, channels_last=True, bf16=True)
    assert "2 threads, channels_last, bf16 (3.33 x plain)" in lines[-1]


def test_a_core_is_left_to_what_else_is_busy(monkeypatch):
    watch = Stopwatch(lambda e: 0.2 if e.threads == 3 else 1.0)
    assert chosen(monkeypatch, watch) == Execution(threads=3)


def test_a_gain_in_the_noise_leaves_it_plain(monkeypatch):
    watch = Stopwatch(lambda e: 1.0 if e == PLAIN else 0.97)
    assert chosen(monkeypatch, watch) == PLAIN
    assert len(watch.asked) > 5


def test_a_short_training_is_not_measured_at_length(monkeypatch):
    watch = Stopwatch(lambda e: 1e-3)
    short = recipe(num_epochs=2)
    assert chosen(monkeypatch, watch, short) == Execution(narrow=True)
    assert chosen(monkeypatch, watch, short, without=["narrow"]) == PLAIN
    assert watch.asked == [PLAIN, PLAIN]


ON_A_CPU = [option for option in OPTIONS if option != "timed_kernels"]


@pytest.mark.parametrize("option", ON_A_CPU)
def test_every_option_can_be_switched_off_by_its_name(monkeypatch, option):
    watch = Stopwatch(lambda e: 1.0 - 0.15 * sum(map(bool, vars(e).values())))
    without = {option, "narrow"}  # "narrow" leaves no choice of some of the others
    best = chosen(monkeypatch, watch, without=without)
    assert not any(getattr(e, name) for e in [best, *watch.asked] for name in without)
    assert all(getattr(best, other) for other in ON_A_CPU if other not in without)


def test_compiled_loops_are_combined_with_what_they_allow(monkeypatch):
    watch = Stopwatch(
        lambda e: 1.0 - 0.15 * sum(map(bool, vars(e).values())) - 0.4 * e.narrow
    )
    best = chosen(monkeypatch, watch)
    assert best == Execution(threads=best.threads, narrow=True, fused=True)
    assert best.threads


def test_bfloat16_may_replace_compiled_loops(monkeypatch):
    """The study's U-Net: the loops gain a little, bfloat16 with channels_last far more."""
    seconds = {(True, False, False): 0.9, (False, True, True): 0.35}
    watch = Stopwatch(lambda e: seconds.get((e.narrow, e.channels_last, e.bf16), 1.0))
    assert chosen(monkeypatch, watch) == Execution(channels_last=True, bf16=True)
    assert not any(e.narrow and (e.channels_last or e.bf16) for e in watch.asked)


def test_compiling_is_tried_only_when_it_can_pay_for_its_start(monkeypatch):
    def tried(seconds, start):
        watch = Stopwatch(lambda e: seconds * (0.5 if e.compiled else 1), start)
        best = chosen(monkeypatch, watch, recipe(num_epochs=100))
        return any(e.compiled for e in watch.asked), bool(best.compiled)

    steps = 300
    assert tried(seconds=60 / steps * 2, start=1) == (False, False)
    assert tried(seconds=3000 / steps, start=30) == (True, True)
    assert tried(seconds=3000 / steps, start=2000) == (True, False)


@pytest.mark.parametrize(
    "error, words",
    [
        (
            RuntimeError("no C++ compiler\nand more"),
            "not available here (no C++ compiler)",
        ),
        (TrainingDiverged(), "left out, its loss or gradient is not finite"),
    ],
)
def test_a_form_that_fails_is_named_and_left_out(monkeypatch, error, words):
    """Compiled bfloat16 gave NaN in report 000's wide network, plain PyTorch did not."""

    def seconds_of(execution):
        if execution.compiled:
            raise error
        return 1.0

    lines = []
    assert chosen(monkeypatch, Stopwatch(seconds_of), log=lines.append) == PLAIN
    assert f"torch.compile (default): {words}" in lines


def test_a_network_that_diverges_in_plain_pytorch_is_not_trained(monkeypatch):
    def seconds_of(execution):
        raise TrainingDiverged("epoch 1, step 1 of 1: not finite")

    with pytest.raises(TrainingDiverged):
        chosen(monkeypatch, Stopwatch(seconds_of))


def test_measuring_leaves_the_network_and_the_random_numbers(monkeypatch):
    monkeypatch.setattr(tuning, "WORTH_TUNING", 0.0)
    net = small_net(head="linear")
    before, state = weights(net), torch.get_rng_state()
    mode = net.training
    choose_execution(net, photographs(), recipe(), without=["compiled"])
    assert_same(weights(net), before)
    assert net.training is mode
    assert torch.equal(torch.get_rng_state(), state)


def test_measuring_trains_with_the_real_loop_on_one_minibatch(monkeypatch):
    sizes, really_fit = [], tuning.fit

    def note(net, data, recipe, **options):
        sizes.append((len(data.train), recipe.num_epochs))
        return really_fit(net, data, recipe, **options)

    monkeypatch.setattr(tuning, "fit", note)
    monkeypatch.setattr(tuning, "WORTH_TUNING", 0.0)
    choose_execution(small_net(), fresh_photographs(), recipe(), without=["compiled"])
    assert set(sizes) == {(4, 1 + tuning.REPEATS)}  # of the eleven images


def test_a_minibatch_of_one_image_is_measured_with_two(monkeypatch):
    monkeypatch.setattr(tuning, "WORTH_TUNING", 0.0)
    one = recipe(batch_size=1)
    choose_execution(small_net(), fresh_photographs(), one, without=["compiled"])


@pytest.mark.parametrize("epoch", [0, 2])
def test_ctrl_c_while_measuring_stops(monkeypatch, epoch):
    really_fit = tuning.fit

    def interrupted(net, data, recipe, **options):
        def after_epoch(row, net):
            if row["epoch"] == epoch:
                signal.raise_signal(signal.SIGINT)

        if not epoch:
            options["stop"].received = signal.SIGINT
        return really_fit(net, data, recipe, after_epoch=after_epoch, **options)

    monkeypatch.setattr(tuning, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        choose_execution(small_net(), fresh_photographs(), LONG)


def test_an_unknown_option_is_an_input_error():
    with pytest.raises(
        InputError, match="option 'magic': unknown; use one of narrow, threads"
    ):
        choose_execution(small_net(), photographs(), LONG, without=["magic"])


def test_the_user_s_number_of_threads_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert tuning._forms("threads", PLAIN, small_net(), 1e9) == []
    assert os.environ["OMP_NUM_THREADS"] == "3"


# Progress -------------------------------------------------------------------------


class Screen(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize(
    ("terminal", "jupyterlab", "on_stderr", "on_stdout"),
    [(True, False, True, False), (False, True, False, True), (False,) * 4],
)
def test_a_bar_appears_on_a_terminal_and_in_jupyterlab_only(
    monkeypatch, capsys, terminal, jupyterlab, on_stderr, on_stdout
):
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delenv(progress_module.JUPYTERLAB_VARIABLE, raising=False)
    if jupyterlab:
        monkeypatch.setenv(progress_module.JUPYTERLAB_VARIABLE, "05.ipynb")
    monkeypatch.setattr(progress_module, "DELAY", 0.0)
    assert list(progress(range(5), "epoch 1")) == [0, 1, 2, 3, 4]
    assert ("epoch 1" in screen.getvalue()) is on_stderr
    assert ("epoch 1" in capsys.readouterr().out) is on_stdout  # not in a red box


def test_a_bar_can_be_silenced(monkeypatch):
    screen = Screen(True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress_module, "DELAY", 0.0)
    list(progress(range(5), "epoch 1", shown=False))
    assert screen.getvalue() == ""


PAGES = """
import resource, torch
from helpers.training.execution import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(2**24).fill_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = new_pages()
keep_freed_memory()
new_pages()
print(before, new_pages())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="mallopt is glibc's",
)
def test_memory_that_tensors_free_is_kept_for_the_next_ones():
    command = [sys.executable, "-c", PAGES]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, after = map(int, output.split())
    assert before > 20 * 1000
    assert after < before / 5


class OldLibrary:
    """A C library whose mallopt rejects a large threshold, like glibc before 2.35."""

    def __init__(self):
        self.accepted = []

    def mallopt(self, option, value):
        is_refused = option == M_MMAP_THRESHOLD and value > 2**25
        self.accepted += [] if is_refused else [option]
        return 0 if is_refused else 1


def test_where_the_threshold_is_refused_no_memory_is_mapped(monkeypatch):
    library = OldLibrary()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory()
    # Setting the trim threshold first would freeze the mapping threshold at 128 KiB.
    assert library.accepted == [M_MMAP_MAX, M_TRIM_THRESHOLD]
