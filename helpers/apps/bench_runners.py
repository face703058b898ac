"""Training steps of one row of the benchmark, in this process or in several."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from helpers import nets
from helpers.data.course import Datasets
from helpers.data.lab import L_MAX, LabImages
from helpers.data.pairs import GrayRgb
from helpers.files import free_cores, peak_memory
from helpers.training.execution import PLAIN, Execution, keep_freed_memory, set_seed
from helpers.training.loop import fit
from helpers.training.optim import Recipe

NUM_IMAGES = 200


@dataclass(frozen=True)
class Variant:
    """One way to train, measured in one row of the table.

    name       what this row adds
    network, options, batch_size  what is trained
    data       "loader" (DataLoader over a list of pairs of float32 tensors) or "fixed"
               (on the device)
    execution  how `fit` computes steps; None uses the earlier reports' loop
    processes  number of simultaneous processes with one thread each
    kept       whether the next row builds on this one
    size       side of the images in pixels; 0: the one the network is designed for
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
    size: int = 0
    num_images: int = NUM_IMAGES


class Runner:
    """Runs training steps of a variant in this process."""

    def __init__(self, variant: Variant):
        self.variant = variant
        self.net, self.data = network_and_data(variant)

    def seconds(self, steps: int) -> list[float]:
        """Return [the seconds that `steps` training steps take], without a warm-up step."""
        if self.variant.execution is None:
            return [self._seconds_of_report_loop(steps)]
        data = Datasets(self.data[: self.variant.batch_size])  # one step per epoch
        recipe = Recipe(steps + 1, self.variant.batch_size)
        history = fit(self.net, data, recipe, execution=self.variant.execution)
        return [sum(history["seconds"][1:])]

    def _seconds_of_report_loop(self, steps: int) -> float:
        keep_freed_memory()
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        batches, device = self._report_batches(), self.variant.device
        for step in range(steps + 1):
            if step == 1:  # the first step was the warm-up
                start = time.perf_counter()
            minibatch = next(batches).to(device)
            optimizer.zero_grad()
            y = self.net(self.net.inputs(minibatch))
            loss = self.net.loss(y, minibatch)
            loss.backward()
            optimizer.step()
            loss.item()  # wait for the device
        return time.perf_counter() - start

    def _report_batches(self) -> Iterator:
        data, size = self.data, self.variant.batch_size
        while True:
            if self.variant.data == "loader":
                pairs = zip(data.inputs.float(), data.truth.float(), strict=True)
                for x, truth in DataLoader(list(pairs), size, shuffle=True):
                    yield type(data)(x, truth)
            else:
                for index in torch.randperm(len(data)).split(size):
                    yield data[index]


def network_and_data(variant: Variant):
    """Return a network and random images: speed does not depend on their content."""
    set_seed(0)
    net = nets.build(variant.network, **variant.options).to(variant.device).train()
    generator, size = torch.Generator().manual_seed(0), variant.size or net.size
    shape = (variant.num_images, 3, size, size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    device = "cpu" if variant.data == "loader" else variant.device
    if net.task == "rgb":
        return net, GrayRgb(images[:, :1], images).to(device)
    L, ab = images[:, :1] * (L_MAX / 255), images[:, 1:] - 128.0
    return net, LabImages(L.half(), ab.half()).to(device)


class WorkerPool:
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
    runner = Runner(variant)
    while steps := pipe.recv():
        pipe.send(runner.seconds(steps))


@contextmanager
def runners_of(rows: Sequence[Variant]) -> Iterator[list]:
    """Start a runner for each row; stop their processes at the end."""
    with ExitStack() as stack:
        runners = []
        for row in rows:
            runners.append(WorkerPool(row) if row.processes > 1 else Runner(row))
            if row.processes > 1:
                stack.callback(runners[-1].stop)
        yield runners


def peak_memories(rows: Sequence[Variant]) -> list[int]:
    """Return each row's peak memory in bytes, times its number of processes."""
    with ProcessPoolExecutor(
        free_cores(), mp_context=_context(), max_tasks_per_child=1
    ) as pool:
        peaks = pool.map(_peak_memory, rows)
        return [row.processes * peak for row, peak in zip(rows, peaks, strict=True)]


def _peak_memory(variant: Variant) -> int:
    torch.set_num_threads(1)
    Runner(variant).seconds(2)
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
    context.set_forkserver_preload(["helpers.apps.bench_runners", "torch._dynamo"])
    return context
