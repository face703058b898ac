import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.data import augment as module
from helpers.data.augment import (
    augment,
    augment_copies,
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
    """A generator whose coins fall as told; all else is drawn."""

    def __init__(self, *coins: float, seed: int = 0):
        self.coins = list(coins)
        self.rng = np.random.default_rng(seed)

    def random(self):
        return self.coins.pop(0)

    def __getattr__(self, name):
        return getattr(self.rng, name)


# Flip -----------------------------------------------------------------------------


def test_flip_mirrors_left_and_right_and_keeps_colors():
    image = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]], np.uint8)
    expected = [[[4, 5, 6], [1, 2, 3]], [[10, 11, 12], [7, 8, 9]]]
    assert flip(image).tolist() == expected


@FEW
@given(IMAGES)
def test_flip_twice_is_the_image(image):
    assert np.array_equal(flip(flip(image)), image)
    assert np.array_equal(flip(image), image[:, ::-1])


# Crop -----------------------------------------------------------------------------


def test_a_crop_of_the_whole_image_is_the_image():
    image = noise(16, 16)[..., None].repeat(3, axis=2)
    assert np.array_equal(crop_and_resize(image, 0, 0, 16), image)


def test_a_crop_keeps_what_lies_in_its_square():
    image = np.zeros((8, 8, 3), np.uint8)
    image[2:6, 3:7] = (10, 20, 30)
    assert (crop_and_resize(image, 2, 3, 4) == (10, 20, 30)).all()
    assert crop_and_resize(image, 2, 2, 4)[:, 0].max() == 0


def test_a_crop_is_resized_back_linearly():
    image = np.zeros((4, 4, 3), np.uint8)
    image[1, 1], image[1, 2] = 40, 200
    image[2, 1], image[2, 2] = 40, 200
    row = crop_and_resize(image, 1, 1, 2)[0, :, 0]
    assert row.tolist() == [40, 80, 160, 200]  # a quarter and three quarters between


@pytest.mark.parametrize(
    ("top", "left", "side"),
    [(0, 0, 0), (-1, 0, 4), (0, -1, 4), (5, 0, 4), (0, 7, 4), (0, 0, 9), (0, 0, -2)],
)
def test_a_crop_outside_the_image_raises(top, left, side):
    with pytest.raises(ValueError, match="leaves the 8x10 image"):
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


def test_one_factor_scales_all_three_channels():
    gray = noise(9, 9)[..., None].repeat(3, axis=2)
    scaled = scale_rgb(gray, 0.77)
    assert (scaled == scaled[..., :1]).all()
    assert scaled.max() < gray.max()


# All three ------------------------------------------------------------------------


def test_flip_and_scale_happen_on_their_own_coins_and_the_crop_always():
    image = noise(16, 16, 3)
    cropped = random_crop(image, np.random.default_rng(0))
    assert np.array_equal(augment(image, Coins(0.9, 0.9)), cropped)
    mirrored = random_crop(flip(image), np.random.default_rng(0))
    assert np.array_equal(augment(image, Coins(0.1, 0.9)), mirrored)
    rng = np.random.default_rng(0)
    darkened = scale_rgb(random_crop(image, rng), rng.uniform(0.6, 1.0))
    assert np.array_equal(augment(image, Coins(0.9, 0.1)), darkened)


def test_all_three_may_meet_in_one_image():
    image = noise(16, 16, 3)
    rng = np.random.default_rng(0)
    expected = random_crop(flip(image), rng)
    expected = scale_rgb(expected, rng.uniform(0.6, 1.0))
    assert np.array_equal(augment(image, Coins(0.1, 0.1)), expected)
    assert not np.array_equal(expected, image)


def test_every_copy_is_cropped_and_half_are_mirrored_and_half_darkened(monkeypatch):
    happened = []
    for name in ("flip", "random_crop", "scale_rgb"):
        monkeypatch.setattr(
            module, name, lambda image, *_, name=name: happened.append(name) or image
        )
    rng = np.random.default_rng(0)
    for _ in range(2000):
        augment(np.zeros((2, 2, 3), np.uint8), rng)
    assert happened.count("random_crop") == 2000
    assert 900 < happened.count("flip") < 1100
    assert 900 < happened.count("scale_rgb") < 1100


@FEW
@given(IMAGES, st.integers(0, 2**32))
def test_augment_keeps_shape_type_and_range_and_its_input(image, seed):
    before = image.copy()
    changed = augment(image, np.random.default_rng(seed))
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert changed.max() <= image.max()  # nothing brightens, linear never overshoots
    assert changed.min() >= np.floor(0.6 * image.min())
    assert np.array_equal(image, before)


def test_the_brightest_of_a_scaled_image_stays_above_six_tenths():
    image = np.full((4, 4, 3), 200, np.uint8)
    levels = {
        int(augment(image, np.random.default_rng(seed)).max()) for seed in range(400)
    }
    assert min(levels) >= 120
    assert max(levels) == 200
    assert len(levels) > 40


# The fixed set --------------------------------------------------------------------


def test_the_first_copy_is_the_images_themselves():
    images = torch.from_numpy(noise(5, 3, 12, 12))
    augmented = augment_copies(images, copies=10)
    assert augmented.shape == (50, 3, 12, 12)
    assert augmented.dtype == torch.uint8
    assert torch.equal(augmented[:5], images)


def test_copy_c_of_image_i_lies_at_c_times_n_plus_i():
    images = torch.arange(4, dtype=torch.uint8).mul(60).view(4, 1, 1, 1)
    images = images.expand(4, 3, 6, 6).contiguous()  # each of one level: 0 60 120 180
    augmented = augment_copies(images, copies=20, seed=1)
    for copy in range(20):
        for i in range(4):
            level = augmented[copy * 4 + i].unique()
            assert len(level) == 1
            assert 0.6 * 60 * i - 0.5 <= level.item() <= 60 * i


def test_each_copy_is_the_augmented_image_of_its_own_generator():
    images = torch.from_numpy(noise(3, 3, 12, 12))
    augmented = augment_copies(images, copies=4, seed=7)
    for copy, i in ((1, 0), (2, 2), (3, 1)):
        image_bgr = np.ascontiguousarray(images[i].permute(1, 2, 0).numpy())
        expected = augment(image_bgr, np.random.default_rng([7, copy, i]))
        found = augmented[copy * 3 + i].permute(1, 2, 0).numpy()
        assert np.array_equal(found, expected)


def test_the_fixed_set_is_a_function_of_the_seed_and_leaves_its_input():
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
    assert 2 <= equal <= 22  # no operation at all: one in eight, 11 of 90


def test_one_copy_is_the_images_alone():
    images = torch.from_numpy(noise(4, 3, 8, 8))
    assert torch.equal(augment_copies(images, copies=1), images)


def test_flip_is_opencv_s_flip_about_the_vertical_axis():
    image = noise(5, 7, 3)
    assert np.array_equal(flip(image), cv2.flip(image, 1))


# Fresh copies of a minibatch on the device -----------------------------------------


def draws_for(mirror=False, area=1.0, top=0.0, left=0.0, factor=None) -> torch.Tensor:
    """One row of draws that leads to these choices; factor None leaves the image light."""
    low, high = module.AREA_RANGE
    numbers = [0.0 if mirror else 0.9, (area - low) / (high - low), top, left]
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


def test_no_change_gives_the_image_itself():
    image = one_image()
    found = module.augment_batch(image, draws_for())
    assert found.dtype == torch.float32
    assert torch.allclose(found, image.float() / 255, atol=1e-5)


def test_the_batch_s_mirror_is_the_flip():
    image = one_image()
    found = module.augment_batch(image, draws_for(mirror=True))
    assert torch.allclose(found, image.flip(3).float() / 255, atol=1e-5)


@pytest.mark.parametrize(("top", "left", "side"), [(0, 0, 20), (3, 1, 20), (2, 5, 19)])
@pytest.mark.parametrize("mirror", [False, True])
def test_the_batch_s_crop_is_crop_and_resize(top, left, side, mirror):
    image = one_image()
    aug_params = draws_for(
        mirror, (side / 24) ** 2, top / (24 - side), left / (24 - side)
    )
    found = module.augment_batch(image, aug_params)[0].permute(1, 2, 0).numpy() * 255
    known = crop_and_resize(as_bgr(image), top, left, side)
    known = flip(known) if mirror else known
    inside = np.s_[1:-1, 1:-1]  # at its edge OpenCV knows nothing beyond the crop
    assert np.abs(found - known)[inside].max() < 1.5
    assert np.abs(found - as_bgr(image))[inside].max() > 10


def test_the_batch_s_scalar_is_scale_rgb():
    image = one_image()
    found = module.augment_batch(image, draws_for(factor=0.7))
    assert torch.allclose(found, 0.7 * image.float() / 255, atol=1e-5)
    known = scale_rgb(as_bgr(image), 0.7)
    assert np.abs(as_bgr(found) * 255 - known).max() <= 0.51


def test_each_image_of_a_batch_has_its_own_draws():
    images = one_image().repeat(3, 1, 1, 1)
    aug_params = torch.cat([draws_for(), draws_for(mirror=True), draws_for(factor=0.6)])
    found = module.augment_batch(images, aug_params)
    for i in range(3):
        alone = module.augment_batch(images[i : i + 1], aug_params[i : i + 1])
        assert torch.allclose(found[i], alone[0], atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=0.1)


def test_draws_are_a_function_of_seed_and_epoch():
    one = module.random_aug_params(50, seed=1, epoch=2)
    torch.manual_seed(99)
    assert torch.equal(one, module.random_aug_params(50, seed=1, epoch=2))
    assert not torch.equal(one, module.random_aug_params(50, seed=1, epoch=3))
    assert not torch.equal(one, module.random_aug_params(50, seed=2, epoch=2))
    assert one.shape == (50, 6) and one.min() >= 0 and one.max() < 1


def test_over_an_epoch_half_are_mirrored_and_half_darkened_and_areas_fill_the_range():
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


def test_fresh_images_are_lab_of_their_augmented_minibatch():
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


def test_fresh_images_that_are_not_darkened_are_cropped_and_mirrored_all_the_same():
    images = torch.from_numpy(noise(40, 3, 12, 12))
    bright = module.FreshImages(images, scale_brightness=False).to("cpu")
    aug_params, index = module.random_aug_params(40, 0, 1), torch.arange(40)
    found, usual = (
        part.minibatch(index, aug_params).L
        for part in (bright, module.FreshImages(images))
    )
    darkened = aug_params[:, 4] < 0.5
    assert torch.equal(found[~darkened], usual[~darkened])
    assert (found[darkened] - usual[darkened]).amin() > -1e-3
    assert (found[darkened] - usual[darkened]).amax(dim=(1, 2, 3)).min() > 0.5
    assert bright.data_hash() != module.FreshImages(images).data_hash()


@pytest.mark.parametrize("make", [module.augment_batch, module.affine_batch])
def test_images_that_are_only_mirrored_are_whole_and_bright(make):
    images = torch.from_numpy(noise(20, 3, 12, 12))
    aug_params = module.random_aug_params(20, 0, 1)
    given = aug_params.clone()
    found = make(images, module.only_flips(aug_params))
    assert torch.equal(aug_params, given), "the draws given are left alone"
    mirrored = aug_params[:, 0] < 0.5
    expected = images.float() / 255
    expected[mirrored] = expected[mirrored].flip(3)
    assert torch.allclose(found, expected, atol=1e-4)
    assert 4 < mirrored.sum() < 16


def moved(falls: bool = False, **aug_params: float) -> torch.Tensor:
    """A ramp (40, 40) of 6 levels a pixel, to the right or down, after a move.

    A draw of 0.5, which all others are, is no move.
    """
    columns = {"mirror": 0, "down": 2, "across": 3, "turn": 4, "zoom": 5}
    row = torch.full((1, 6), 0.5)
    for name, draw in aug_params.items():
        row[0, columns[name]] = draw
    ramp = torch.arange(2, 242, 6, dtype=torch.uint8).expand(1, 3, 40, 40)
    ramp = (ramp.mT if falls else ramp).contiguous()
    return module.affine_batch(ramp, row)[0, 0] * 255


def test_a_moved_picture_is_zoomed_shifted_and_turned_by_what_was_drawn():
    still = moved()
    inner = slice(10, 30)  # further out there are reflections
    assert torch.allclose(still[5], torch.arange(2.0, 242, 6), atol=1e-3)
    shifted = moved(across=1.0)[:, inner] - still[:, inner]  # 6 levels a pixel
    expected = torch.tensor(6 * 40 * module.MAX_SHIFT)
    assert torch.allclose(shifted, expected, rtol=1e-3)
    assert torch.allclose(moved(down=1.0), still, atol=1e-3)
    lower = moved(falls=True, down=1.0)[inner] - still.T[inner]
    assert torch.allclose(lower, expected, rtol=1e-3)
    steps = [moved(zoom=draw)[20, inner].diff().mean() / 6 for draw in (0.0, 1.0)]
    zoom = module.MAX_ZOOM
    assert steps == pytest.approx([1 / zoom, zoom], rel=1e-3)
    turned = moved(turn=1.0)[inner, inner]
    across, down = turned.diff(dim=1).mean(), turned.diff(dim=0).mean()
    angle = torch.rad2deg(torch.atan2(down, across)).abs()
    assert angle == pytest.approx(module.MAX_ROTATION, rel=1e-3)


def test_beyond_its_edge_a_moved_picture_is_reflected():
    seen = moved(across=1.0)[5]
    assert (seen[:-3].diff() > 0).all() and seen[-1] < seen[-3]
    assert torch.allclose(moved(mirror=0.0, across=1.0)[5], seen.flip(0), atol=1e-3)


def test_fresh_images_move_where_that_is_wished():
    images = torch.from_numpy(noise(7, 3, 12, 12))
    fresh = module.FreshImages(images, random_affine=True).to("cpu")
    aug_params, index = module.random_aug_params(7, 0, 1), torch.tensor([4, 0, 6])
    known = bgr_batch_to_lab(module.affine_batch(images[index], aug_params[index]))
    assert torch.equal(fresh.minibatch(index, aug_params).L, known.L)
    assert fresh.data_hash() != module.FreshImages(images).data_hash()
