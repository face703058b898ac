import math

import cv2
import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from helpers.data.lab import bgr_to_lab
from helpers.evaluation.metrics import (
    Estimate,
    bootstrap,
    chrominance_mse,
    ciede2000,
    colorfulness,
    paired_difference,
    picture_metrics,
    psnr,
    ssim,
)


def picture(seed: int = 0, size: int = 48) -> np.ndarray:
    """Return smooth random colors, (S, S, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)


def near(image: np.ndarray, seed: int = 9) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


# Chrominance ----------------------------------------------------------------------


def test_chrominance_mse_is_the_mean_square_over_255_squared():
    ab = torch.tensor([[0.0, 0.0], [10.0, -20.0], [1.0, 1.0]])
    ab_hat = torch.tensor([[255.0, 0.0], [10.0, -20.0], [4.0, 5.0]])
    expected = [0.5, 0, (9 + 16) / 2 / 255**2]
    assert chrominance_mse(ab_hat, ab).tolist() == pytest.approx(expected)


def test_chrominance_mse_of_pixels_is_one_number_per_image():
    ab = torch.zeros(2, 2, 4, 4)
    ab_hat = ab.clone()
    ab_hat[1, 0, :2] = 51.0  # a fifth of 255 on a quarter of the numbers
    found = chrominance_mse(ab_hat, ab)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([0, 0.04 / 4])


def test_chrominance_mse_of_half_precision_is_computed_in_full_precision():
    ab = torch.zeros(1, 2, 2, 2, dtype=torch.float16)
    ab_hat = torch.full((1, 2, 2, 2), 0.5, dtype=torch.float16)  # squared: 3.8e-6
    found = chrominance_mse(ab_hat, ab).item()
    assert found == pytest.approx((0.5 / 255) ** 2, rel=1e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((3, 2), (3, 2, 4, 4)),
        ((1, 2), (3, 2)),
        ((3, 2, 1, 1), (3, 2, 4, 4)),
        ((2,), (3, 2)),
    ],
)
def test_chrominance_mse_of_different_shapes_raises(one, other):
    for shapes in ((one, other), (other, one)):
        with pytest.raises(ValueError, match="shapes differ"):
            chrominance_mse(*map(torch.zeros, shapes))


def test_chrominance_mse_equals_that_of_eight_bit_lab_up_to_the_rounding_floor():
    image, other = picture(0, 128), picture(1, 128)
    truth, ab_hat = (
        torch.from_numpy(bgr_to_lab(x)).permute(2, 0, 1)[None, 1:]
        for x in (image, other)
    )
    ours = chrominance_mse(ab_hat, truth).item()
    bytes_ab = cv2.cvtColor(image, cv2.COLOR_BGR2Lab)[..., 1:].astype(float) / 255
    hat_ab = (ab_hat[0].permute(1, 2, 0).double().numpy() + 128) / 255
    assert ours > 1e-3
    assert np.mean((hat_ab - bytes_ab) ** 2) == pytest.approx(ours, rel=5e-3)
    exact_ab = (truth[0].permute(1, 2, 0).double().numpy() + 128) / 255
    floor = np.mean((exact_ab - bytes_ab) ** 2)
    assert floor == pytest.approx(1.3e-6, rel=0.2)


# Images ---------------------------------------------------------------------------


def test_psnr_equals_a_value_computed_by_hand():
    black, other = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    other[...] = 51  # 20 log10(255 / 51)
    assert psnr(other, black) == pytest.approx(20 * math.log10(5))
    assert psnr(black, other) == pytest.approx(20 * math.log10(5))
    assert psnr(black, black) == math.inf


def test_psnr_equals_that_of_scikit_image():
    image = picture()
    expected = peak_signal_noise_ratio(image, near(image), data_range=255)
    assert psnr(near(image), image) == pytest.approx(expected)
    assert 20 < expected < 40


def test_ssim_equals_that_of_scikit_image_per_channel():
    image, other = picture(), near(picture())
    channels = [
        structural_similarity(
            other[..., c].astype(float),
            image[..., c].astype(float),
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for c in range(3)
    ]
    assert ssim(other, image) == pytest.approx(np.mean(channels), abs=1e-6)
    assert 0.1 < ssim(other, image) < 0.99
    assert ssim(image, image) == pytest.approx(1)


def test_ciede2000_equals_that_of_scikit_image():
    image, other = picture(), picture(1)
    expected = deltaE_ciede2000(rgb2lab(image[..., ::-1]), rgb2lab(other[..., ::-1]))
    found = ciede2000(other, image)
    assert found.shape == (48, 48)
    assert np.abs(found - expected).max() < 0.5
    assert expected.mean() > 10
    assert np.abs(ciede2000(image, image)).max() == 0


def test_ciede2000_of_black_and_white_is_100():
    black = np.zeros((2, 2, 3), np.uint8)
    assert ciede2000(black, black + 255) == pytest.approx(100, abs=0.1)


def test_a_gray_image_has_no_colorfulness():
    gray = picture()[..., :1].repeat(3, axis=2)
    assert colorfulness(gray) == 0


def test_colorfulness_equals_values_computed_by_hand():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = (0, 0, 255)  # red above blue
    image[1] = (255, 0, 0)
    spread = math.hypot(127.5, 191.25)  # rg: 255, 0; yb: 127.5, -255
    expected = spread + 0.3 * math.hypot(127.5, 63.75)
    assert colorfulness(image) == pytest.approx(expected)
    one_red = np.full((3, 3, 3), (0, 0, 100), np.uint8)
    assert colorfulness(one_red) == pytest.approx(0.3 * math.hypot(100, 50))


def test_colorfulness_distinguishes_blue_from_red():
    yellow = np.full((2, 2, 3), (0, 100, 100), np.uint8)
    assert colorfulness(yellow) == pytest.approx(0.3 * 100)
    cyan = np.full((2, 2, 3), (100, 100, 0), np.uint8)
    assert colorfulness(cyan) == pytest.approx(0.3 * math.hypot(100, 50))


# Intervals ------------------------------------------------------------------------


def test_the_interval_contains_the_mean_and_depends_on_the_seed_only():
    values = np.random.default_rng(0).exponential(2, 60)
    estimate = bootstrap(values)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.low < estimate.mean < estimate.high
    assert bootstrap(values) == estimate
    assert bootstrap(values, seed=1) != estimate
    assert bootstrap(values, seed=1).mean == estimate.mean


def test_the_interval_of_many_values_is_the_normal_one():
    values = np.random.default_rng(1).normal(5, 3, 400)
    estimate = bootstrap(values)
    half = 1.96 * values.std() / 20
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_four_times_the_images_halve_the_interval():
    values = np.random.default_rng(2).normal(0, 1, 100)
    small, large = bootstrap(values), bootstrap(np.tile(values, 4))
    ratio = (large.high - large.low) / (small.high - small.low)
    assert ratio == pytest.approx(0.5, abs=0.05)


def test_equal_values_have_an_interval_of_zero_width():
    assert bootstrap([2.0] * 7) == Estimate(2.0, 2.0, 2.0)
    assert bootstrap([3.0]) == Estimate(3.0, 3.0, 3.0, "one image")


def test_a_tensor_and_a_list_have_the_same_interval():
    values = torch.rand(20)
    assert bootstrap(values) == bootstrap(values.tolist())
    assert isinstance(bootstrap(values).mean, float)


def test_an_estimate_is_shown_with_three_digits():
    assert str(Estimate(0.0012345, 0.001, 0.0020049)) == "0.00123 [0.001, 0.002]"


def test_a_paired_difference_is_below_zero_where_ours_is_better():
    theirs = np.random.default_rng(3).exponential(1, 50)
    better = paired_difference(theirs - 0.1, theirs)
    assert better.mean == pytest.approx(-0.1)
    assert better.high < 0
    worse = paired_difference(theirs * 1.2, theirs)
    assert worse.low > 0
    assert worse.mean == pytest.approx(0.2 * theirs.mean())


def test_a_paired_difference_is_far_narrower_than_two_intervals():
    theirs = np.random.default_rng(4).exponential(1, 50)
    ours = theirs - 0.1 + np.random.default_rng(5).normal(0, 0.01, 50)
    paired, alone = paired_difference(ours, theirs), bootstrap(theirs)
    assert (paired.high - paired.low) < 0.1 * (alone.high - alone.low)
    assert alone.low < bootstrap(ours).mean < alone.high
    assert paired.high < 0


def test_resampling_sitters_covers_the_true_mean_far_more_often(monkeypatch):
    monkeypatch.setattr("helpers.evaluation.metrics.RESAMPLES", 300)
    rng = np.random.default_rng(0)
    sitters = np.repeat(np.arange(5), 14)
    covered = {"images": 0, "sitters": 0}
    for _ in range(300):
        values = rng.normal(size=5)[sitters] + rng.normal(size=len(sitters))
        for unit, groups in (("images", None), ("sitters", sitters)):
            estimate = bootstrap(values, groups)
            covered[unit] += estimate.low <= 0 <= estimate.high
    assert covered["images"] < 0.6 * 300
    assert covered["sitters"] > 0.75 * 300


def test_sitters_of_unequal_size_keep_the_mean_over_images():
    values, sitters = [1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]
    estimate = bootstrap(values, sitters)
    assert estimate == Estimate(2.0, 1.0, 5.0, "sitters")  # whole sitters only
    assert bootstrap(values, torch.tensor([0, 0, 0, 7])) == estimate
    assert bootstrap(values).unit == "images"


def test_with_one_sitter_images_are_resampled():
    values = [1.0, 2.0, 4.0]
    assert bootstrap(values, [3, 3, 3]) == bootstrap(values)
    assert paired_difference(values, [0.0] * 3, [3, 3, 3]) == bootstrap(values)
    assert paired_difference(values, [0.0] * 3, [1, 1, 2]) != bootstrap(values)


# All metrics ----------------------------------------------------------------------


def test_picture_metrics_are_the_single_metrics_of_each_pair():
    truth = [picture(0), picture(1)]
    predicted = [near(truth[0]), truth[1]]
    tensors = [
        torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2) for x in (predicted, truth)
    ]
    found = picture_metrics(*tensors)
    assert found["psnr"] == pytest.approx([psnr(predicted[0], truth[0]), 99])
    assert found["ssim"] == pytest.approx([ssim(predicted[0], truth[0]), 1])
    difference = ciede2000(predicted[0], truth[0])
    assert found["ciede2000"] == pytest.approx([difference.mean(), 0])
    assert found["ciede2000_p95"] == pytest.approx([np.percentile(difference, 95), 0])
    assert found["colorfulness"][1] == found["colorfulness_truth"][1]
    assert found["colorfulness_truth"] == [colorfulness(x) for x in truth]


def test_picture_metrics_of_different_numbers_of_images_raise():
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="zip"):
        picture_metrics(images, images[:1])
