"""Which form of computing the steps is the fastest for a network on this machine: measured.

No form wins everywhere: small networks want one thread and plain planes, large ones
channels_last and, where the processor has it, bfloat16. So a few steps are timed.
"""

import copy
import os
import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import replace

import torch

from helpers.data.augment import FreshImages, random_aug_params
from helpers.data.lab import LabImages
from helpers.files import InputError, free_cores
from helpers.nets import ChrominanceNet
from helpers.training.execution import PLAIN, Execution, cpu_has_bf16, doubles
from helpers.training.loop import Training, train_step
from helpers.training.optim import Recipe, make_optimizer, minibatches

TRICKS = (
    *("threads", "channels_last", "bf16", "timed_kernels", "fused", "subpixel"),
    "compiled",
)
REPEATS = 3
MIN_GAIN = 1.05  # a form that is faster by less is noise
WORTH_TUNING = 60.0  # seconds of training below which nothing is measured
WORTH_COMPILING = {"cpu": 1200.0, "cuda": 60.0}  # seconds; on a CPU it seldom gains


def choose_execution(
    net: ChrominanceNet,
    train: LabImages | FreshImages,
    recipe: Recipe,
    *,
    without: Collection[str] = (),
    log: Callable[[str], None] = lambda line: None,
) -> Execution:
    """Measure the forms that may be faster than plain PyTorch and return the fastest.

    `net` is left as it is; `without` names tricks that shall not be used. One trick is
    tried after the other and kept when its gain over the whole training is larger than
    5 % and than the seconds of its start. A training of less than a minute stays plain.
    Raises InputError for an unknown trick.
    """
    for name in without:
        if name not in TRICKS:
            raise InputError(f"trick {name!r}: unknown; use one of {', '.join(TRICKS)}")
    device = next(net.parameters()).device
    index = minibatches(len(train), recipe.batch_size, seed=0, epoch=1)
    stepper = _Stepper(net, train.to(device), recipe, index[0])
    num_steps = recipe.num_epochs * len(index)
    best, times_plain = PLAIN, 1.0
    _, seconds = stepper.seconds(PLAIN)
    if seconds * num_steps < WORTH_TUNING:
        return PLAIN
    for trick in TRICKS:
        for form in _forms(trick, best, net, seconds * num_steps):
            if any(getattr(form, name) for name in without):
                continue
            try:
                start, new = stepper.seconds(form)
            except RuntimeError as error:  # torch.compile where no compiler is
                log(f"{form}: not to be had here ({str(error).splitlines()[0]})")
                continue
            _, seconds = stepper.seconds(best)  # beside it: the machine may be shared
            gain = (seconds - new) * num_steps
            if seconds > MIN_GAIN * new and gain > start:
                times_plain *= seconds / new
                best, seconds = form, new
    log(f"steps are computed in the form: {best} ({times_plain:.2f} x plain)")
    return best


def _forms(trick: str, best: Execution, net, left: float) -> list[Execution]:
    """What a trick offers on top of the best form so far; `left` seconds of training."""
    device = next(net.parameters()).device.type
    if trick == "threads" and device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        powers = {2**n for n in range(free_cores().bit_length())}
        spared = {free_cores() - 1} - {0}  # a core for what else is busy here
        others = (powers | spared) - {torch.get_num_threads()}
        return [replace(best, threads=n) for n in sorted(others)]
    if trick == "channels_last":
        return [replace(best, channels_last=True)]
    if trick == "bf16" and (device == "cuda" or cpu_has_bf16()):
        layouts = {best.channels_last, True}
        return [replace(best, bf16=True, channels_last=last) for last in layouts]
    if trick == "timed_kernels" and device == "cuda":
        return [replace(best, timed_kernels=True)]
    if trick == "fused":
        return [replace(best, fused=True)]
    if trick == "subpixel" and any(doubles(module) for module in net.modules()):
        return [replace(best, subpixel=True)]
    if trick == "compiled" and left > WORTH_COMPILING[device]:
        mode = "reduce-overhead" if device == "cuda" else "default"
        return [replace(best, compiled=mode)]
    return []


class _Stepper:
    """Times steps of a copy of the network, on one minibatch."""

    def __init__(self, net, train, recipe: Recipe, index: torch.Tensor):
        self.net, self.train, self.recipe, self.index = net, train, recipe, index
        self.aug_params = random_aug_params(len(train), seed=0, epoch=0)
        self.device = next(net.parameters()).device

    def seconds(self, execution: Execution) -> tuple[float, float]:
        """(seconds of the first step, median seconds of the others)."""
        net = copy.deepcopy(self.net)
        net.fit_scale(self.train.truth[:50])
        optimizer, scheduler = make_optimizer(net, self.recipe, 1, execution.fused)
        training = Training(net.train(), optimizer, scheduler, execution)
        times = []
        with execution.active(net):
            called = execution.compile(net)
            for _ in range(REPEATS + 1):
                started = time.perf_counter()
                minibatch = self.train.minibatch(self.index, self.aug_params)
                loss, _ = train_step(training, called, minibatch, 1.0)
                optimizer.step()
                loss.item()  # wait for the device
                times.append(time.perf_counter() - started)
        return times[0], statistics.median(times[1:])
