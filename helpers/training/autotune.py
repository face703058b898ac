"""Find the fastest way to compute a network's training steps on this machine.

No single `Execution` is fastest everywhere. Narrow networks run fastest with compiled
loops, large ones with channels_last and, if the processor has it, bfloat16.
"""

import copy
import os
import statistics
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

import torch

from helpers.data.course import Datasets
from helpers.files import InputError, free_cores
from helpers.training import narrow as engine
from helpers.training.execution import (
    PLAIN,
    Execution,
    cpu_has_bf16,
    default_execution,
)
from helpers.training.loop import fit
from helpers.training.optim import Recipe, minibatches
from helpers.training.signals import StopSignals
from helpers.training.state import TrainingDiverged

OPTIONS = (
    "narrow",
    "threads",
    "channels_last",
    "bf16",
    "timed_kernels",
    "fused",
    "compiled",
)
REPEATS = 3
MIN_GAIN = 1.05  # a smaller speedup is treated as noise
WORTH_TUNING = 60.0  # seconds; shorter runs are not tuned
WORTH_COMPILING = {"cpu": 1200.0, "cuda": 60.0}  # seconds; on a CPU it seldom pays


def choose_execution(
    net: torch.nn.Module,
    train,
    recipe: Recipe,
    *,
    without: Collection[str] = (),
    stop: StopSignals | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Execution:
    """Time the options that may be faster than plain PyTorch; return the fastest choice.

    net      is not changed; train is the training set
    without  options of `Execution` that must not be used

    Options are tried one at a time. An option is kept if it is more than 5 % faster and
    saves more time than it takes to start. Runs of less than a minute are not measured;
    they use `default_execution`. An option that is not available, or whose loss or gradient
    is not finite, is logged and left out.
    Raises InputError for an unknown option, and KeyboardInterrupt if `stop` receives a
    signal.
    """
    measure = partial(_seconds_per_step, net, train, recipe, stop or StopSignals())
    for name in without:
        if name not in OPTIONS:
            known = ", ".join(OPTIONS)
            raise InputError(f"option {name!r}: unknown; use one of {known}")
    num_steps = recipe.num_epochs * len(
        minibatches(len(train), recipe.batch_size, 0, 1)
    )
    best, speedup = PLAIN, 1.0
    _, seconds = measure(PLAIN)
    if seconds * num_steps < WORTH_TUNING:
        return PLAIN if "narrow" in without else default_execution(net)
    for option in OPTIONS:
        for form in _forms(option, best, net, seconds * num_steps):
            if any(getattr(form, name) for name in without):
                continue
            try:
                start, new = measure(form)
            except RuntimeError as error:  # torch.compile without a compiler
                log(f"{form}: not available here ({str(error).splitlines()[0]})")
                continue
            except TrainingDiverged:  # plain PyTorch did not diverge at these steps
                log(f"{form}: left out, its loss or gradient is not finite")
                continue
            # Time the best one again right after the new one: the machine may be shared.
            _, seconds = measure(best)
            gain = (seconds - new) * num_steps
            if seconds > MIN_GAIN * new and gain > start:
                speedup *= seconds / new
                best, seconds = form, new
    log(f"training steps use: {best} ({speedup:.2f} x plain)")
    return best


def _forms(option: str, best: Execution, net, remaining: float) -> list[Execution]:
    """Return the forms to try for an option; `remaining` is in seconds of training."""
    device = next(net.parameters()).device.type
    if option == "narrow" and device == "cpu" and engine.is_available():
        engine.prepare()  # not counted as this run's time: numba keeps the result
        return [replace(best, narrow=True)]
    if best.narrow and option == "compiled":
        return []
    if option in ("channels_last", "bf16"):
        best = replace(best, narrow=False)  # these do not apply to compiled loops
    if option == "threads" and device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        powers = {2**n for n in range(free_cores().bit_length())}
        spare = {free_cores() - 1} - {0}  # leaves one core for other programs
        others = (powers | spare) - {torch.get_num_threads()}
        return [replace(best, threads=n) for n in sorted(others)]
    if option == "bf16" and (device == "cuda" or cpu_has_bf16()):
        layouts = {best.channels_last, True}
        return [replace(best, bf16=True, channels_last=last) for last in layouts]
    if option == "compiled" and remaining > WORTH_COMPILING[device]:
        mode = "reduce-overhead" if device == "cuda" else "default"
        return [replace(best, compiled=mode)]
    simple = (
        "channels_last",
        "fused",
        *(["timed_kernels"] if device == "cuda" else []),
    )
    if option in simple:
        return [replace(best, **{option: True})]
    return []


def _seconds_per_step(
    net, train, recipe: Recipe, stop: StopSignals, form: Execution
) -> tuple[float, float]:
    """Return the seconds of the first step and the median seconds of the others.

    Trains a copy of the network with `fit`, on one minibatch per epoch.
    """
    size = max(2, recipe.batch_size)  # training needs two images
    one = Datasets(train[:size])
    short = replace(
        recipe, num_epochs=REPEATS + 1, batch_size=size, patience=0, delta=0.0
    )
    how = {"execution": form, "stop": stop, "log": lambda line: None}
    history = fit(copy.deepcopy(net), one, short, **how)
    if stop.received:
        raise KeyboardInterrupt
    first, *others = history["seconds"]
    return first, statistics.median(others)
