import pytest
import torch

from helpers.data.lab import LabImages
from helpers.evaluation.evaluate import evaluate
from helpers.nets.baselines import (
    BASELINES,
    LightnessTable,
    MeanChrominance,
    MeanColor,
    NeutralGray,
    PixelMean,
    PositionTable,
)

DARK, LIGHT = (30.0, 10.0, -20.0), (70.0, -5.0, 40.0)  # L*, a*, b*


def lab_images(lab: torch.Tensor) -> LabImages:
    """Convert (N, H, W, 3) to LabImages."""
    lab = lab.permute(0, 3, 1, 2).half()
    return LabImages(lab[:, :1], lab[:, 1:])


def two_levels(number: int = 4, size: int = 8) -> LabImages:
    """A chessboard: each dark pixel has one color, each light pixel another."""
    board = torch.arange(size).view(-1, 1) + torch.arange(size)
    is_dark = (board % 2 == 0).expand(number, size, size).unsqueeze(-1)
    return lab_images(torch.where(is_dark, torch.tensor(DARK), torch.tensor(LIGHT)))


def noise(number: int = 6, size: int = 8) -> LabImages:
    generator = torch.Generator().manual_seed(0)
    lab = torch.rand(number, size, size, 3, generator=generator) * 100
    return lab_images(lab - torch.tensor([0.0, 50.0, 30.0]))


def at(L: float, size: int = 8) -> torch.Tensor:
    return torch.full((1, 1, size, size), L)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_predicts_a_color_for_each_pixel(name):
    train = noise()
    ab_hat = BASELINES[name](train).predict(train.L[:5])
    assert ab_hat.shape == (5, 2, 8, 8)
    assert ab_hat.dtype == torch.float32
    assert ab_hat.isfinite().all()


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_predicts_an_image_alone_as_in_a_batch(name):
    train = noise()
    baseline = BASELINES[name](train)
    together = baseline.predict(train.L)
    alone = torch.cat([baseline.predict(L) for L in train.L.split(1)])
    assert torch.equal(together, alone)


def test_neutral_gray_is_zero():
    assert NeutralGray(noise()).predict(at(50)).abs().max() == 0


def test_the_mean_color_is_the_mean_of_all_pixels():
    ab_hat = MeanColor(two_levels()).predict(at(50))
    assert ab_hat.amin(dim=(0, 2, 3)).tolist() == [2.5, 10.0]
    assert ab_hat.amax(dim=(0, 2, 3)).tolist() == [2.5, 10.0]


def test_mean_chrominance_is_one_pair_per_image():
    train = noise()
    baseline = MeanChrominance(train)
    assert baseline.predict(train.L).shape == (6, 2)
    truth = train.ab.float().mean(dim=(2, 3))
    assert torch.allclose(baseline.predict(train.L), truth.mean(dim=0), atol=1e-4)
    error = ((truth - truth.mean(dim=0)) / 255).square().mean().item()
    assert evaluate(baseline, train).mse.mean == pytest.approx(error, rel=1e-4)


def test_the_pixel_mean_is_the_mean_at_each_position():
    train = noise()
    ab_hat = PixelMean(train).predict(train.L)
    assert torch.allclose(ab_hat[3], train.ab.float().mean(dim=0), atol=1e-4)
    assert torch.equal(ab_hat[0], ab_hat[5])


def test_the_lightness_table_is_exact_if_lightness_determines_color():
    train = two_levels()
    table = LightnessTable(train)
    assert torch.equal(table.predict(train.L), train.ab.float())
    assert evaluate(table, train).mse.mean == 0
    assert table.predict(at(30))[0, :, 0, 0].tolist() == [10, -20]
    assert table.predict(at(70))[0, :, 0, 0].tolist() == [-5, 40]


def test_levels_without_training_pixels_hold_the_mean_color():
    table = LightnessTable(two_levels())
    for L in (0, 29, 31, 69.5, 71, 100):
        assert table.predict(at(L))[0, :, 3, 3].tolist() == [2.5, 10.0]


def test_the_lightness_table_has_256_levels_of_equal_width():
    table = LightnessTable(two_levels())
    first = 76 * 100 / 256  # L* = 30 is in level 76, from 29.69 to 30.08
    for L, dark in ((first + 0.01, True), (first - 0.01, False), (30.07, True)):
        is_dark = table.predict(at(L))[0, 0, 0, 0].item() == 10
        assert is_dark == dark


def test_the_table_holds_the_mean_of_a_level():
    lab = torch.tensor([[[[50.0, 10, 0], [50, 20, -8], [50, 60, 2], [9, 0, 0]]]])
    table = LightnessTable(lab_images(lab))
    assert table.predict(torch.full((1, 1, 1, 4), 50.0))[0, :, 0, 0].tolist() == [
        30,
        -2,
    ]


def test_white_and_black_are_in_the_table():
    lab = torch.tensor([[[[100.0, 1, 2], [0, 3, 4]]]])
    table = LightnessTable(lab_images(lab))
    found = table.predict(torch.tensor([[[[100.0, 0.0]]]]))
    assert found[0, :, 0].T.tolist() == [[1, 2], [3, 4]]


def test_the_table_does_not_depend_on_the_chunk_size(monkeypatch):
    train = noise(9)
    whole = LightnessTable(train).table
    monkeypatch.setattr("helpers.nets.baselines.CHUNK", 2)
    assert torch.allclose(LightnessTable(train).table, whole, atol=1e-5)


def halves() -> LabImages:
    """Images of constant lightness: the left half is red, the right half green."""
    lab = torch.full((4, 8, 8, 3), 50.0)
    lab[:, :, :4, 1], lab[:, :, 4:, 1] = 60, -60
    lab[:, :, :, 2] = 7
    return lab_images(lab)


def test_only_the_position_table_distinguishes_left_and_right():
    train = halves()
    assert torch.equal(PositionTable(train).predict(train.L), train.ab.float())
    assert evaluate(PositionTable(train), train).mse.mean == 0
    blind = LightnessTable(train).predict(train.L)
    assert blind[:, 0].abs().max() == 0
    assert (blind[:, 1] == 7).all()


def test_the_position_table_has_cells_of_four_pixels_in_rows_and_columns():
    lab = torch.full((1, 8, 12, 3), 50.0)
    expected = torch.arange(6.0).view(2, 3).repeat_interleave(4, 0)
    lab[0, :, :, 1] = expected.repeat_interleave(4, 1)
    train = lab_images(lab)
    assert PositionTable(train).table.shape == (2, 6 * 32)
    assert torch.equal(PositionTable(train).predict(train.L), train.ab.float())


def test_empty_entries_of_the_position_table_hold_the_mean_color():
    table = PositionTable(halves())
    assert table.predict(at(10))[0, :, 0, 0].tolist() == [0, 7]


def test_a_size_that_is_no_multiple_of_four_has_smaller_cells_at_the_edge():
    cells = torch.arange(9.0).view(3, 3)
    lab = torch.full((1, 10, 10, 3), 50.0)
    lab[0, :, :, 1] = cells.repeat_interleave(4, 0).repeat_interleave(4, 1)[:10, :10]
    train = lab_images(lab)
    assert torch.equal(PositionTable(train).predict(train.L), train.ab.float())


def test_every_fit_beats_a_constant_on_its_training_set():
    train = noise(20)
    errors = [evaluate(kind(train), train).mse.mean for kind in BASELINES.values()]
    neutral, mean, pixel, table, position = errors
    assert neutral > mean > pixel
    assert mean > table
    assert mean > position


def test_a_position_table_refuses_another_size():
    train = LabImages(torch.rand(4, 1, 8, 8) * 100, torch.randn(4, 2, 8, 8))
    with pytest.raises(ValueError, match=r"fitted at \(8, 8\), used at \(16, 16\)"):
        PositionTable(train).predict(torch.rand(1, 1, 16, 16) * 100)
