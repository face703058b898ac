import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyArrowPatch, Rectangle

from helpers.evaluation.diagrams import Stage, draw_network

STAGES = [
    Stage("L*/100", 1, 128, "input"),
    Stage("conv", 16, 64),
    Stage("conv", 32, 32),
    Stage("conv", 16, 64, "up"),
    Stage("conv", 2, 128, "output"),
]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def parts(fig):
    patches = fig.axes[0].patches
    boxes = [patch for patch in patches if isinstance(patch, Rectangle)]
    arrows = [patch for patch in patches if isinstance(patch, FancyArrowPatch)]
    return boxes, arrows, [text.get_text() for text in fig.axes[0].texts]


def test_each_stage_is_a_box_as_high_as_its_maps():
    boxes, arrows, texts = parts(draw_network(STAGES))
    heights = [box.get_height() for box in boxes]
    assert heights[0] > heights[1] > heights[2] < heights[3] < heights[4]
    assert boxes[2].get_width() > boxes[1].get_width() > boxes[0].get_width()
    assert len(arrows) == 4 and "16 maps\n64 x 64" in texts and "L*/100" in texts
    lefts = [box.get_x() for box in boxes]
    ends = [box.get_x() + box.get_width() for box in boxes]
    assert all(end < left for end, left in zip(ends, lefts[1:], strict=False))


def test_boxes_are_half_as_high_where_all_maps_have_one_size():
    one_size = [Stage("gray", 1, 128, "input"), Stage("conv", 3, 128, "output")]
    low, *others = (box.get_height() for box in parts(draw_network(one_size))[0])
    high = parts(draw_network(STAGES))[0][0].get_height()
    assert low == others[0] == pytest.approx(high / 2)


def test_skips_and_a_branch_are_drawn():
    _, arrows, _ = parts(draw_network(STAGES, skips=[(1, 3)]))
    assert len(arrows) == 5
    branch = [Stage("conv", 64, 16), Stage("conv", 64, 8), Stage("linear", 64, 1)]
    boxes, arrows, texts = parts(draw_network(STAGES, branch=branch, leaves=1, joins=3))
    assert len(boxes) == 8 and len(arrows) == 4 + 2 + 2 and "linear" in texts
    fused, last = boxes[3], boxes[7]
    assert last.get_x() + last.get_width() < fused.get_x()  # the branch ends before it
    assert last.get_y() < fused.get_y()


def test_skips_run_above_all_labels_and_the_longest_on_top():
    fig = draw_network(STAGES, skips=[(1, 3), (0, 4)])
    (ax,) = fig.axes
    renderer, to_data = fig.canvas.get_renderer(), ax.transData.inverted()
    labels = [t.get_window_extent(renderer).transformed(to_data) for t in ax.texts]
    _, arrows, _ = parts(fig)
    inner, outer = (arrow.get_path().vertices for arrow in arrows[-2:])
    lanes = [points[:, 1].max() for points in (inner, outer)]
    assert max(label.y1 for label in labels) < lanes[0] < lanes[1] < ax.get_ylim()[1]
    assert outer[0, 0] < inner[0, 0]  # where they start
