from functools import partial

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.data import augment as module
from helpers.data.augment import (
    augment_copies,
    augment_image,
    crop_and_resize,
    flip,
    random_crop,
    scale_rgb,
)
from helpers.data.lab import bgr_batch_to_lab, to_lab_images

SIDES = st.integers(1, 24)
IMAGES = st.builds(lambda h, w: (h, w, 3), SIDES, SIDES).flatmap(
    lambda shape: arrays(np.uint8, shape)
)
FEW = settings(max_examples=60, deadline=None, database=None)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Coins:
    """A random generator whose `random()` returns given values."""

    def __init__(self, *coins: float, seed: int = 0):
        self.coins = list(coins)
        self.rng = np.random.default_rng(seed)

    def random(self):
        return self.coins.pop(0)

    def __getattr__(self, name):
        return getattr(self.rng, name)


# Flip -----------------------------------------------------------------------------


def test_flip_swaps_left_and_right_and_keeps_colors():
    image = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]], np.uint8)
    expected = [[[4, 5, 6], [1, 2, 3]], [[10, 11, 12], [7, 8, 9]]]
    assert flip(image).tolist() == expected


@FEW
@given(IMAGES)
def test_two_flips_give_the_image(image):
    assert np.array_equal(flip(flip(image)), image)
    assert np.array_equal(flip(image), image[:, ::-1])


# Crop -----------------------------------------------------------------------------


def test_a_crop_of_the_whole_image_changes_nothing():
    image = noise(16, 16)[..., None].repeat(3, axis=2)
    assert np.array_equal(crop_and_resize(image, 0, 0, 16), image)


def test_a_crop_keeps_the_content_of_its_square():
    image = np.zeros((8, 8, 3), np.uint8)
    image[2:6, 3:7] = (10, 20, 30)
    assert (crop_and_resize(image, 2, 3, 4) == (10, 20, 30)).all()
    assert crop_and_resize(image, 2, 2, 4)[:, 0].max() == 0


def test_a_crop_is_resized_back_linearly():
    image = np.zeros((4, 4, 3), np.uint8)
    image[1, 1], image[1, 2] = 40, 200
    image[2, 1], image[2, 2] = 40, 200
    row = crop_and_resize(image, 1, 1, 2)[0, :, 0]
    assert row.tolist() == [40, 80, 160, 200]  # 1/4 and 3/4 of the way


@pytest.mark.parametrize(
    ("top", "left", "side"),
    [(0, 0, 0), (-1, 0, 4), (0, -1, 4), (5, 0, 4), (0, 7, 4), (0, 0, 9), (0, 0, -2)],
)
def test_a_crop_outside_the_image_raises(top, left, side):
    with pytest.raises(ValueError, match="outside 8x10 image"):
        crop_and_resize(np.zeros((8, 10, 3), np.uint8), top, left, side)


def test_the_largest_and_the_smallest_crop_are_allowed():
    image = noise(8, 10, 3)
    assert crop_and_resize(image, 0, 2, 8).shape == (8, 10, 3)
    assert (crop_and_resize(image, 7, 9, 1) == image[7, 9]).all()


def test_random_crops_keep_sixty_to_a_hundred_percent_of_the_area(monkeypatch):
    squares = []
    monkeypatch.setattr(
        module, "crop_and_resize", lambda image, *square: squares.append(square)
    )
    rng = np.random.default_rng(0)
    for _ in range(2000):
        random_crop(np.zeros((128, 128, 3), np.uint8), rng)
    tops, lefts, sides = np.array(squares).T
    assert sides.min() >= 99  # 128 * sqrt(0.6) = 99.1
    assert sides.max() == 128
    areas = (sides / 128) ** 2
    assert abs(areas.mean() - 0.8) < 0.01
    small = sides < 120
    assert (tops + sides)[small].max() == (lefts + sides)[small].max() == 128
    assert tops.min() == lefts.min() == 0
    assert not np.array_equal(tops, lefts)


# Scale ----------------------------------------------------------------------------


def test_scale_multiplies_and_rounds():
    image = np.array([[[0, 1, 10], [101, 200, 255]]], np.uint8)
    assert scale_rgb(image, 0.6).tolist() == [[[0, 1, 6], [61, 120, 153]]]
    assert scale_rgb(image, 1.0).tolist() == image.tolist()
    assert scale_rgb(image, 0.0).max() == 0


@FEW
@given(IMAGES, st.floats(0, 1))
def test_scale_is_the_product_rounded_to_the_nearest_level(image, factor):
    scaled = scale_rgb(image, factor)
    assert scaled.dtype == np.uint8
    assert np.abs(scaled - image * factor).max() <= 0.5 + 1e-4


def test_all_three_channels_are_scaled_by_one_factor():
    gray = noise(9, 9)[..., None].repeat(3, axis=2)
    scaled = scale_rgb(gray, 0.77)
    assert (scaled == scaled[..., :1]).all()
    assert scaled.max() < gray.max()


# All three ------------------------------------------------------------------------


def test_flip_and_scale_are_independent_and_the_crop_always_happens():
    image = noise(16, 16, 3)
    cropped = random_crop(image, np.random.default_rng(0))
    assert np.array_equal(augment_image(image, Coins(0.9, 0.9)), cropped)
    flipped = random_crop(flip(image), np.random.default_rng(0))
    assert np.array_equal(augment_image(image, Coins(0.1, 0.9)), flipped)
    rng = np.random.default_rng(0)
    darkened = scale_rgb(random_crop(image, rng), rng.uniform(0.6, 1.0))
    assert np.array_equal(augment_image(image, Coins(0.9, 0.1)), darkened)


def test_all_three_can_happen_to_one_image():
    image = noise(16, 16, 3)
    rng = np.random.default_rng(0)
    expected = random_crop(flip(image), rng)
    expected = scale_rgb(expected, rng.uniform(0.6, 1.0))
    assert np.array_equal(augment_image(image, Coins(0.1, 0.1)), expected)
    assert not np.array_equal(expected, image)


def test_all_copies_are_cropped_and_half_are_flipped_and_half_darkened(monkeypatch):
    calls = []
    for name in ("flip", "random_crop", "scale_rgb"):
        monkeypatch.setattr(
            module, name, lambda image, *_, name=name: calls.append(name) or image
        )
    rng = np.random.default_rng(0)
    for _ in range(2000):
        augment_image(np.zeros((2, 2, 3), np.uint8), rng)
    assert calls.count("random_crop") == 2000
    assert 900 < calls.count("flip") < 1100
    assert 900 < calls.count("scale_rgb") < 1100


@FEW
@given(IMAGES, st.integers(0, 2**32))
def test_augment_image_keeps_shape_dtype_and_range_and_its_input(image, seed):
    before = image.copy()
    changed = augment_image(image, np.random.default_rng(seed))
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert changed.max() <= image.max()  # no brightening, no overshoot
    assert changed.min() >= np.floor(0.6 * image.min())
    assert np.array_equal(image, before)


def test_the_maximum_of_a_scaled_image_stays_above_six_tenths():
    image = np.full((4, 4, 3), 200, np.uint8)
    levels = {
        int(augment_image(image, np.random.default_rng(seed)).max())
        for seed in range(400)
    }
    assert min(levels) >= 120
    assert max(levels) == 200
    assert len(levels) > 40


# The fixed set --------------------------------------------------------------------


def test_the_first_copy_is_the_unchanged_images():
    images = torch.from_numpy(noise(5, 3, 12, 12))
    augmented = augment_copies(images, copies=10)
    assert augmented.shape == (50, 3, 12, 12)
    assert augmented.dtype == torch.uint8
    assert torch.equal(augmented[:5], images)


def test_copy_c_of_image_i_is_at_c_times_n_plus_i():
    images = torch.arange(4, dtype=torch.uint8).mul(60).view(4, 1, 1, 1)
    images = images.expand(4, 3, 6, 6).contiguous()  # uniform: 0, 60, 120, 180
    augmented = augment_copies(images, copies=20, seed=1)
    for copy in range(20):
        for i in range(4):
            level = augmented[copy * 4 + i].unique()
            assert len(level) == 1
            assert 0.6 * 60 * i - 0.5 <= level.item() <= 60 * i


def test_each_copy_has_its_own_random_generator():
    images = torch.from_numpy(noise(3, 3, 12, 12))
    augmented = augment_copies(images, copies=4, seed=7)
    for copy, i in ((1, 0), (2, 2), (3, 1)):
        image_bgr = np.ascontiguousarray(images[i].permute(1, 2, 0).numpy())
        expected = augment_image(image_bgr, np.random.default_rng([7, copy, i]))
        found = augmented[copy * 3 + i].permute(1, 2, 0).numpy()
        assert np.array_equal(found, expected)


def test_the_fixed_set_depends_on_the_seed_and_keeps_its_input():
    images = torch.from_numpy(noise(6, 3, 12, 12))
    before = images.clone()
    one = augment_copies(images, copies=5, seed=2)
    assert torch.equal(one, augment_copies(images, copies=5, seed=2))
    assert not torch.equal(one, augment_copies(images, copies=5, seed=3))
    assert torch.equal(images, before)
    one.zero_()
    assert torch.equal(images, before)


def test_most_copies_differ_from_their_image():
    images = torch.from_numpy(noise(10, 3, 16, 16))
    augmented = augment_copies(images, copies=10)
    equal = sum(
        torch.equal(augmented[c * 10 + i], images[i])
        for c in range(1, 10)
        for i in range(10)
    )
    assert 2 <= equal <= 22  # about 11 of 90 are unchanged


def test_with_one_copy_only_the_images_are_returned():
    images = torch.from_numpy(noise(4, 3, 8, 8))
    assert torch.equal(augment_copies(images, copies=1), images)


def test_flip_equals_the_flip_of_opencv():
    image = noise(5, 7, 3)
    assert np.array_equal(flip(image), cv2.flip(image, 1))


# A minibatch ----------------------------------------------------------------------


def params_for(flip=False, area=1.0, top=0.0, left=0.0, factor=None) -> torch.Tensor:
    """Return aug_params (1, 6) for these choices; `factor` None keeps the brightness."""
    low, high = module.AREA_RANGE
    numbers = [0.0 if flip else 0.9, (area - low) / (high - low), top, left]
    if factor is None:
        numbers += [0.9, 0.0]
    else:
        low, high = module.SCALE_RANGE
        numbers += [0.0, (factor - low) / (high - low)]
    return torch.tensor([numbers])


def one_image(side=24) -> torch.Tensor:
    coarse = noise(1, 3, 6, 6)
    big = cv2.resize(coarse[0].transpose(1, 2, 0), (side, side))
    return torch.from_numpy(big.transpose(2, 0, 1).copy())[None]


def as_bgr(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


def test_without_any_change_the_image_is_returned():
    image = one_image()
    found = module.augment_batch(image, params_for())
    assert found.dtype == torch.float32
    assert torch.allclose(found, image.float() / 255, atol=1e-5)


def test_the_flip_of_a_minibatch_equals_flip():
    image = one_image()
    found = module.augment_batch(image, params_for(flip=True))
    assert torch.allclose(found, image.flip(3).float() / 255, atol=1e-5)


@pytest.mark.parametrize(("top", "left", "side"), [(0, 0, 20), (3, 1, 20), (2, 5, 19)])
@pytest.mark.parametrize("is_flipped", [False, True])
def test_the_crop_of_a_minibatch_equals_crop_and_resize(top, left, side, is_flipped):
    image = one_image()
    aug_params = params_for(
        is_flipped, (side / 24) ** 2, top / (24 - side), left / (24 - side)
    )
    found = module.augment_batch(image, aug_params)[0].permute(1, 2, 0).numpy() * 255
    known = crop_and_resize(as_bgr(image), top, left, side)
    known = flip(known) if is_flipped else known
    inside = np.s_[1:-1, 1:-1]  # OpenCV does not see the pixels beyond the crop
    assert np.abs(found - known)[inside].max() < 1.5
    assert np.abs(found - as_bgr(image))[inside].max() > 10


def test_the_scaling_of_a_minibatch_equals_scale_rgb():
    image = one_image()
    found = module.augment_batch(image, params_for(factor=0.7))
    assert torch.allclose(found, 0.7 * image.float() / 255, atol=1e-5)
    known = scale_rgb(as_bgr(image), 0.7)
    assert np.abs(as_bgr(found) * 255 - known).max() <= 0.51


def test_each_image_of_a_minibatch_has_its_own_parameters():
    images = one_image().repeat(3, 1, 1, 1)
    aug_params = torch.cat(
        [params_for(), params_for(flip=True), params_for(factor=0.6)]
    )
    found = module.augment_batch(images, aug_params)
    for i in range(3):
        alone = module.augment_batch(images[i : i + 1], aug_params[i : i + 1])
        assert torch.allclose(found[i], alone[0], atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=0.1)


def test_aug_params_depend_on_seed_and_epoch_only():
    one = module.random_aug_params(50, seed=1, epoch=2)
    torch.manual_seed(99)
    assert torch.equal(one, module.random_aug_params(50, seed=1, epoch=2))
    assert not torch.equal(one, module.random_aug_params(50, seed=1, epoch=3))
    assert not torch.equal(one, module.random_aug_params(50, seed=2, epoch=2))
    assert one.shape == (50, 6) and one.min() >= 0 and one.max() < 1


def test_in_an_epoch_half_are_flipped_and_half_darkened_over_the_whole_range():
    aug_params = module.random_aug_params(2000, seed=0, epoch=1)
    white = torch.full((2000, 3, 4, 4), 255, dtype=torch.uint8)
    levels = module.augment_batch(white, aug_params)[:, 0, 0, 0]
    dark = levels < 1
    assert 900 < dark.sum() < 1100
    assert 0.6 <= levels.min() < 0.61 and levels[dark].max() > 0.99
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).expand(2000, 3, 24, 24)
    ramps = module.augment_batch(ramp.contiguous(), aug_params)[:, 0, 12]
    rising = ramps[:, -1] > ramps[:, 0]
    assert 900 < rising.sum() < 1100


def test_fresh_images_return_the_lab_of_the_augmented_minibatch():
    images = torch.from_numpy(noise(7, 3, 12, 12))
    fresh = module.FreshImages(images)
    aug_params, index = module.random_aug_params(7, 0, 1), torch.tensor([4, 0, 6])
    found = fresh.minibatch(index, aug_params)
    known = bgr_batch_to_lab(module.augment_batch(images[index], aug_params[index]))
    assert torch.equal(found.L, known.L) and torch.equal(found.ab, known.ab)
    assert len(fresh) == 7
    plain = to_lab_images(images)
    assert (fresh.truth.float() - plain.ab.float()).abs().max() < 0.55
    assert fresh.data_hash() != module.FreshImages(images + 1).data_hash()
    assert fresh.to("cpu").data_hash() == fresh.data_hash()


def test_fresh_images_without_brightness_are_still_cropped_and_flipped():
    images = torch.from_numpy(noise(40, 3, 12, 12))
    bright = module.FreshImages(images, scale_brightness=False).to("cpu")
    aug_params, index = module.random_aug_params(40, 0, 1), torch.arange(40)
    found, usual = (
        fresh.minibatch(index, aug_params).L
        for fresh in (bright, module.FreshImages(images))
    )
    darkened = aug_params[:, 4] < 0.5
    assert torch.equal(found[~darkened], usual[~darkened])
    assert (found[darkened] - usual[darkened]).amin() > -1e-3
    assert (found[darkened] - usual[darkened]).amax(dim=(1, 2, 3)).min() > 0.5
    assert bright.data_hash() != module.FreshImages(images).data_hash()


@pytest.mark.parametrize("augment", [module.augment_batch, module.affine_batch])
def test_only_flips_neither_crops_nor_darkens_nor_moves(augment):
    images = torch.from_numpy(noise(20, 3, 12, 12))
    aug_params = module.random_aug_params(20, 0, 1)
    given = aug_params.clone()
    found = augment(images, module.only_flips(aug_params))
    assert torch.equal(aug_params, given), "the argument was changed"
    flipped = aug_params[:, 0] < 0.5
    expected = images.float() / 255
    expected[flipped] = expected[flipped].flip(3)
    assert torch.allclose(found, expected, atol=1e-4)
    assert 4 < flipped.sum() < 16


def moved_ramp(
    is_vertical: bool = False, strength: float = 1.0, **aug_params: float
) -> torch.Tensor:
    """Return a ramp (40, 40) with 6 levels per pixel after `affine_batch`.

    The parameters that are not given are 0.5, which changes nothing.
    """
    columns = {"flip": 0, "shift_y": 2, "shift_x": 3, "angle": 4, "scale": 5}
    row = torch.full((1, 6), 0.5)
    for name, value in aug_params.items():
        row[0, columns[name]] = value
    ramp = torch.arange(2, 242, 6, dtype=torch.uint8).expand(1, 3, 40, 40)
    ramp = (ramp.mT if is_vertical else ramp).contiguous()
    return module.affine_batch(ramp, row, strength)[0, 0] * 255


@pytest.mark.parametrize("strength", [1.0, 4 / 3])
def test_affine_batch_scales_shifts_and_rotates_by_its_parameters(strength):
    moved = partial(moved_ramp, strength=strength)
    unmoved = moved()
    inner = slice(10, 30)  # the border contains reflections
    assert torch.allclose(unmoved[5], torch.arange(2.0, 242, 6), atol=1e-3)
    shifted = moved(shift_x=1.0)[:, inner] - unmoved[:, inner]
    expected = torch.tensor(6 * 40 * strength * module.MAX_SHIFT)  # 6 levels per pixel
    assert torch.allclose(shifted, expected, rtol=1e-3)
    assert torch.allclose(moved(shift_y=1.0), unmoved, atol=1e-3)
    shifted_y = moved(is_vertical=True, shift_y=1.0)[inner] - unmoved.T[inner]
    assert torch.allclose(shifted_y, expected, rtol=1e-3)
    scaled = [moved(scale=value)[20, inner] for value in (0.0, 1.0)]
    steps = [row.diff().mean() / 6 for row in scaled]
    zoom = module.MAX_ZOOM**strength
    assert steps == pytest.approx([1 / zoom, zoom], rel=1e-3)
    rotated = moved(angle=1.0)[inner, inner]
    slope_x, slope_y = rotated.diff(dim=1).mean(), rotated.diff(dim=0).mean()
    angle = torch.rad2deg(torch.atan2(slope_y, slope_x)).abs()
    assert angle == pytest.approx(strength * module.MAX_ROTATION, rel=1e-3)


def test_beyond_its_edge_an_image_is_reflected():
    row = moved_ramp(shift_x=1.0)[5]
    assert (row[:-3].diff() > 0).all() and row[-1] < row[-3]
    assert torch.allclose(moved_ramp(flip=0.0, shift_x=1.0)[5], row.flip(0), atol=1e-3)


@pytest.mark.parametrize("strength", [1.0, 4 / 3])
def test_fresh_images_with_random_affine_use_affine_batch(strength):
    images = torch.from_numpy(noise(7, 3, 12, 12))
    fresh = module.FreshImages(images, random_affine=strength).to("cpu")
    aug_params, index = module.random_aug_params(7, 0, 1), torch.tensor([4, 0, 6])
    moved = module.affine_batch(images[index], aug_params[index], strength)
    known = bgr_batch_to_lab(moved)
    assert torch.equal(fresh.minibatch(index, aug_params).L, known.L)
    assert fresh.data_hash() != module.FreshImages(images).data_hash()
