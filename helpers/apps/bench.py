"""Measure how fast a network trains on this machine, one change per row.

The first row is the earlier reports' loop; each further row adds one change to the last row
that was kept. Rows are timed in turn, so a busy minute on a shared machine affects all of
them.
"""

import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from helpers import nets
from helpers.data.augment import FreshImages
from helpers.data.course import Datasets
from helpers.data.lab import L_MAX, LabImages
from helpers.files import free_cores, peak_memory
from helpers.training.autotune import choose_execution
from helpers.training.execution import PLAIN, Execution, set_seed
from helpers.training.loop import fit
from helpers.training.optim import Recipe

NUM_IMAGES = 200
LONG_TRAINING = 10**6  # epochs: long enough that `choose_execution` measures
SMALL = {"maps": 3, "num_down": 4, "head": "sigmoid"}
BENCHES = {  # name: network, options, minibatch
    "colorizer": ("colorizer", SMALL, 100),
    "unet": ("unet", {"base": 16}, 25),
}


@dataclass(frozen=True)
class Variant:
    """One way to train, measured in one row of the table.

    name       what this row adds
    network, options, batch_size  what is trained
    data       "loader" (DataLoader over a list of pairs of float32 tensors), "fixed"
               (LabImages on the device) or "fresh" (uint8, augmented on the device)
    execution  how `fit` computes steps; None uses the earlier reports' loop
    processes  number of simultaneous processes, each training its own network
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
    """Return the rows for a network in BENCHES; which options are kept is measured."""
    network, options, batch_size = BENCHES[name]
    common = {"batch_size": batch_size, "device": device, "execution": None}
    if name == "colorizer":
        rows = [
            Variant("the reports' loop: DataLoader, stride 1 and max-pooling",
                    "pooled_colorizer", {}, data="loader", **common),
            Variant("data stays on the device", "pooled_colorizer", {}, **common),
            Variant("stride 2 instead of max-pooling", network, options, **common),
        ]  # fmt: skip
        words = "minibatches of 50: their planes fit the cache"
        rows.append(replace(rows[-1], name=words, batch_size=50))
    else:
        first = "plain: eager, float32, NCHW, data on the device"
        rows = [Variant(first, network, options, **common)]
    rows.append(replace(rows[-1], name="our loop: AdamW, checked", execution=PLAIN))
    rows += _execution_rows(rows[-1])
    best = [row for row in rows if row.kept][-1]
    rows.append(replace(best, name="fresh augmentation", data="fresh", kept=False))
    if device == "cpu":
        one = replace(best, execution=replace(best.execution, threads=1))
        rows += [
            replace(one, name=f"{n} processes with one thread each", processes=n)
            for n in (2, 4, 8, 16, 32)
            if n <= free_cores()
        ]
    return rows


def _execution_rows(start: Variant) -> list[Variant]:
    """Return one row per option of `Execution`; chosen options are kept."""
    without = () if start.device == "cuda" else ("compiled",)
    net, data = _network_and_data(start)
    recipe = Recipe(LONG_TRAINING, start.batch_size)
    chosen = choose_execution(net, data, recipe, without=without)
    threads = (
        chosen.threads or 1
    )  # if torch's default is best, show one thread, not kept
    options = {
        "threads": (threads, f"{threads} thread{'s' * (threads > 1)}"),
        "channels_last": (True, "channels_last"),
        "bf16": (chosen.bf16, "bfloat16"),
        "timed_kernels": (start.device == "cuda", "cuDNN measures its kernels"),
        "fused": (True, "fused optimizer"),
        "compiled": (chosen.compiled, f"torch.compile ({chosen.compiled})"),
    }
    best, rows = start, []
    for option, (value, words) in options.items():
        if value:
            form = replace(best.execution, **{option: value})
            kept = bool(getattr(chosen, option))
            rows.append(replace(best, name=words, execution=form, kept=kept))
            best = rows[-1] if kept else best
    return rows


def measure(rows: Sequence[Variant], repeats: int = 7, steps: int = 2) -> list[dict]:
    """Time all rows in turn: `repeats` rounds of `steps` training steps per row.

    Returns one dictionary per row: name, kept, images_per_second (median) with low and
    high, ratio to the first row (median of the per-repeat ratios) and peak_memory, the
    bytes that a separate process needs (times the number of processes).
    """
    memory = _peak_memories(rows)
    speeds: list[list[float]] = [[] for _ in rows]
    with _runners(rows) as runners:
        for _ in range(repeats):
            for row, runner, found in zip(rows, runners, speeds, strict=True):
                seconds = runner.seconds(steps)
                found.append(sum(row.batch_size * steps / s for s in seconds))
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
    """Format the measured rows as a text table."""
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
    """Return the seconds per step (per epoch for "num_images") for each value of `name`.

    `name` is a field of Variant or an option of its network. The values are timed in turn.
    """
    is_field = name in Variant.__dataclass_fields__
    rows = [
        replace(variant, **{name: value})
        if is_field
        else replace(variant, options={**variant.options, name: value})
        for value in values
    ]
    found: list[list[float]] = [[] for _ in rows]
    with _runners(rows) as runners:
        for _ in range(repeats):
            for row, runner, times in zip(rows, runners, found, strict=True):
                steps = row.num_images // row.batch_size if name == "num_images" else 1
                times += runner.seconds(steps)
    return dict(zip(values, map(statistics.median, found), strict=True))


class _Runner:
    """Runs training steps of a variant in this process."""

    def __init__(self, variant: Variant):
        self.variant = variant
        self.net, self.data = _network_and_data(variant)

    def seconds(self, steps: int) -> list[float]:
        """Return [the seconds that `steps` training steps take], without a warm-up step."""
        if self.variant.execution is None:
            return [self._seconds_of_report_loop(steps)]
        data = Datasets(self.data[: self.variant.batch_size])  # one step per epoch
        recipe = Recipe(steps + 1, self.variant.batch_size)
        history = fit(self.net, data, recipe, execution=self.variant.execution)
        return [sum(history["seconds"][1:])]

    def _seconds_of_report_loop(self, steps: int) -> float:
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        batches, device = self._report_batches(), self.variant.device
        for step in range(steps + 1):
            if step == 1:  # the first step was the warm-up
                start = time.perf_counter()
            L, ab = (x.to(device) for x in next(batches))
            optimizer.zero_grad()
            loss = F.mse_loss(self.net(L.float() / L_MAX), self.net.target(ab))
            loss.backward()
            optimizer.step()
            loss.item()  # wait for the device
        return time.perf_counter() - start

    def _report_batches(self) -> Iterator:
        while True:
            if self.variant.data == "loader":
                pairs = list(
                    zip(self.data.L.float(), self.data.ab.float(), strict=True)
                )
                yield from DataLoader(pairs, self.variant.batch_size, shuffle=True)
            else:
                for index in torch.randperm(len(self.data)).split(
                    self.variant.batch_size
                ):
                    yield self.data.L[index], self.data.ab[index]


def _network_and_data(variant: Variant):
    """Return a network and random images: speed does not depend on their content."""
    set_seed(0)
    net = nets.build(variant.network, **variant.options).to(variant.device).train()
    generator = torch.Generator().manual_seed(0)
    shape = (variant.num_images, 3, variant.size, variant.size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if variant.data == "fresh":
        return net, FreshImages(images).to(variant.device)
    L, ab = images[:, :1] * (L_MAX / 255), images[:, 1:] - 128.0
    device = "cpu" if variant.data == "loader" else variant.device
    return net, LabImages(L.half(), ab.half()).to(device)


class _WorkerPool:
    """Runs training steps of a variant in several processes at once."""

    def __init__(self, variant: Variant):
        self.pipes, self.workers = [], []
        for _ in range(variant.processes):
            ours, theirs = _context().Pipe()
            worker = _context().Process(
                target=_work, args=(variant, theirs), daemon=True
            )
            worker.start()
            self.pipes.append(ours)
            self.workers.append(worker)

    def seconds(self, steps: int) -> list[float]:
        """Return the seconds that `steps` training steps take in each process."""
        for pipe in self.pipes:
            pipe.send(steps)
        return [seconds for pipe in self.pipes for seconds in pipe.recv()]

    def stop(self) -> None:
        """End the processes."""
        for pipe, worker in zip(self.pipes, self.workers, strict=True):
            pipe.send(None)
            worker.join()


def _work(variant: Variant, pipe) -> None:
    torch.set_num_threads(1)
    runner = _Runner(variant)
    while steps := pipe.recv():
        pipe.send(runner.seconds(steps))


@contextmanager
def _runners(rows: Sequence[Variant]) -> Iterator[list]:
    with ExitStack() as stack:
        runners = []
        for row in rows:
            runners.append(_WorkerPool(row) if row.processes > 1 else _Runner(row))
            if row.processes > 1:
                stack.callback(runners[-1].stop)
        yield runners


def _peak_memories(rows: Sequence[Variant]) -> list[int]:
    """Return each row's peak memory in bytes, times its number of processes."""
    with ProcessPoolExecutor(
        free_cores(), mp_context=_context(), max_tasks_per_child=1
    ) as pool:
        peaks = pool.map(_peak_memory, rows)
        return [row.processes * peak for row, peak in zip(rows, peaks, strict=True)]


def _peak_memory(variant: Variant) -> int:
    torch.set_num_threads(1)
    _Runner(variant).seconds(2)
    if variant.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return peak_memory()


def _context():
    """Return a context that starts processes with torch imported, except on Windows.

    torch._dynamo is preloaded, too, because a process's first optimizer imports it.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.apps.bench", "torch._dynamo"])
    return context
