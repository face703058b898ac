"""How fast a network trains here: one change a row, all rows in turn, in one run.

The first row is the loop of the earlier reports; each further one adds a change to the
last that was kept. Rows are timed alternately, so that a busy minute of a shared machine
meets all of them.
"""

import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from helpers import nets
from helpers.data.augment import FreshImages, random_aug_params
from helpers.data.lab import L_MAX, LabImages
from helpers.files import free_cores, peak_memory
from helpers.training.autotune import choose_execution
from helpers.training.execution import PLAIN, Execution, set_seed
from helpers.training.loop import Training, train_step
from helpers.training.optim import Recipe, make_optimizer

NUM_IMAGES = 200
MANY_STEPS = 10**6  # so that the choice of a form is measured
SMALL = {"maps": 3, "num_down": 4, "head": "sigmoid"}
BENCHES = {  # name: network, options, minibatch
    "colorizer": ("colorizer", SMALL, 100),
    "unet": ("unet", {"base": 16}, 25),
}


@dataclass(frozen=True)
class Variant:
    """One way to train: what a row of the table measures.

    name       what this row adds
    network, options, batch_size  what is trained
    data       "loader" (DataLoader over a list of pairs of float32 tensors), "fixed"
               (LabImages on the device) or "fresh" (uint8, augmented on the device)
    execution  the form of the steps; None is the loop of the earlier reports
    processes  so many of them at once, each with a training of its own
    kept       whether the next row builds on this one
    """

    name: str
    network: str
    options: dict
    batch_size: int
    data: str = "fixed"
    execution: Execution | None = PLAIN
    processes: int = 1
    kept: bool = True
    device: str = "cpu"
    size: int = 128
    num_images: int = NUM_IMAGES


def variants(name: str, device: str = "cpu") -> list[Variant]:
    """The rows for a network of BENCHES; which forms are kept is measured first."""
    network, options, batch_size = BENCHES[name]
    common = {"batch_size": batch_size, "device": device}
    if name == "colorizer":
        rows = [
            Variant("as in the earlier reports: DataLoader, stride 1 and max-pool",
                 "pooled_colorizer", {}, data="loader", execution=None, **common),
            Variant("data stays on the device", "pooled_colorizer", {}, execution=None,
                 **common),
            Variant("stride 2 in place of max-pool", network, options, execution=None,
                 **common),
        ]  # fmt: skip
        words = "minibatches of 50: their planes fit the cache"
        rows.append(replace(rows[-1], name=words, batch_size=50))
    else:
        first = "plain: eager, float32, NCHW, data on the device"
        rows = [Variant(first, network, options, execution=None, **common)]
    rows.append(replace(rows[-1], name="our loop: AdamW, checked", execution=PLAIN))
    chosen = _choose(rows[-1])
    best = rows[-1]
    threads = chosen.threads or 1  # as torch has it stayed the best: show one, not kept
    for field, value, words in (
        ("threads", threads, f"{threads} thread{'s' * (threads > 1)}"),
        ("channels_last", True, "channels_last"),
        ("bf16", True, "bfloat16"),
        ("timed_kernels", device == "cuda", "cuDNN times its kernels"),
        ("fused", True, "fused optimizer"),
        ("subpixel", network == "colorizer", "subpixel convolutions"),
        ("compiled", chosen.compiled, f"torch.compile ({chosen.compiled})"),
    ):
        kept = bool(getattr(chosen, field))
        if value and (kept or field != "bf16"):
            form = replace(best.execution, **{field: value})
            rows.append(replace(best, name=words, execution=form, kept=kept))
            best = rows[-1] if kept else best
    rows.append(replace(best, name="fresh augmentation", data="fresh", kept=False))
    if device == "cpu":
        one = replace(best, execution=replace(best.execution, threads=1))
        rows += [
            replace(one, name=f"{n} processes of one thread", processes=n)
            for n in (2, 4, 8, 16, 32)
            if n <= free_cores()
        ]
    return rows


def measure(rows: Sequence[Variant], repeats: int = 7, steps: int = 2) -> list[dict]:
    """Time all rows in turn, `repeats` times `steps` steps each.

    Returns a dictionary a row: name, kept, images_per_second (median) with low and high,
    ratio to the first row (median over the repeats of the ratio within a repeat) and
    peak_memory, bytes of a process that does nothing else (all processes of the row).
    """
    memory = _peak_memories(rows)
    speeds: list[list[float]] = [[] for _ in rows]
    with _steppers(rows) as steppers:
        for stepper in steppers:
            stepper.run(1)  # warm up
        for _ in range(repeats):
            for row, stepper, found in zip(rows, steppers, speeds, strict=True):
                started = time.perf_counter()
                stepper.run(steps)
                seconds = time.perf_counter() - started
                found.append(row.processes * row.batch_size * steps / seconds)
    return [
        {
            "name": row.name,
            "kept": row.kept,
            "images_per_second": statistics.median(found),
            "low": min(found),
            "high": max(found),
            "repeats": repeats,
            "ratio": statistics.median(
                one / first for one, first in zip(found, speeds[0], strict=True)
            ),
            "peak_memory": peak,
            "variant": asdict(row),
        }
        for row, found, peak in zip(rows, speeds, memory, strict=True)
    ]


def table(measured: Sequence[dict]) -> str:
    """The measured rows as text."""
    head = f"{'':<2}{'what the row adds':<60}{'images/s':>9}{'low':>8}{'high':>8}"
    lines = [f"{head}{'ratio':>8}{'memory':>10}"]
    for row in measured:
        sign = "+" if row["kept"] else "-"
        lines.append(
            f"{sign:<2}{row['name']:<60}{row['images_per_second']:>9.0f}"
            f"{row['low']:>8.0f}{row['high']:>8.0f}{row['ratio']:>7.2f}x"
            f"{row['peak_memory'] / 2**20:>6.0f} MiB"
        )
    return "\n".join(lines)


def costs(
    variant: Variant, name: str, values: Sequence[int], repeats: int = 3
) -> dict[int, float]:
    """Seconds of a step (of an epoch for "num_images") against one number of a road.

    `name` is a field of Road or an option of its network; the values are timed in turn.
    """
    is_field = name in Variant.__dataclass_fields__
    rows = [
        replace(variant, **{name: value})
        if is_field
        else replace(variant, options={**variant.options, name: value})
        for value in values
    ]
    found: list[list[float]] = [[] for _ in rows]
    with _steppers(rows) as steppers:
        for turn in range(repeats + 1):
            for row, stepper, times in zip(rows, steppers, found, strict=True):
                steps = row.num_images // row.batch_size if name == "num_images" else 1
                started = time.perf_counter()
                stepper.run(steps)
                if turn:  # the first warms up
                    times.append(time.perf_counter() - started)
    medians = map(statistics.median, found)
    return dict(zip(values, medians, strict=True))


class _Stepper:
    """Runs steps of a road in this process."""

    def __init__(self, variant: Variant):
        set_seed(0)
        self.variant = variant
        self.net = (
            nets.build(variant.network, **variant.options).to(variant.device).train()
        )
        self.data = _data(variant)
        recipe = Recipe(1, variant.batch_size, schedule="constant")
        if variant.execution is None:
            recipe = replace(recipe, optimizer="sgd", lr=0.1)
        execution = variant.execution or PLAIN
        optimizer, scheduler = make_optimizer(self.net, recipe, 1, execution.fused)
        self.training = Training(self.net, optimizer, scheduler, execution)
        self.called = execution.compile(self.net)
        self.aug_params = random_aug_params(variant.num_images, 0, 1).to(variant.device)
        self.minibatches = self._minibatches()

    def run(self, steps: int) -> None:
        """Take so many training steps, and wait for the device."""
        take = self._plain_step if self.variant.execution is None else self._our_step
        with self.training.execution.active(self.net):
            for _ in range(steps):
                loss = take(next(self.minibatches))
            loss.item()

    def _minibatches(self) -> Iterator[LabImages]:
        batch_size, number = self.variant.batch_size, self.variant.num_images
        while True:
            if self.variant.data == "loader":
                loader = DataLoader(self.data, batch_size, shuffle=True)
                yield from (
                    LabImages(L.to(self.variant.device), ab) for L, ab in loader
                )
            else:
                order = torch.randperm(number, device=self.variant.device)
                for index in order.split(batch_size):
                    yield self.data.minibatch(index, self.aug_params)

    def _plain_step(self, minibatch: LabImages) -> torch.Tensor:
        optimizer = self.training.optimizer
        optimizer.zero_grad()
        target = self.net.target(minibatch.ab.to(self.variant.device))
        loss = F.mse_loss(self.net(minibatch.L.float() / L_MAX), target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def _our_step(self, minibatch: LabImages) -> torch.Tensor:
        loss, norm = train_step(self.training, self.called, minibatch, 1.0)
        if self.variant.device == "cpu" and not (loss + norm).isfinite():
            raise ArithmeticError("the loss is not finite")
        self.training.optimizer.step()
        return loss


def _data(variant: Variant):
    """Noise of the shape of photographs: the speed does not depend on what is on them."""
    generator = torch.Generator().manual_seed(0)
    shape = (variant.num_images, 3, variant.size, variant.size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if variant.data == "fresh":
        return FreshImages(images).to(variant.device)
    lab = LabImages(images[:, :1] * (L_MAX / 255), images[:, 1:] - 128.0)
    if variant.data == "loader":
        return list(zip(lab.L, lab.ab, strict=True))
    return LabImages(lab.L.half(), lab.ab.half()).to(variant.device)


def _choose(variant: Variant) -> Execution:
    """The form that is the fastest for a road, measured as a long training has it."""
    recipe = Recipe(MANY_STEPS, variant.batch_size)
    net = nets.build(variant.network, **variant.options).to(variant.device)
    without = () if variant.device == "cuda" else ("compiled",)
    return choose_execution(net, _data(variant), recipe, without=without)


class _Crew:
    """Runs the steps of a road in several processes at once."""

    def __init__(self, variant: Variant):
        context = _processes()
        self.pipes, self.workers = [], []
        for _ in range(variant.processes):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(variant, theirs), daemon=True)
            worker.start()
            self.pipes.append(ours)
            self.workers.append(worker)

    def run(self, steps: int) -> None:
        """Let every process take so many steps; returns when all have."""
        for pipe in self.pipes:
            pipe.send(steps)
        for pipe in self.pipes:
            pipe.recv()

    def stop(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.terminate()
            worker.join()


def _work(variant: Variant, pipe) -> None:
    torch.set_num_threads(1)
    stepper = _Stepper(variant)
    while True:
        stepper.run(pipe.recv())
        pipe.send("done")


@contextmanager
def _steppers(rows: Sequence[Variant]) -> Iterator[list]:
    crews = []
    try:
        steppers = []
        for row in rows:
            if row.processes > 1:
                crews.append(_Crew(row))
                steppers.append(crews[-1])
            else:
                steppers.append(_Stepper(row))
        yield steppers
    finally:
        for crew in crews:
            crew.stop()


def _peak_memories(rows: Sequence[Variant]) -> list[int]:
    """Bytes that a process needs at most for a few steps of each row, times processes."""
    with ProcessPoolExecutor(
        free_cores(), mp_context=_processes(), max_tasks_per_child=1
    ) as pool:
        peaks = pool.map(_peak_of, rows)
        return [row.processes * peak for row, peak in zip(rows, peaks, strict=True)]


def _processes():
    """Where processes come from: one that has torch imported already, but on Windows.

    torch._dynamo is what the first optimizer of a process imports.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.apps.bench", "torch._dynamo"])
    return context


def _peak_of(variant: Variant) -> int:
    torch.set_num_threads(1)
    _Stepper(variant).run(2)
    if variant.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return peak_memory()
