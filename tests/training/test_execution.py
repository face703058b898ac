import ctypes
import io
import os
import subprocess
import sys

import pytest
import torch
from engine import assert_same_weights as assert_same
from engine import photographs, recipe, small_net, weights

from helpers import progress as progress_module
from helpers.files import InputError
from helpers.progress import progress
from helpers.training import autotune as tuning
from helpers.training.autotune import TRICKS, choose_execution
from helpers.training.execution import PLAIN, Execution
from helpers.training.loop import fit

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
        Execution(subpixel=True),
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
    form = Execution(before + 1, True, subpixel=True, timed_kernels=True)
    told, state = str(net), weights(net)
    with pytest.raises(ZeroDivisionError), form.active(net):
        assert torch.get_num_threads() == before + 1
        assert net.down[3].weight.is_contiguous(memory_format=torch.channels_last)
        assert str(net) != told
        assert torch.backends.cudnn.benchmark
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before
    assert not torch.backends.cudnn.benchmark
    assert net.down[3].weight.is_contiguous()
    assert str(net) == told
    assert_same(weights(net), state)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("before", "after"), [(3, 2), (1, 5), (4, 4)])
def test_a_subpixel_convolution_is_the_transposed_convolution(before, after, bias):
    torch.manual_seed(0)
    layer = torch.nn.ConvTranspose2d(before, after, 4, 2, 1, bias=bias)
    found = {}
    for subpixel in (False, True):
        x = torch.randn(2, before, 5, 7, generator=torch.Generator().manual_seed(1))
        x.requires_grad_()
        layer.zero_grad()
        with Execution(subpixel=subpixel).active(layer):
            y = layer(x)
            assert ("Subpixel" in type(layer).__name__) is subpixel
        y.pow(3).sum().backward()
        found[subpixel] = y, x.grad, layer.weight.grad.clone()
    torch.testing.assert_close(found[True], found[False], rtol=1e-4, atol=1e-4)


def test_other_transposed_convolutions_stay_as_they_are():
    layer = torch.nn.ConvTranspose2d(2, 2, 2, 2)
    with Execution(subpixel=True).active(layer):
        assert type(layer) is torch.nn.ConvTranspose2d


def test_a_form_is_told_in_words():
    assert str(PLAIN) == "plain"
    every = Execution(2, True, True, True, True, True, "default")
    words = "2 threads, channels_last, bf16, fused optimizer, subpixel convolutions, "
    words += "timed kernels, torch.compile (default)"
    assert str(every) == words


# Choosing -------------------------------------------------------------------------


class Stopwatch:
    """In place of measuring: seconds a step of each form, as a test wants them."""

    def __init__(self, seconds_of, start=0.0):
        self.seconds_of, self.start, self.asked = seconds_of, start, []

    def __call__(self, *_):
        return self

    def seconds(self, execution):
        self.asked.append(execution)
        start = self.start if execution.compiled else 0.0
        return start, self.seconds_of(execution)


def chosen(monkeypatch, watch, given=LONG, **options):
    monkeypatch.setattr(tuning, "_Stepper", watch)
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
    assert chosen(monkeypatch, watch, recipe(num_epochs=2)) == PLAIN
    assert watch.asked == [PLAIN]


ON_A_CPU = [trick for trick in TRICKS if trick != "timed_kernels"]


@pytest.mark.parametrize("trick", ON_A_CPU)
def test_every_trick_can_be_switched_off_by_its_name(monkeypatch, trick):
    watch = Stopwatch(lambda e: 1.0 - 0.15 * sum(map(bool, vars(e).values())))
    best = chosen(monkeypatch, watch, without=[trick])
    assert not any(getattr(e, trick) for e in [best, *watch.asked])
    assert all(getattr(best, other) for other in ON_A_CPU if other != trick)


def test_compiling_is_tried_only_when_it_can_pay_for_its_start(monkeypatch):
    def tried(seconds, start):
        watch = Stopwatch(lambda e: seconds * (0.5 if e.compiled else 1), start)
        best = chosen(monkeypatch, watch, recipe(num_epochs=100))
        return any(e.compiled for e in watch.asked), bool(best.compiled)

    steps = 300
    assert tried(seconds=60 / steps * 2, start=1) == (False, False)
    assert tried(seconds=3000 / steps, start=30) == (True, True)
    assert tried(seconds=3000 / steps, start=2000) == (True, False)


def test_a_form_that_fails_is_named_and_left_out(monkeypatch):
    def seconds_of(execution):
        if execution.compiled:
            raise RuntimeError("no C++ compiler\nand more")
        return 1.0

    lines = []
    assert chosen(monkeypatch, Stopwatch(seconds_of), log=lines.append) == PLAIN
    assert "torch.compile (default): not to be had here (no C++ compiler)" in lines


def test_measuring_leaves_the_network_and_the_random_numbers(monkeypatch):
    monkeypatch.setattr(tuning, "WORTH_TUNING", 0.0)
    net = small_net(head="linear")
    before, state = weights(net), torch.get_rng_state()
    mode = net.training
    choose_execution(net, photographs(), recipe(), without=["compiled"])
    assert_same(weights(net), before)
    assert net.training is mode
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_trick_is_an_input_error():
    with pytest.raises(InputError, match="trick 'magic': unknown; use one of threads"):
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
    ("terminal", "jupyterlab", "shown"),
    [(True, False, True), (False, True, True), (False, False, False)],
)
def test_a_bar_appears_on_a_terminal_and_in_jupyterlab_only(
    monkeypatch, terminal, jupyterlab, shown
):
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delenv(progress_module.JUPYTERLAB_VARIABLE, raising=False)
    if jupyterlab:
        monkeypatch.setenv(progress_module.JUPYTERLAB_VARIABLE, "05.ipynb")
    monkeypatch.setattr(progress_module, "DELAY", 0.0)
    assert list(progress(range(5), "epoch 1")) == [0, 1, 2, 3, 4]
    assert ("epoch 1" in screen.getvalue()) is shown


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
