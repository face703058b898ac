import pytest
import torch

from helpers.data.lab import LabImages
from helpers.evaluation.evaluate import evaluate
from helpers.evaluation.hint_curve import by_lightness, evaluate_with_hints
from helpers.nets import build


class Copy(torch.nn.Module):
    """A predictor that returns the hint where there is one, else zero."""

    task = "map"

    def predict(self, inputs):
        if inputs.shape[1] == 1:
            return torch.zeros_like(inputs).expand(-1, 2, -1, -1)
        return inputs[:, 1:3]

    def parameters(self):
        yield torch.zeros(1)


@pytest.fixture
def images():
    torch.manual_seed(0)
    L = torch.linspace(10, 90, 12).view(12, 1, 1, 1).expand(12, 1, 128, 128)
    ab = torch.full((12, 2, 128, 128), 10.0) + torch.randn(12, 2, 1, 1)
    return LabImages(L.half(), ab.half())


def test_more_hints_give_a_smaller_error(images):
    results = evaluate_with_hints(Copy(), images)
    assert list(results) == ["none", "mean", "1 point", "3 points", "10 points"]
    errors = {name: float(r.per_image.mean()) for name, r in results.items()}
    assert errors["mean"] < 1e-6
    assert errors["none"] > errors["1 point"] > errors["3 points"] > errors["10 points"]


def test_the_points_are_the_same_again_and_the_generator_is_unchanged(images):
    torch.manual_seed(5)
    first, again = (evaluate_with_hints(Copy(), images)["3 points"] for _ in range(2))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(first.per_image, again.per_image)


def test_the_thirds_are_sorted_by_lightness_and_complete(images):
    net = build("hinted_unet", base=2, levels=2)
    result = evaluate(net, images)
    thirds = by_lightness(result, images.L)
    assert list(thirds) == ["dark", "medium", "light"]
    parts = [third.per_image for third in thirds.values()]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert torch.equal(torch.cat(parts), result.per_image)  # already sorted by L*


def test_two_images_have_no_third_third(images):
    result = evaluate(build("hinted_unet", base=2, levels=2), images[:2])
    assert list(by_lightness(result, images[:2].L)) == ["dark", "medium"]
