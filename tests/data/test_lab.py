import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import rgb2lab
from torch.nn import functional as F

from helpers.data.lab import (
    HEAD_SCALES,
    AbScale,
    LabImages,
    bgr16_to_lab,
    bgr_batch_to_lab,
    bgr_to_lab,
    lab_to_bgr,
    lab_to_bgr16,
    to_bgr_images,
    to_lab_images,
)
from helpers.evaluation.metrics import chrominance_mse

HEADS = list(HEAD_SCALES)
SIDES = st.integers(1, 12)
IMAGES = st.builds(lambda h, w: (h, w, 3), SIDES, SIDES).flatmap(
    lambda shape: arrays(np.uint8, shape)
)


def one_pixel(blue: int, green: int, red: int) -> np.ndarray:
    return np.array([[[blue, green, red]]], np.uint8)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def random_ab(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * 20 + 10


# One image ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((255, 255, 255), (100, 0, 0)),
        ((128, 128, 128), (53.585, 0, 0)),
        ((0, 0, 255), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.74, -86.18, 83.18)),
        ((255, 0, 0), (32.30, 79.19, -107.86)),
    ],
    ids=["black", "white", "gray", "red", "green", "blue"],
)
def test_reference_colors_have_their_published_lab(pixel, expected):
    lab = bgr_to_lab(one_pixel(*pixel))
    assert lab.dtype == np.float32
    assert np.abs(lab[0, 0] - expected).max() < 0.7


def test_mid_gray_has_lightness_53_6_and_no_chrominance():
    L, a, b = bgr_to_lab(one_pixel(128, 128, 128))[0, 0]
    assert abs(L - 53.585) < 0.02
    assert max(abs(a), abs(b)) < 0.02


def test_lab_agrees_with_scikit_image_within_0_7():
    image_bgr = noise(64, 64, 3)
    difference = bgr_to_lab(image_bgr) - rgb2lab(image_bgr[..., ::-1])
    assert np.abs(difference).max() < 0.7


def test_lab_equals_opencv_in_float():
    image_bgr = noise(20, 30, 3)
    direct = cv2.cvtColor(image_bgr.astype(np.float32) / 255, cv2.COLOR_BGR2Lab)
    assert np.array_equal(bgr_to_lab(image_bgr), direct)


def test_bytes_and_floats_of_one_image_give_the_same_lab():
    image_bgr = noise(20, 30, 3)
    floats = image_bgr.astype(np.float32) / 255
    assert np.array_equal(bgr_to_lab(image_bgr), bgr_to_lab(floats))


def test_grays_have_no_chrominance_and_rising_lightness():
    grays = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    lab = bgr_to_lab(grays)[0]
    assert np.abs(lab[:, 1:]).max() < 0.2  # OpenCV interpolates in a table
    assert (np.diff(lab[:, 0]) > 0).all()


@settings(max_examples=100, deadline=None, database=None)
@given(IMAGES)
def test_a_round_trip_changes_no_byte_by_more_than_one_level(image_bgr):
    back = lab_to_bgr(bgr_to_lab(image_bgr))
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - image_bgr).max() <= 1


def test_a_round_trip_rounds_and_does_not_truncate():
    grays = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    assert np.array_equal(lab_to_bgr(bgr_to_lab(grays)), grays)
    image_bgr = noise(64, 64, 3)
    assert (lab_to_bgr(bgr_to_lab(image_bgr)) == image_bgr).mean() > 0.99


@pytest.mark.parametrize(
    "wrong",
    [
        np.full((2, 2, 3), 128.0, np.float32),
        np.full((2, 2, 3), -0.01, np.float32),
        np.full((2, 2, 3), 0.5, np.float64),
        np.full((2, 2, 3), 300, np.uint16),
        np.full((2, 2, 3), 1, np.int64),
        np.full((2, 2, 3), np.nan, np.float32),
    ],
    ids=["0..255", "negative", "float64", "uint16", "int64", "nan"],
)
def test_another_dtype_or_range_raises(wrong):
    with pytest.raises(ValueError, match=r"needs uint8 or float32 in 0\.\.1"):
        bgr_to_lab(wrong)


def test_floats_at_the_ends_of_the_range_are_allowed():
    image = np.array([[[0, 0, 0], [1, 1, 1]]], np.float32)
    assert bgr_to_lab(image)[0, :, 0] == pytest.approx([0, 100], abs=0.01)


def test_colors_outside_srgb_are_clipped():
    outside = np.array([[[50, 127, 127], [100, 50, 50], [-5, 0, 0]]], np.float32)
    image_bgr = lab_to_bgr(outside)
    assert image_bgr.dtype == np.uint8
    assert image_bgr[0, 0, 2] == 255
    assert image_bgr[0, 0, 0] == 0
    assert image_bgr[0, 2].tolist() == [0, 0, 0]


# Many images ----------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_a_batch_gets_the_lab_of_each_image(chunk):
    images = torch.from_numpy(noise(7, 3, 8, 12))
    lab = to_lab_images(images, chunk)
    assert lab.L.shape == (7, 1, 8, 12)
    assert lab.ab.shape == (7, 2, 8, 12)
    assert lab.L.dtype == lab.ab.dtype == torch.float16
    for i in range(7):
        one = bgr_to_lab(np.ascontiguousarray(images[i].permute(1, 2, 0).numpy()))
        one = torch.from_numpy(one).permute(2, 0, 1).half()
        assert torch.equal(lab.L[i], one[:1])
        assert torch.equal(lab.ab[i], one[1:])


def test_half_precision_changes_no_value_by_more_than_one_32nd():
    images = noise(20, 3, 32, 32)
    lab = to_lab_images(torch.from_numpy(images))
    exact = np.stack([bgr_to_lab(x) for x in images.transpose(0, 2, 3, 1).copy()])
    change_L = lab.L[:, 0].double().numpy() - exact[..., 0]
    change_ab = lab.ab.double().permute(0, 2, 3, 1).numpy() - exact[..., 1:]
    assert 0 < np.abs(change_L).max() <= 1 / 32
    assert 0 < np.abs(change_ab).max() <= 1 / 32
    assert 0 < np.mean((change_ab / 255) ** 2) < 1e-8


def test_half_precision_changes_an_error_by_less_than_a_ten_thousandth():
    images = noise(20, 3, 32, 32)
    lab = to_lab_images(torch.from_numpy(images))
    exact = np.stack([bgr_to_lab(x) for x in images.transpose(0, 2, 3, 1).copy()])
    exact_ab = torch.from_numpy(exact[..., 1:]).permute(0, 3, 1, 2)
    ab_hat = torch.zeros_like(exact_ab)
    stored, full = chrominance_mse(ab_hat, lab.ab), chrominance_mse(ab_hat, exact_ab)
    assert ((stored - full).abs() <= 1e-4 * full).all()


def test_lab_images_index_L_ab_and_group_together():
    lab = LabImages(torch.arange(5).view(5, 1, 1, 1), torch.arange(10).view(5, 2, 1, 1))
    assert len(lab) == 5
    assert lab.inputs is lab.L and lab.truth is lab.ab
    assert lab[1:3].group is lab.to("cpu").group is None
    some = lab[torch.tensor([3, 0])]
    assert some.L.flatten().tolist() == [3, 0]
    assert some.ab.flatten().tolist() == [6, 7, 0, 1]
    assert len(lab[1:3]) == 2
    assert torch.equal(lab.to("cpu").ab, lab.ab)
    known = LabImages(lab.L, lab.ab, torch.tensor([7, 7, 8, 9, 9]))
    assert known[torch.tensor([3, 0])].group.tolist() == [9, 7]
    assert known.to("cpu").group.tolist() == [7, 7, 8, 9, 9]
    assert known.data_hash() != lab.data_hash() == lab[:].data_hash()


def test_to_bgr_images_undoes_to_lab_images_within_one_level():
    images = torch.from_numpy(noise(4, 3, 16, 16))
    lab = to_lab_images(images)
    back = to_bgr_images(lab.L, lab.ab)
    assert back.shape == images.shape
    assert back.dtype == torch.uint8
    assert (back.int() - images.int()).abs().max() <= 1


def test_zero_chrominance_gives_a_gray_image():
    lab = to_lab_images(torch.from_numpy(noise(2, 3, 8, 8)))
    gray = to_bgr_images(lab.L, torch.zeros_like(lab.ab))
    assert (gray.max(dim=1).values.int() - gray.min(dim=1).values.int()).max() <= 1
    assert gray.float().std() > 10


def test_the_torch_conversion_agrees_with_opencv_within_half_a_unit():
    images = torch.from_numpy(noise(20, 3, 32, 32))
    found = bgr_batch_to_lab(images.float() / 255)
    tall = images.permute(0, 2, 3, 1).reshape(-1, 32, 3).numpy()
    known = torch.from_numpy(bgr_to_lab(tall)).view(20, 32, 32, 3).permute(0, 3, 1, 2)
    assert found.L.shape == (20, 1, 32, 32) and found.ab.shape == (20, 2, 32, 32)
    assert found.L.dtype == found.ab.dtype == torch.float32
    assert (found.L - known[:, :1]).abs().max() < 0.3
    assert (found.ab - known[:, 1:]).abs().max() < 0.5
    assert (found.ab - known[:, 1:]).abs().mean() < 0.12


def test_the_torch_conversion_agrees_with_scikit_image():
    images = torch.from_numpy(noise(5, 3, 32, 32))
    images[0] //= 20  # dark colors use the linear segments of the curves
    found = bgr_batch_to_lab(images.float() / 255)
    for i in range(5):
        known = rgb2lab(images[i].flip(0).permute(1, 2, 0).numpy())
        ours = torch.cat([found.L[i], found.ab[i]]).permute(1, 2, 0).numpy()
        assert np.abs(ours - known).max() < 0.05


def test_the_torch_conversion_keeps_grays_gray():
    grays = torch.linspace(0, 1, 256).expand(1, 3, 1, 256)
    found = bgr_batch_to_lab(grays)
    assert found.ab.abs().max() < 0.01
    assert found.L[0, 0, 0, [0, -1]].tolist() == pytest.approx([0, 100], abs=0.01)
    assert (found.L.diff() > 0).all()


# The scale of a head --------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 2), (6, 2, 3, 5)])
@pytest.mark.parametrize("head", HEADS)
def test_decode_undoes_encode(head, shape):
    ab = random_ab(*shape)
    scale = AbScale(head)
    scale.fit(random_ab(50, 2, seed=1))
    y = scale.encode(ab)
    assert y.shape == ab.shape
    assert y.dtype == torch.float32
    assert torch.allclose(scale.decode(y), ab, atol=1e-4)
    assert not torch.allclose(y, ab)


@pytest.mark.parametrize(
    ("head", "low", "middle", "high"),
    [
        ("relu", 0, 128 / 255, 1),
        ("sigmoid", 0, 128 / 255, 1),
        ("tanh", -1, 0, 127 / 128),
    ],
)
def test_fixed_heads_scale_natural_units_as_published(head, low, middle, high):
    y = AbScale(head).encode(torch.tensor([[-128.0, 0.0], [127.0, 0.0]]))
    assert y.flatten().tolist() == pytest.approx([low, middle, high, middle], abs=1e-6)


def test_fit_does_not_change_a_fixed_scale():
    for head in ("relu", "sigmoid", "tanh"):
        scale = AbScale(head)
        before = {k: v.clone() for k, v in scale.state_dict().items()}
        scale.fit(random_ab(20, 2))
        for name, value in scale.state_dict().items():
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("shape", [(700, 2), (600, 2, 3, 4)])
def test_the_linear_head_gets_zero_mean_and_unit_deviation(shape):
    ab = random_ab(*shape) * torch.tensor([1.0, 3.0]).view(2, *[1] * (len(shape) - 2))
    scale = AbScale("linear")
    scale.fit(ab)
    y = scale.encode(ab)
    channels = [0, *range(2, y.ndim)]
    assert y.mean(dim=channels).abs().max() < 1e-4
    assert y.square().mean().sqrt().item() == pytest.approx(1, abs=1e-4)
    deviation_a, deviation_b = y.std(dim=channels).tolist()
    assert deviation_b == pytest.approx(3 * deviation_a, rel=0.1)  # both share one unit


def test_fit_computes_in_full_precision_for_half_precision_data():
    ab = torch.full((600, 2, 16, 16), 100.0, dtype=torch.float16)
    ab[::2] = 60.0  # sums and squares overflow half precision
    scale = AbScale("linear")
    scale.fit(ab)
    assert scale.offset.tolist() == pytest.approx([80, 80], rel=1e-5)
    assert scale.unit.item() == pytest.approx(20, rel=1e-5)


def test_only_gray_images_do_not_divide_by_zero():
    ab = torch.zeros(5, 2, 4, 4)
    scale = AbScale("linear")
    scale.fit(ab)
    assert torch.equal(scale.encode(ab), ab)
    assert torch.equal(scale.decode(ab), ab)
    assert scale.encode(ab + 1).isfinite().all()


@pytest.mark.parametrize("shape", [(6, 2), (6, 2, 3, 5)])
@pytest.mark.parametrize("head", HEADS)
def test_a_loss_between_encoded_values_is_the_mse_on_scale_s(head, shape):
    ab, ab_hat = random_ab(*shape), random_ab(*shape, seed=1)
    scale = AbScale(head)
    scale.fit(ab)
    loss = F.mse_loss(scale.encode(ab_hat), scale.encode(ab)).item()
    expected = chrominance_mse(ab_hat, ab).mean().item()
    assert expected > 1e-4
    assert scale.loss_on_scale_s(loss) == pytest.approx(expected, rel=1e-4)


def test_offset_and_unit_are_saved_with_the_weights():
    scale, other = AbScale("linear"), AbScale("linear")
    scale.fit(random_ab(30, 2))
    assert set(scale.state_dict()) == {"offset", "unit"}
    assert list(scale.parameters()) == []
    other.load_state_dict(scale.state_dict())
    ab = random_ab(4, 2)
    assert torch.equal(other.encode(ab), scale.encode(ab))
    assert not torch.equal(AbScale("linear").encode(ab), scale.encode(ab))


def test_an_unknown_head_raises_and_lists_the_known_ones():
    with pytest.raises(ValueError, match="head 'softmax': use one of relu, sigmoid"):
        AbScale("softmax")


# 16 bits --------------------------------------------------------------------------


def test_every_sixteen_bit_gray_is_distinct_and_survives_a_round_trip():
    gray = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = np.dstack([gray] * 3)
    lab = bgr16_to_lab(image)
    assert len(np.unique(lab[..., 0])) == 65536
    assert np.abs(lab[..., 1:]).max() < 1e-3
    assert np.abs(lab_to_bgr16(lab).astype(int) - image).max() <= 3


def test_sixteen_bit_conversion_agrees_with_scikit_image():
    image = np.random.default_rng(0).integers(0, 65536, (40, 40, 3), np.uint16)
    expected = rgb2lab(image[..., ::-1] / 65535)
    assert np.abs(bgr16_to_lab(image) - expected).max() < 0.1
    assert np.abs(lab_to_bgr16(bgr16_to_lab(image)).astype(int) - image).max() <= 30
