import pytest
import torch

from helpers.data import aging
from helpers.data.aging import age
from helpers.data.augment import FreshImages, random_aug_params
from helpers.data.lab import bgr_batch_to_lab


def lightness(number=400, size=32):
    ramp = torch.linspace(10, 90, size).repeat(size, 1)
    return ramp.expand(number, 1, size, size).clone()


def test_about_half_of_the_images_change_and_all_stay_in_range():
    torch.manual_seed(0)
    L = lightness()
    aged = age(L)
    is_same = (aged == L).flatten(1).all(1)
    assert 0.4 < is_same.float().mean() < 0.6
    assert aged.min() >= 0 and aged.max() <= 100
    assert torch.equal(L, lightness())  # the input is not changed


def test_the_same_seed_gives_the_same_images():
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(age(lightness(20)))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("change", ["_fade", "_blur", "_scratch", "_grain", "_jpeg"])
def test_each_change_alters_the_lightness_but_keeps_the_picture(change):
    torch.manual_seed(0)
    L = lightness(8)
    changed = getattr(aging, change)(L)
    assert changed.shape == L.shape and not torch.equal(changed, L)
    columns = changed.mean(dim=(0, 1, 2)), L.mean(dim=(0, 1, 2))
    assert torch.corrcoef(torch.stack(columns))[0, 1] > 0.8


def test_no_image_to_change_is_no_error(monkeypatch):
    monkeypatch.setattr(aging, "AGED_SHARE", 0.0)
    L = lightness(3)
    assert torch.equal(age(L), L)


def test_the_true_color_is_that_of_the_image_before_aging():
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8)
    fresh = FreshImages(images, random_affine=1.0, old_photo=True)
    assert fresh.data_hash() != FreshImages(images, random_affine=1.0).data_hash()
    unchanged = torch.full((12, 6), 0.5)  # no flip, shift, rotation or zoom
    torch.manual_seed(3)
    minibatch = fresh.minibatch(torch.arange(12), unchanged)
    truth = bgr_batch_to_lab(images.float() / 255)
    assert torch.allclose(minibatch.ab, truth.ab, atol=0.1)
    assert not torch.allclose(minibatch.L, truth.L, atol=1)
    zoomed = fresh.minibatch(torch.arange(12), random_aug_params(12, 0, 1))
    assert zoomed.ab.shape == truth.ab.shape
