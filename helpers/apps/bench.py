"""Measure how fast a network trains on this machine, one change per row.

The first row is the earlier reports' loop; each further row adds one change to the last row
that was kept; the compiled loops come last. Rows are timed in turn, so a busy minute on a
shared machine affects all of them.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from helpers import nets
from helpers.apps.bench_runners import (
    Variant,
    network_and_data,
    peak_memories,
    runners_of,
)
from helpers.evaluation import figures
from helpers.experiments.profiles import known
from helpers.experiments.run_folder import environment, save_figure
from helpers.files import InputError, free_cores, write_json
from helpers.nets.base import count_gflop, evaluation_mode
from helpers.training import narrow
from helpers.training.autotune import choose_execution
from helpers.training.execution import PLAIN, Execution, choose_device
from helpers.training.optim import Recipe

LONG_TRAINING = 10**6  # epochs: long enough that `choose_execution` measures
SMALL = {"maps": 3, "num_down": 4, "head": "sigmoid"}
BEST_STACK = {"layers": 2, "kernel": 5, "maps": 16, "tanh": True}
POOLED = ("pooled_colorizer", {"head": "sigmoid"})
BENCHES = {  # name: network and options of the earlier report, and of ours; minibatch
    "regressor": ("pooled_regressor", {}, "pooled_regressor", {}, 100),
    "sigmoid": (*POOLED, *POOLED, 100),
    "colorizer": (*POOLED, "colorizer", SMALL, 100),
    "stack": ("stack", BEST_STACK, "stack", BEST_STACK, 16),
    "unet": ("unet", {"base": 16}, "unet", {"base": 16}, 25),
}


def variants(name: str, device: str = "cpu") -> list[Variant]:
    """Return the rows for a network in BENCHES; which options are kept is measured."""
    network, options, ours, our_options, batch_size = BENCHES[name]
    words = "the report's loop: DataLoader"
    first = Variant(
        words, network, options, batch_size, "loader", execution=None, device=device
    )
    rows = [first, replace(first, name="data stays on the device", data="fixed")]
    if (network, options) != (ours, our_options):
        change = {"network": ours, "options": our_options}
        rows.append(replace(rows[-1], name="stride 2 instead of max-pooling", **change))
    rows.append(replace(rows[-1], name="our loop: AdamW, checked", execution=PLAIN))
    rows += _execution_rows(rows[-1])
    best = [row for row in rows if row.kept][-1]
    if device == "cpu" and free_cores() > 1:
        words = f"{free_cores()} processes with one thread each"
        rows.append(replace(best, name=words, processes=free_cores()))
    return rows


def _execution_rows(start: Variant) -> list[Variant]:
    """Return one row per option of `Execution`; chosen options are kept."""
    without = ["threads"] if start.device == "cuda" else ["threads", "compiled"]
    net, data = network_and_data(start)
    recipe = Recipe(LONG_TRAINING, start.batch_size)
    chosen = choose_execution(net, data, recipe, without=without)
    options = {
        "channels_last": (True, "channels_last"),
        "bf16": (chosen.bf16, "bfloat16"),
        "timed_kernels": (start.device == "cuda", "cuDNN measures its kernels"),
        "fused": (True, "fused optimizer"),
        "compiled": (chosen.compiled, f"torch.compile ({chosen.compiled})"),
        "narrow": (start.device == "cpu" and narrow.is_available(), "compiled loops"),
    }
    best, rows = start, []
    for option, (value, words) in options.items():
        if value:
            form = replace(best.execution, **{option: value})
            kept = bool(getattr(chosen, option))
            rows.append(replace(best, name=words, execution=form, kept=kept))
            best = rows[-1] if kept else best
    return rows


def measure(
    rows: Sequence[Variant],
    repeats: int = 7,
    steps: int = 2,
    threads: Sequence[int] = (),
) -> list[dict]:
    """Time all rows in turn: `repeats` rounds of `steps` training steps per row.

    threads  numbers of threads; by default, torch's number

    Returns one dictionary per row: name, kept, `speeds` and peak_memory, the bytes that a
    separate process needs (times the number of processes). `speeds` has, for each number of
    threads, images_per_second (median) with low and high, ratio to the first row (median of
    the ratios in each repeat), and the shares of the machine's peak; see `peaks`.
    """
    before = torch.get_num_threads()
    threads, memory = threads or [before], peak_memories(rows)
    speeds = {count: [[] for _ in rows] for count in threads}
    try:
        with runners_of(rows) as runners:
            for _ in range(repeats):
                for n, (row, runner) in enumerate(zip(rows, runners, strict=True)):
                    for count in threads if row.processes == 1 else [max(threads)]:
                        torch.set_num_threads(count)
                        seconds = runner.seconds(steps)
                        speed = sum(row.batch_size * steps / s for s in seconds)
                        speeds[count][n].append(speed)
        limits = {count: peaks(count) for count in threads}
    finally:
        torch.set_num_threads(before)
    return [
        {
            "name": row.name,
            "kept": row.kept,
            "speeds": {
                count: _speed(row, found[n], found[0], limits[count])
                for count, found in speeds.items()
                if found[n]
            },
            "peak_memory": peak,
            "repeats": repeats,
            "variant": asdict(row),
        }
        for n, (row, peak) in enumerate(zip(rows, memory, strict=True))
    ]


def _speed(row: Variant, found: list[float], first: list[float], limits: dict) -> dict:
    speed = statistics.median(found)
    flop, traffic = training_costs(row)
    ratios = [one / other for one, other in zip(found, first, strict=True)]
    return {
        "images_per_second": speed,
        "low": min(found),
        "high": max(found),
        "ratio": statistics.median(ratios),
        "flop_share": speed * flop / limits["flop"] if row.device == "cpu" else None,
        "byte_share": speed * traffic / limits["bytes"]
        if row.device == "cpu"
        else None,
    }


def peaks(threads: int) -> dict[str, float]:
    """Measure this CPU: FLOP/s of a matrix product, bytes/s of an addition in memory."""
    torch.set_num_threads(threads)
    matrix, long = torch.rand(1024, 1024), torch.rand(2**26)
    flop = 2 * 1024**3 / min(_seconds(lambda: matrix @ matrix) for _ in range(9))
    moved = 2 * long.nbytes / min(_seconds(lambda: long.add_(1)) for _ in range(5))
    return {"flop": flop, "bytes": moved}


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def training_costs(row: Variant) -> tuple[float, float]:
    """Return the FLOP and the least memory traffic in bytes of training on one image.

    A backward pass needs twice the FLOP of a forward pass. Each convolution's output is
    written and read, and so is its gradient; caches can hold a part of it.
    """
    net, values = nets.build(row.network, **row.options), []
    net.flip_tta = False
    flop = 3e9 * count_gflop(net)
    kinds = nn.Conv2d, nn.ConvTranspose2d
    for layer in [module for module in net.modules() if isinstance(module, kinds)]:
        layer.register_forward_hook(lambda *given: values.append(given[-1].numel()))
    size = row.size or net.size
    with evaluation_mode(net):
        net(torch.zeros(1, 1, size, size))
    return flop * (size / net.size) ** 2, 4 * 4.0 * sum(values)


def table(measured: Sequence[dict]) -> str:
    """Format the measured rows as a text table, images/s for each number of threads."""
    threads = list(measured[0]["speeds"])
    head = f"{'':<2}{'what the row adds':<34}"
    for count in threads:
        words = f"{count} thread{'s' if int(count) > 1 else ''}"
        head += f"{words:>10}{'low':>7}{'high':>7}{'ratio':>8}{'FLOP':>6}{'bytes':>7}"
    lines = [f"{head}{'memory':>10}"]
    for row in measured:
        line = f"{'+' if row['kept'] else '-':<2}{row['name']:<34}"
        for count in threads:
            found = row["speeds"].get(count)
            line += _columns(found) if found else " " * 45
        lines.append(f"{line}{row['peak_memory'] / 2**20:>6.0f} MiB")
    return "\n".join(lines)


def _columns(found: dict) -> str:
    text = (
        f"{found['images_per_second']:>10.0f}{found['low']:>7.0f}{found['high']:>7.0f}"
    )
    text += f"{found['ratio']:>7.2f}x"
    if found["flop_share"] is None:
        return f"{text:<45}"
    return f"{text}{found['flop_share']:>6.0%}{found['byte_share']:>7.0%}"


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
    with runners_of(rows) as runners:
        for _ in range(repeats):
            for row, runner, times in zip(rows, runners, found, strict=True):
                steps = row.num_images // row.batch_size if name == "num_images" else 1
                times += runner.seconds(steps)
    return dict(zip(values, map(statistics.median, found), strict=True))


def run_bench(
    names: Sequence[str],
    threads: Sequence[int],
    repeats: int,
    steps: int,
    device: str,
    folder: Path,
    log: Callable[[str], None],
) -> None:
    """Measure networks in BENCHES (by default, all); write bench.json and bench.png.

    Raises InputError for an unknown network or a number of threads below 1.
    """
    names = [known(name, BENCHES, "network") for name in names] or list(BENCHES)
    if min(threads, default=1) < 1:
        raise InputError("--threads 0: use at least 1 thread")
    threads = sorted(set(threads) or {1, free_cores()})
    device = choose_device(device)
    log(f"{repeats} times {steps} steps of each row, alternating, on {device}")
    log("FLOP, bytes: shares of this machine's peaks; bytes: at least, without caches")
    measured = {}
    for name in names:
        measured[name] = measure(variants(name, device), repeats, steps, threads)
        log(f"\n{name}\n{table(measured[name])}")
    found = cost_curves(device)
    content = {"environment": environment(), "networks": measured, "costs": found}
    write_json(folder / "bench.json", content)
    save_figure(figures.cost_curves(found), folder / "bench.png")
    log(f"wrote {folder / 'bench.json'} and bench.png")


def cost_curves(device: str, repeats: int = 3) -> dict:
    """Return the `costs` of several numbers of images, maps and pixels, in both forms."""
    forms = {"PyTorch": PLAIN}
    if device == "cpu" and narrow.is_available():
        forms["compiled loops"] = Execution(narrow=True)
    panels = {
        "training images (an epoch)": ("num_images", (100, 200, 400)),
        "feature maps (a step of 50)": ("maps", (2, 4, 8, 16, 32)),
        "side in pixels (a step of 50)": ("size", (32, 64, 128, 256)),
    }
    options = {"num_down": 3, "maps": 4}
    return {
        title: {
            words: costs(
                Variant("", "colorizer", options, 50, execution=form, device=device),
                field,
                values,
                repeats,
            )
            for words, form in forms.items()
        }
        for title, (field, values) in panels.items()
    }
