import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers.evaluation import figures


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_images_side_by_side_have_equal_heights_and_keep_aspect_and_colors():
    wide_bgr = np.zeros((10, 30, 3), np.uint8)
    wide_bgr[..., 0] = 200  # blue
    fig = figures.side_by_side({"wide": wide_bgr, "square": wide_bgr[:, :10]}, height=2)
    assert [ax.get_title() for ax in fig.axes] == ["wide", "square"]
    assert fig.get_size_inches()[0] == pytest.approx(2 * 3 + 2 * 1)
    fig.draw_without_rendering()
    wide, square = (ax.get_window_extent() for ax in fig.axes)
    assert wide.height == pytest.approx(square.height, rel=0.02)
    assert wide.width == pytest.approx(3 * square.width, rel=0.05)
    shown_rgb = fig.axes[0].images[0].get_array()
    assert shown_rgb[0, 0].tolist() == [0, 0, 200]


def test_chrominance_planes_have_a_color_scale_centered_at_zero():
    plane = np.linspace(5, 20, 16, dtype=np.float32).reshape(4, 4)
    fig = figures.image_planes({"L*": plane, "a*": plane}, ["gray", "PiYG_r"])
    gray, signed = (ax.images[0].get_clim() for ax in fig.axes[:2])
    assert gray == (5, 20)
    assert signed == (-20, 20)


def test_a_single_epoch_has_one_integer_tick():
    history = {"epoch": [1], "train_mse": [1e-3], "test_mse": [2e-3]}
    (ax,) = figures.learning_curves({"net": history}).axes
    left, right = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if left <= tick <= right] == [1]


def test_the_legend_of_many_learning_curves_is_beside_them():
    history = {"epoch": [1, 2], "train_mse": [2e-4, 1e-4], "test_mse": [3e-4, 2e-4]}
    for number, is_beside in ((2, False), (4, True)):
        fig = figures.learning_curves({f"net {n}": history for n in range(number)})
        fig.draw_without_rendering()
        (ax,) = fig.axes
        legend, curves = ax.get_legend().get_window_extent(), ax.get_window_extent()
        assert (legend.x0 > curves.x1) == is_beside


@pytest.mark.parametrize("number", [1, 4])
def test_the_names_of_dotted_lines_touch_neither_curves_nor_legend(number):
    history = {"epoch": [1, 2], "train_mse": [2e-4, 1e-4], "test_mse": [3e-4, 2e-4]}
    histories = {f"net {n}": history for n in range(number)}
    fig = figures.learning_curves(histories, {"table (L, position)": 2.9e-4})
    fig.draw_without_rendering()
    (ax,) = fig.axes
    (name,) = (text.get_window_extent() for text in ax.texts)
    assert name.x0 >= ax.get_window_extent().x1
    assert name.x1 < fig.bbox.x1
    assert not name.overlaps(ax.get_legend().get_window_extent())


@pytest.mark.parametrize(
    ("powers", "factors", "label"),
    [((), [4, 4], "proportional"), ((1, 2), [4, 16], "expected without fixed costs")],
)
def test_the_dotted_line_of_costs_grows_with_the_given_power(powers, factors, label):
    seconds = {"a step": {100: 1.0, 200: 1.5, 400: 2.0}}
    fig = figures.cost_curves({"images": seconds, "pixels": seconds}, powers)
    for ax, factor in zip(fig.axes, factors, strict=True):
        measured, expected = ax.lines
        assert expected.get_label() == label
        assert expected.get_ydata()[-1] == measured.get_ydata()[-1] == 2000
        assert expected.get_ydata()[-1] / expected.get_ydata()[0] == factor
        assert ax.get_ylim()[0] > 900  # the measured times fill the panel


def test_each_network_has_its_own_marker_hollow_for_the_test_set():
    epochs = list(range(1, 21))
    history = {"epoch": epochs, "train_mse": [1e-4] * 20, "test_mse": [2e-4] * 20}
    fig = figures.learning_curves({"one": history, "two": history}, {"table": 3e-4})
    figures.mark_networks(fig, (1, 10, 20))
    (ax,) = fig.axes
    curves, _ = ax.get_legend_handles_labels()
    drawn = ax.get_legend().legend_handles
    assert [line.get_marker() for line in curves] == ["o", "o", "s", "s"]
    assert [line.get_marker() for line in drawn] == ["o", "o", "s", "s"]
    inside = [line.get_markerfacecolor() for line in curves]
    assert inside == ["C0", "white", "C1", "white"]
    assert list(ax.get_xticks()) == [1, 10, 20]


@pytest.mark.parametrize(("epochs", "marked"), [(12, [4, 9]), (1, [0])])
def test_validation_curves_are_marked_at_every_fifth_epoch(epochs, marked):
    curve = [0.1] * epochs
    keys = [f"{s}_{m}" for s in ("sample", "validation") for m in ("mse", "accuracy")]
    history = {"epoch": list(range(1, epochs + 1))} | dict.fromkeys(keys, curve)
    for ax in figures.accuracy_curves({"one": history, "two": history}).axes:
        training, validation = ax.lines[::2], ax.lines[1::2]
        assert {line.get_marker() for line in training} == {"None"}
        assert [line.get_marker() for line in validation] == ["o", "s"]
        assert all(line.get_markevery() == marked for line in validation)
