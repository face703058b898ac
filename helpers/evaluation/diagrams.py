"""Diagrams of networks.

Each stage is a box: the height shows the size of its feature maps, the width their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from helpers.evaluation.figures import DPI

GAP = 0.9  # between boxes
UNIT = 0.34  # height of a box per doubling of the side
FILL = {"input": "0.85", "down": "#9ecae1", "up": "#fdae6b", "output": "#a1d99b"}
DROP = -3.7  # middle of the second path
ARROW = {"arrowstyle": "-|>", "mutation_scale": 8, "color": "0.35"}
ARROW |= {"shrinkA": 0, "shrinkB": 0}  # touch the boxes
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


@dataclass(frozen=True)
class Stage:
    """The output of one stage of a network.

    layers  what computes it, for example "conv 5 x 5, stride 2"
    maps    number of feature maps;  side  their height and width in pixels
    kind    "input", "down", "up" or "output": the color of the box
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
) -> Figure:
    """Draw a network from left to right.

    skips          pairs of stage numbers that a skip connection joins, drawn above
    branch         stages of a second path, drawn below
    leaves, joins  numbers of the stages where that path starts and where it is fused
    """
    lefts = np.cumsum([0.0, *(_width(stage) + GAP for stage in stages)])
    if branch:  # make room for it
        needed = sum(_width(stage) + GAP for stage in branch) + 2 * GAP
        lefts[joins:] += max(0.0, needed - (lefts[joins] - lefts[leaves]))
    size = (min(12, 0.85 * lefts[-1] + 0.5), 4 if branch else 3)
    fig, ax = plt.subplots(figsize=size, dpi=DPI)
    centers = _draw_row(ax, stages, lefts, 0.0)
    for first, last in skips:
        top = max(_height(stages[first]), _height(stages[last])) / 2
        ends = (centers[first], top), (centers[last], top)
        _arrow(ax, *ends, "arc3,rad=-0.25", "--")
    if branch:
        left = centers[leaves] + GAP
        places = np.cumsum([left, *(_width(stage) + GAP for stage in branch)])
        below = _draw_row(ax, branch, places, DROP)
        leave = (centers[leaves], -_height(stages[leaves]) / 2)
        right = below[-1] + _width(branch[-1]) / 2
        join = (centers[joins], -_height(stages[joins]) / 2)
        _arrow(ax, leave, (left, DROP), "angle,angleA=-90,angleB=180")
        _arrow(ax, (right, DROP), join, "angle,angleA=0,angleB=90")
    ax.set_aspect("equal")
    ax.autoscale_view()
    ax.set_axis_off()
    return fig


def _draw_row(ax, stages: Sequence[Stage], lefts, middle: float) -> list[float]:
    """Draw stages at their left edges; return the centers of their boxes."""
    centers, end = [], None
    for stage, left in zip(stages, lefts, strict=False):
        width, height = _width(stage), _height(stage)
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
                va="bottom", fontsize=7, rotation=35, bbox=PAPER, zorder=3)  # fmt: skip
        if end is not None:
            _arrow(ax, (end, middle), (left, middle))
        centers.append(center)
        end = left + width
    return centers


def _arrow(ax, start, end, path: str = "arc3", line: str = "-") -> None:
    ax.add_patch(
        FancyArrowPatch(start, end, connectionstyle=path, linestyle=line, **ARROW)
    )


def _height(stage: Stage) -> float:
    return UNIT * (1 + np.log2(stage.side))


def _width(stage: Stage) -> float:
    return 0.2 + 0.12 * np.log2(1 + stage.maps)
