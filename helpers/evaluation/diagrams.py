"""Diagrams of networks.

Each stage is a box: the height shows the size of its feature maps, the width their number.
Where all feature maps have one size, the boxes are half as high.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.path import Path

from helpers.evaluation.figures import DPI

GAP = 0.9  # between boxes
UNIT = 0.34  # height of a box per doubling of the side
FILL = {"input": "0.85", "down": "#9ecae1", "up": "#fdae6b", "output": "#a1d99b"}
FILL["fusion"] = "#bcbddc"
DROP = -3.7  # middle of the second path
LEAD = 0.6  # from the main row to the second path, between boxes of both
TAIL = 1.7  # room for the last label of the second path
SLOPE, STEEP = 35, 50  # degrees of the labels above the boxes; steep below skips
LANE = 0.45  # between the labels and the skips, and between two skips
ARROW = {"arrowstyle": "-|>", "mutation_scale": 8, "color": "0.35"}
ARROW |= {"shrinkA": 0, "shrinkB": 0}  # touch the boxes
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


@dataclass(frozen=True)
class Stage:
    """The output of one stage of a network.

    layers  what computes it, for example "conv 5 x 5, stride 2"
    maps    number of feature maps;  side  their height and width in pixels
    kind    "input", "down", "up", "fusion" or "output": the color of the box
    """

    layers: str
    maps: int
    side: int
    kind: str = "down"


def draw_network(
    stages: Sequence[Stage],
    skips: Sequence[tuple[int, int]] = (),
    branch: Sequence[Stage] = (),
    leaves: int = 0,
    joins: int = 0,
    arched: bool = False,
) -> Figure:
    """Draw a network from left to right.

    skips          pairs of stage numbers that a skip connection joins, drawn above all
                   labels, the longest on top
    branch         stages of a second path, drawn below
    leaves, joins  numbers of the stages where that path starts and where it is fused
    arched         draw skips as arcs close to the boxes, for a caller that moves the labels
    """
    lefts = np.cumsum([0.0, *(_width(stage) + GAP for stage in stages)])
    is_one_size = len({stage.side for stage in (*stages, *branch)}) == 1
    unit = UNIT / 2 if is_one_size else UNIT
    if branch:  # make room for it
        needed = LEAD + sum(_width(stage) + GAP for stage in branch) + TAIL
        room = lefts[joins] - lefts[leaves] - _width(stages[leaves])
        lefts[joins:] += max(0.0, needed - room)
    size = (min(12, 0.85 * lefts[-1] + 0.5), 4 if branch else 3)
    fig, ax = plt.subplots(figsize=size, dpi=DPI)
    slope = SLOPE if arched or not skips else STEEP
    centers = _draw_row(ax, stages, lefts, 0.0, unit, slope)
    for first, last in skips if arched else ():
        top = max(_height(stages[n], unit) for n in (first, last)) / 2
        ends = (centers[first], top), (centers[last], top)
        _arrow(ax, *ends, "arc3,rad=-0.25", "--")
    if branch:
        start = lefts[leaves] + _width(stages[leaves])
        left = start + GAP / 2 + LEAD
        places = np.cumsum([left, *(_width(stage) + GAP for stage in branch)])
        _draw_row(ax, branch, places, DROP, unit)
        leave, join = (-_height(stages[n], unit) / 4 for n in (leaves, joins))
        _bent_arrow(ax, (start, leave), (left, DROP), start + GAP / 2)
        end = lefts[joins]
        _bent_arrow(ax, (places[-1] - GAP, DROP), (end, join), end - GAP / 2)
    ax.set_aspect("equal")
    ax.autoscale_view()
    ax.set_axis_off()
    if skips and not arched:
        _draw_skips(ax, stages, centers, skips, unit)
    return fig


def _draw_skips(ax, stages: Sequence[Stage], centers, skips, unit: float) -> None:
    """Draw each skip up from its first box, along above all labels and down."""
    fig = ax.figure
    ax.set_position([0, 0, 1, 1])
    renderer, top = fig.canvas.get_renderer(), 0.0
    for _ in range(2):  # once more at the final size
        boxes = [text.get_window_extent(renderer) for text in ax.texts]
        boxes = [box.transformed(ax.transData.inverted()) for box in boxes]
        top = max(box.y1 for box in boxes)
        bottom = min(box.y0 for box in boxes)
        left, right = min(box.x0 for box in boxes), max(box.x1 for box in boxes)
        end = centers[-1] + _width(stages[-1]) / 2 + 0.02  # with the line around it
        ax.set_xlim(left, max(right, end))
        ax.set_ylim(bottom - 0.1, top + LANE * (len(skips) + 0.3))
        wide, high = np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())
        inches = min(12 / wide, 0.85)  # per unit
        fig.set_size_inches(wide * inches, high * inches)
        ax.apply_aspect()
    for number, (first, last) in enumerate(sorted(skips, key=lambda s: s[1] - s[0])):
        lane = top + LANE * (number + 1)
        start, end = (centers[n] - _beside(stages[n]) for n in (first, last))
        starts, ends = (_height(stages[n], unit) / 2 for n in (first, last))
        corners = [(start, starts), (start, lane), (end, lane), (end, ends)]
        ax.add_patch(FancyArrowPatch(path=Path(corners), linestyle="--", **ARROW))


def _beside(stage: Stage) -> float:
    """Return how far left of a box's center, where its label starts, a skip ends."""
    return 0.3 * _width(stage)


def _draw_row(
    ax,
    stages: Sequence[Stage],
    lefts,
    middle: float,
    unit: float,
    slope: float = SLOPE,
) -> list[float]:
    """Draw stages at their left edges; return the centers of their boxes."""
    centers, end = [], None
    for stage, left in zip(stages, lefts, strict=False):
        width, height = _width(stage), _height(stage, unit)
        corner = (left, middle - height / 2)
        ax.add_patch(
            Rectangle(
                corner, width, height, facecolor=FILL[stage.kind], edgecolor="0.3"
            )
        )
        center = left + width / 2
        maps = "1 map" if stage.maps == 1 else f"{stage.maps} maps"
        size = f"{maps}\n{stage.side} x {stage.side}"
        if stage.side == 1:
            size = f"{stage.maps} numbers"
        ax.text(center, corner[1] - 0.12, size, ha="center", va="top", fontsize=7,
                bbox=PAPER, zorder=3)  # fmt: skip
        ax.text(center, middle + height / 2 + 0.12, stage.layers, ha="left",
                va="bottom", fontsize=7, rotation=slope, bbox=PAPER, zorder=3)  # fmt: skip
        if end is not None:
            _arrow(ax, (end, middle), (left, middle))
        centers.append(center)
        end = left + width
    return centers


def _arrow(ax, start, end, path: str = "arc3", line: str = "-") -> None:
    ax.add_patch(
        FancyArrowPatch(start, end, connectionstyle=path, linestyle=line, **ARROW)
    )


def _bent_arrow(ax, start, end, x: float) -> None:
    """Draw an arrow that goes sideways to x, then up or down, then sideways."""
    corners = [start, (x, start[1]), (x, end[1]), end]
    ax.add_patch(FancyArrowPatch(path=Path(corners), **ARROW))


def _height(stage: Stage, unit: float) -> float:
    return unit * (1 + np.log2(stage.side))


def _width(stage: Stage) -> float:
    return 0.2 + 0.12 * np.log2(1 + stage.maps)


def draw_graph(
    boxes: dict[str, tuple[int, int, str]],
    links: Sequence[tuple[str, str]],
    titles: Sequence[str] = (),
    kinds: dict[str, str] | None = None,
) -> Figure:
    """Draw a network of any shape: named boxes at (column, row, text), and arrows.

    links   pairs of names: where an arrow starts and where it ends
    titles  one for each column
    kinds   the kind of a box as in `Stage`, if it is not "down"
    """
    fig, ax = plt.subplots(figsize=(8, 2.6), dpi=DPI)
    drawn = {}
    for name, (column, row, text) in boxes.items():
        fill = FILL[(kinds or {}).get(name, "down")]
        box = {"boxstyle": "round", "fc": fill, "ec": "0.3"}
        center = {"ha": "center", "va": "center", "fontsize": 8}
        drawn[name] = ax.text(column, -row, text, bbox=box, **center)
    for column, title in enumerate(titles):
        ax.text(column, 0.7, title, ha="center", fontsize=8)
    columns, rows = zip(*[box[:2] for box in boxes.values()], strict=True)
    ax.set(xlim=(-0.4, max(columns) + 0.4), ylim=(-max(rows) - 0.4, 1))
    ax.set_axis_off()
    fig.draw_without_rendering()  # the boxes have their places
    for first, last in links:
        start, end = drawn[first], drawn[last]
        ends = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
        places = end.get_position(), start.get_position()
        ax.annotate("", *places, arrowprops=ARROW | ends)
    return fig
