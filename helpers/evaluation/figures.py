"""Functions that plot data as matplotlib figures.

A network's training and test curves share a color and differ in line style. Rows of
images are always grayscale, truth, prediction. Chrominance errors are on scale S.
"""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
from matplotlib.transforms import ScaledTranslation

from helpers.evaluation.metrics import Estimate

DPI = 150  # of charts
IMAGE_DPI = 125  # of rows of images: 144 pixels for a face of 128
TRAINING_LINE, TEST_LINE = ".-", ".--"  # solid, dashed; validation is dashed too
NETWORK_COLOR = "C{}"  # both curves of network 0, 1, ...
MARKERS = "os^Dv<>P*X"  # of network 0, 1, ..., where colors are not enough
PREDICTED_COLOR, TRUE_COLOR = "tab:orange", "tab:blue"
REFERENCE_LINE = {"color": "0.4", "linestyle": ":"}
SIGNED_COLORMAPS = ("PiYG_r", "PuOr_r")  # for a* and b*, centered at 0
MIN_SHARE = 1e-6  # smallest share of pixels on the log scale of a histogram


def show_images(
    images: torch.Tensor, titles: Sequence[str] = (), columns: int = 8
) -> Figure:
    """Draw a grid of images (N, 3, H, W) uint8 BGR."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    fig, axes = _subplots(rows, columns, 1.15, 1.35 if titles else 1.15, IMAGE_DPI)
    _fill(axes.ravel(), images, titles)
    return fig


def image_rows(rows: Mapping[str, torch.Tensor], titles: Sequence[str] = ()) -> Figure:
    """Draw named rows of images, each (N, 3, H, W) uint8 BGR, one column per image."""
    fig, axes = _subplots(len(rows), max(map(len, rows.values())), 1.15, 1.2, IMAGE_DPI)
    for number, (name, images) in enumerate(rows.items()):
        _fill(axes[number], images, () if number else titles)
        ax = axes[number, 0]
        ax.text(-0.08, 0.5, name, rotation=90, ha="right", va="center",
                transform=ax.transAxes, fontsize=8)  # fmt: skip
    return fig


def side_by_side(pictures: Mapping[str, np.ndarray], height: float = 3.0) -> Figure:
    """Draw named images (H, W, 3) uint8 BGR of any size side by side.

    All are scaled to the same `height`, in inches.
    """
    widths = [image.shape[1] / image.shape[0] * height for image in pictures.values()]
    count = len(pictures)
    fig, axes = _subplots(
        1, count, sum(widths) / count, height + 0.3, IMAGE_DPI, width_ratios=widths
    )
    for ax, (name, image_bgr) in zip(axes.flat, pictures.items(), strict=True):
        ax.imshow(image_bgr[..., ::-1])
        ax.set_title(name, fontsize=9)
        ax.set_axis_off()
    return fig


def image_planes(
    images: Mapping[str, np.ndarray], colormaps: Sequence[str] = ()
) -> Figure:
    """Draw named planes (H, W) side by side, each with its own color bar."""
    fig, axes = _subplots(1, len(images), 2.6, 2.4)
    colormaps = colormaps or ["gray"] * len(images)
    for ax, (name, plane), colormap in zip(
        axes.flat, images.items(), colormaps, strict=True
    ):
        limit = float(np.abs(plane).max()) or 1.0
        is_signed = plane.min() < 0 or colormap in SIGNED_COLORMAPS
        span = {"vmin": -limit, "vmax": limit} if is_signed else {}
        fig.colorbar(ax.imshow(plane, cmap=colormap, **span), ax=ax, shrink=0.85)
        ax.set_title(name, fontsize=9)
        ax.set_axis_off()
    return fig


def learning_curves(
    histories: Mapping[str, dict],
    best: Mapping | None = None,
    references: Mapping[str, dict] | None = None,
) -> Figure:
    """Plot training (solid) and test (dashed) errors against the epoch.

    histories   history of each named network; each network has its own color
    best        error of each named predictor, drawn as a dotted line; its name is on the
                right of the axes
    references  history of a longer run of some of the networks: its test error is drawn
                as a thin solid line in the network's color, and epochs on a log scale
    """
    references = references or {}
    is_crowded = (
        len(histories) + len(references) > 3
    )  # then the legend is placed beside the curves
    fig, axes = _subplots(1, 1, 8 if is_crowded else 6, 3.4)
    ax = axes[0, 0]
    for number, (name, history) in enumerate(histories.items()):
        color = NETWORK_COLOR.format(number)
        ax.plot(history["epoch"], history["train_mse"], TRAINING_LINE, color=color,
                label=f"{name}, training")  # fmt: skip
        if "test_mse" in history:
            ax.plot(history["epoch"], history["test_mse"], TEST_LINE, color=color,
                    label=f"{name}, test")  # fmt: skip
        if name in references:
            longer = references[name]
            ax.plot(longer["epoch"], longer["test_mse"], "-", color=color, linewidth=1,
                    alpha=0.6, label=f"{name}, reference run, test")  # fmt: skip
    names_width = 0.0  # in inches
    for name, error in (best or {}).items():
        ax.axhline(float(error), **REFERENCE_LINE, linewidth=1)
        text = ax.annotate(f" {name}", (1, float(error)), fontsize=7, color="0.3",
                           xycoords=("axes fraction", "data"), va="center")  # fmt: skip
        names_width = max(names_width, text.get_window_extent().width / fig.dpi)
    ax.set(xlabel="epoch", ylabel="MSE of a*, b* (scale S)", yscale="log")
    every = LogFormatterSciNotation(minor_thresholds=(1, 0.7))  # below 0.7 decades
    ax.yaxis.set_minor_formatter(every)
    if references:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    beside = {}
    if is_crowded:  # to the right of the names of the dotted lines
        right = ax.transAxes + ScaledTranslation(names_width, 0, fig.dpi_scale_trans)
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
        beside["bbox_transform"] = right
    ax.legend(fontsize=7, handlelength=3, **beside)  # long enough to show a dash
    ax.grid(alpha=0.3, which="both")
    return fig


def mark_networks(fig: Figure, epochs: Sequence[int] = ()) -> None:
    """Give each network of `learning_curves` its own marker, hollow for the test curves.

    Long curves have few markers. `epochs` become the ticks of the horizontal axis.
    """
    (ax,) = fig.axes
    handles, labels = ax.get_legend_handles_labels()
    colors = list(dict.fromkeys(line.get_color() for line in handles))
    for line, label, drawn in zip(
        handles, labels, ax.get_legend().legend_handles, strict=True
    ):
        color = line.get_color()
        inside = color if label.endswith("training") else "white"
        for one in (line, drawn):
            one.set(marker=MARKERS[colors.index(color) % len(MARKERS)], markersize=4)
            one.set_markerfacecolor(inside)
        is_long = len(line.get_xdata()) > 12
        line.set_markevery(0.1 if is_long else None)  # a part of the axes' diagonal
    if epochs:
        ax.set_xticks(epochs, labels=map(str, epochs))
        ax.xaxis.set_minor_locator(NullLocator())


def accuracy_curves(histories: Mapping[str, dict]) -> Figure:
    """Plot loss and accuracy in the ablation study against the epoch.

    Training curves (solid) show a sample of the training set, evaluated in the same way
    as the validation set (dashed, with a hollow marker every fifth epoch, or at each of
    fewer than five).
    """
    fig, axes = _subplots(1, 2, 4, 3.2)
    for ax, figure in zip(axes.flat, ("mse", "accuracy"), strict=True):
        for (number, (name, history)), marker in zip(
            enumerate(histories.items()), itertools.cycle(MARKERS), strict=False
        ):
            color, epochs = NETWORK_COLOR.format(number), history["epoch"]
            ax.plot(epochs, history[f"sample_{figure}"], "-", color=color, linewidth=1)
            step = 5 if len(epochs) >= 5 else 1  # a single epoch is a marker only
            marked = [n for n, epoch in enumerate(epochs) if epoch % step == 0]
            ax.plot(epochs, history[f"validation_{figure}"], "--", color=color,
                    linewidth=1, marker=marker, markersize=5, markerfacecolor="none",
                    markevery=marked, label=name)  # fmt: skip
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(alpha=0.3, which="both")
    axes[0, 0].set(ylabel="MSE of R, G, B in -1..1", yscale="log")
    axes[0, 1].set_ylabel("share of values within 12 of 255")
    axes[0, 0].legend(fontsize=7, title="solid: training, dashed: validation",
                      title_fontsize=7, handlelength=3)  # fmt: skip
    return fig


def error_bars(errors: Mapping[str, Estimate]) -> Figure:
    """Draw the error of each named predictor as a bar with its 95% interval."""
    fig, axes = _subplots(1, 1, 6, 0.6 + 0.32 * len(errors))
    ax = axes[0, 0]
    means = [value.mean for value in errors.values()]
    spans = np.transpose([(v.mean - v.low, v.high - v.mean) for v in errors.values()])
    ax.barh(list(errors), means, xerr=spans, color="tab:blue", alpha=0.75, height=0.65,
            error_kw={"linewidth": 1, "capsize": 2})  # fmt: skip
    for name, value in errors.items():
        ax.text(value.high, name, f"  {value.mean:.2e}", va="center", fontsize=7)
    ax.invert_yaxis()
    ax.margins(x=0.2)  # room for the numbers
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.1e}" if x else "0")
    ax.set_xlabel("test MSE of a*, b* (scale S), 95% interval")
    ax.grid(alpha=0.3, axis="x")
    return fig


def compare_with_published(rows: Mapping[str, tuple[dict, float | None]]) -> Figure:
    """Plot each network's error, with its interval, next to the published error.

    `rows` maps each name to (a dict with mean, low and high, the published error or None).
    """
    fig, axes = _subplots(1, 1, 7, 0.9 + 0.2 * len(rows))
    ax = axes[0, 0]
    for place, (mse, published) in enumerate(rows.values()):
        spans = [[mse["mean"] - mse["low"]], [mse["high"] - mse["mean"]]]
        ax.errorbar(mse["mean"], place, xerr=spans, fmt="o", color=PREDICTED_COLOR,
                    markersize=4, linewidth=1,
                    label="" if place else "ours, 95% interval")  # fmt: skip
        if published:
            ax.plot(published, place, "x", color=TRUE_COLOR, markersize=5)
    if any(published for _, published in rows.values()):
        ax.plot([], [], "x", color=TRUE_COLOR, label="published")
    ax.set_yticks(range(len(rows)), labels=rows, fontsize=6)
    ax.set(xscale="log", xlabel="test MSE of a*, b* (scale S)")
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.legend(fontsize=7)
    ax.grid(alpha=0.3, which="both", axis="x")
    return fig


def mean_chrominance(ab_hat: torch.Tensor, ab: torch.Tensor) -> Figure:
    """Plot predicted (N, 2) against true (N, 2) mean a* and mean b*."""
    fig, axes = _subplots(1, 2, 3, 3)
    for channel, (ax, name) in enumerate(zip(axes.flat, ("a*", "b*"), strict=True)):
        truth, predicted = ab[:, channel].numpy(), ab_hat[:, channel].numpy()
        span = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
        ax.plot(span, span, **REFERENCE_LINE, label="perfect")
        ax.plot(truth, predicted, ".", color=PREDICTED_COLOR, label="test images")
        ax.set(xlabel=f"true mean {name}", ylabel=f"predicted mean {name}")
        margin = 0.05 * (span[1] - span[0])
        limits = span[0] - margin, span[1] + margin
        ax.set(xlim=limits, ylim=limits, aspect="equal")
        for axis in (ax.xaxis, ax.yaxis):  # with the same ticks
            axis.set_major_locator(MaxNLocator(6))
        ax.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=7)
    return fig


def ab_histogram(ab: Mapping[str, torch.Tensor], limit: int = 60) -> Figure:
    """Plot histograms of (a*, b*), one panel per named ab (N, 2, H, W).

    All panels share their axes and a logarithmic color scale.
    """
    fig, axes = _subplots(1, len(ab), 3.2, 3, sharey=True)
    edges = np.linspace(-limit, limit, 61)
    shares = []
    for values in ab.values():
        a, b = values.float().transpose(0, 1).flatten(1).numpy()
        counts, _, _ = np.histogram2d(a, b, bins=[edges, edges])
        shares.append(np.log10(np.maximum(counts.T / len(a), MIN_SHARE)))
    span = {"vmin": np.log10(MIN_SHARE), "vmax": np.max(shares)}
    for ax, name, share in zip(axes.flat, ab, shares, strict=True):
        drawn = ax.imshow(share, origin="lower", extent=[-limit, limit] * 2, **span)
        ax.set(title=name, xlabel="a*  (green to red)")
        ax.axhline(0, color="white", linewidth=0.4)
        ax.axvline(0, color="white", linewidth=0.4)
    axes[0, 0].set_ylabel("b*  (blue to yellow)")
    fig.colorbar(drawn, ax=axes, label="log10 share of pixels", shrink=0.85)
    return fig


def color_strips(
    images: Mapping[str, torch.Tensor], span: tuple[float, float], xlabel: str
) -> Figure:
    """Draw named strips of color (3, H, W) uint8 BGR, one above the other.

    Their columns run from span[0] to span[1] on a shared x-axis.
    """
    height = 0.5 / len(images) + 0.45
    fig, axes = _subplots(len(images), 1, 6, height, sharex=True)
    for ax, (name, image) in zip(axes.flat, images.items(), strict=True):
        ax.imshow(to_rgb(image), extent=[*span, 0, 1], aspect="auto")
        ax.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
        ax.set_yticks([])
    axes[-1, 0].set_xlabel(xlabel)
    return fig


def cost_curves(
    seconds: Mapping[str, Mapping[str, Mapping[int, float]]], powers: Sequence[int] = ()
) -> Figure:
    """Plot milliseconds against one variable per panel, one line per way to compute.

    seconds  maps each variable's name to the ways, and these to the values and the seconds
             that each one takes
    powers   for each variable, the power with which the time is expected to grow if nothing
             else takes time; a dotted line shows it. By default 1: proportional.
    """
    fig, axes = _subplots(1, len(seconds), 3, 2.8)
    label = "expected without fixed costs" if powers else "proportional"
    powers = powers or [1] * len(seconds)
    for ax, (name, lines), power in zip(
        axes.flat, seconds.items(), powers, strict=True
    ):
        for (words, found), style in zip(lines.items(), ("o-", "s--"), strict=False):
            values, times = np.array(list(found)), 1e3 * np.array(list(found.values()))
            ax.plot(values, times, style, label=words)
        ax.set_yscale("log")
        limits = ax.get_ylim()  # the dotted line may leave the panel
        expected = times[-1] * (values / values[-1]) ** power
        ax.plot(values, expected, **REFERENCE_LINE, label=label)
        ax.set_ylim(limits)
        ax.set(xscale="log", yscale="log", xlabel=name)
        ax.set_xticks(values, labels=map(str, values))
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        ax.set_ylabel("milliseconds")
        ax.grid(alpha=0.3, which="both")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=7)
    return fig


def cost_against_error(rows: Mapping) -> Figure:
    """Plot each network's test MSE against its parameters and its training time.

    `rows` maps names to results with test_mse, parameters and seconds.
    """
    fig, axes = _subplots(1, 2, 4, 3.4, sharey=True)
    markers = itertools.cycle("os^vD<>PX*")
    for name, row in rows.items():
        marker, error = next(markers), row.test_mse
        bar = [[error.mean - error.low], [error.high - error.mean]]
        for ax, cost in zip(axes.flat, (row.parameters, row.seconds), strict=True):
            ax.errorbar([cost], [error.mean], bar, fmt=marker, capsize=2, label=name)
    for ax, label in zip(axes.flat, ("parameters", "seconds of training"), strict=True):
        ax.set(xlabel=label, xscale="log", yscale="log")
        ax.grid(alpha=0.3, which="both")
    axes[0, 0].set_ylabel("test MSE, 95% interval")
    axes[0, 1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def to_rgb(image: torch.Tensor) -> np.ndarray:
    """Convert (3, H, W) uint8 BGR to (H, W, 3) uint8 RGB for matplotlib."""
    return image.flip(0).permute(1, 2, 0).cpu().numpy()


def _subplots(
    rows: int, columns: int, width: float, height: float, dpi: int = DPI, **options
):
    """Return a figure and its axes (rows, columns), each width x height inches."""
    return plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), dpi=dpi,
        layout="constrained", squeeze=False, **options,
    )  # fmt: skip


def _fill(axes, images: torch.Tensor, titles: Sequence[str]) -> None:
    for ax in axes:
        ax.set_axis_off()
    for ax, image in zip(axes, images, strict=False):
        ax.imshow(to_rgb(image))
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title, fontsize=7)
