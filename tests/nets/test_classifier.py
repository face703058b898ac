import matplotlib.pyplot as plt
import pytest
import torch
from engine import fit, photographs, recipe

from helpers.data.course import course_data
from helpers.data.faces import FaceSet, split_faces
from helpers.data.lab import LabImages, to_lab_images
from helpers.data.portraits import render_portrait
from helpers.evaluation.evaluate import evaluate
from helpers.evaluation.figures import ab_histogram
from helpers.experiments.profiles import PROFILES
from helpers.experiments.run import train_experiment
from helpers.nets import Classifier, UNet, count_parameters
from helpers.training.execution import set_seed
from helpers.training.weights import load_weights, save_weights

SKIN = {  # R, G, B of skin from dark to light
    "dark": (60, 40, 30),
    "brown": (141, 85, 36),
    "olive": (198, 134, 66),
    "light": (241, 194, 125),
    "pale": (255, 219, 172),
}


def classifier(seed: int = 0, **options) -> Classifier:
    set_seed(seed)
    return Classifier(**{"base": 4, "levels": 2, **options})


def plane(*colors) -> torch.Tensor:
    """Constant ab planes (N, 2, 16, 16), one for each (a, b)."""
    return torch.tensor(colors, dtype=torch.float32)[:, :, None, None].expand(
        -1, -1, 16, 16
    )


def place_of(net: Classifier, a: float, b: float) -> int:
    """Return the index of the bin at (a, b)."""
    at = (net.centers == torch.tensor([a, b])).all(dim=1).nonzero().flatten()
    assert len(at) == 1, f"no bin at {a}, {b}"
    return int(at)


@pytest.fixture(scope="module")
def portraits() -> LabImages:
    return to_lab_images(drawn().images)


def drawn() -> FaceSet:
    """Twelve portraits of twelve sitters."""
    images = [torch.from_numpy(render_portrait(s, 1)) for s in range(1, 13)]
    names = [f"s{sitter:02d}.jpg" for sitter in range(1, 13)]
    return FaceSet(torch.stack(images).permute(0, 3, 1, 2), names, names)


# The bins -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SKIN)
def test_every_skin_tone_of_the_training_set_has_a_bin(name, portraits):
    tones = torch.tensor(list(SKIN.values()), dtype=torch.uint8).flip(1)
    skins = to_lab_images(tones[:, :, None, None].expand(-1, -1, 128, 128)).ab
    net = classifier()
    net.fit_scale(torch.cat([portraits.ab, skins]))
    mean = skins[list(SKIN).index(name)].float().mean(dim=(1, 2))
    assert (net.centers - mean).abs().amax(dim=1).min() <= 2.6  # half a grid, float16


def test_nearly_all_pixels_of_the_portraits_are_near_a_bin(portraits):
    net = classifier(num_bins=96)
    net.fit_scale(portraits.ab)
    bins, _ = net.target(portraits.ab)
    small = torch.nn.functional.avg_pool2d(portraits.ab.float(), 2)
    nearest = net.centers[bins[:, 0]].permute(0, 3, 1, 2)
    inside = (nearest - small).abs().amax(dim=1) <= 3.0
    assert inside.float().mean() > 0.999
    gray = classifier(num_bins=96)  # not fitted: bins around gray only
    nearest = gray.centers[gray.target(portraits.ab)[0][:, 0]].permute(0, 3, 1, 2)
    assert ((nearest - small).abs().amax(dim=1) <= 3.0).float().mean() < 0.99


def test_the_bins_are_distinct_grid_points_for_any_data():
    for ab in (plane((0, 0)), plane((90, -100), (-80, 80)), torch.randn(3, 2, 16, 16)):
        for grid, num_bins in ((5.0, 160), (10.0, 40), (7.5, 5)):
            net = classifier(grid=grid, num_bins=num_bins)
            net.fit_scale(ab)
            steps = net.centers / grid
            assert torch.equal(steps, steps.round())
            assert len({tuple(c) for c in net.centers.tolist()}) == num_bins
            assert net.frequency.min() > 0
            assert net.frequency.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_bins_do_not_depend_on_the_order_of_the_images():
    ab = torch.randn(6, 2, 16, 16, generator=torch.Generator().manual_seed(0)) * 20
    one, other = classifier(num_bins=60), classifier(num_bins=60)
    one.fit_scale(ab)
    other.fit_scale(ab.flip(0))
    assert torch.equal(one.centers, other.centers)
    torch.testing.assert_close(one.frequency, other.frequency)


def test_the_frequencies_are_those_of_a_smoothed_histogram():
    net = classifier()
    net.fit_scale(plane((0, 0), (0, 0), (0, 0), (50, 0)))
    here, there = (net.frequency[place_of(net, a, 0.0)] for a in (0.0, 50.0))
    assert (here / there).item() == pytest.approx(3, rel=1e-4)
    beside = net.frequency[place_of(net, 5.0, 0.0)]
    assert (beside / here).item() == pytest.approx(torch.e**-0.5, rel=1e-3)  # sigma 5


# The soft encoding ----------------------------------------------------------------


def test_a_color_on_a_bin_also_has_shares_in_the_four_neighbors():
    net = classifier()
    bins, shares = net.target(plane((10, -5)))
    assert bins.shape == shares.shape == (1, 5, 8, 8)
    found = {tuple(c) for c in net.centers[bins[0, :, 0, 0]].tolist()}
    assert found == {(10, -5), (5, -5), (15, -5), (10, 0), (10, -10)}
    # sigma 2.5, neighbors 5 away: exp(-25 / 12.5) = 0.1353 of the nearest
    assert shares[0, 0, 0, 0].item() == pytest.approx(1 / (1 + 4 * 0.135335), rel=1e-4)
    assert shares[0, 1:, 0, 0].tolist() == pytest.approx([0.087836] * 4, rel=1e-3)


@pytest.mark.parametrize("unshuffle", [2, 4])
def test_the_encoding_agrees_with_a_search_among_all_bins(unshuffle):
    generator = torch.Generator().manual_seed(0)
    ab = torch.randn(2, 2, 32, 32, generator=generator) * 25
    net = classifier(unshuffle=unshuffle)
    net.fit_scale(ab)
    bins, shares = net.target(ab)
    assert torch.allclose(shares.sum(dim=1), torch.ones(()))
    assert bins.sort(dim=1).values.diff(dim=1).min() > 0  # five different ones
    small = torch.nn.functional.avg_pool2d(ab, unshuffle).permute(0, 2, 3, 1)
    distance, nearest = torch.cdist(small.reshape(-1, 2), net.centers).topk(
        5, largest=False
    )
    exact = (-distance.square() / (2 * 2.5**2)).softmax(dim=1)
    dense = torch.zeros(len(exact), 160).scatter(1, nearest, exact)
    ours = torch.zeros(len(exact), 160).scatter(
        1, *(x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (bins, shares))
    )
    assert (dense - ours).abs().max() < 0.08  # the table has whole a and b only
    assert (dense - ours).abs().sum(dim=1).mean() < 0.03  # of 2 for wrong bins


def test_soft_bins_preserve_a_color_that_hard_bins_round():
    ab = plane((2.4, 12.4))
    net = classifier()
    bins, shares = net.target(ab)
    soft = (net.centers[bins] * shares.unsqueeze(4)).sum(dim=1)[0, 0, 0]
    assert soft.tolist() == pytest.approx([2.4, 12.4], abs=0.6)
    hard = net.centers[bins[0, 0, 0, 0]]
    assert (hard - torch.tensor([2.4, 12.4])).abs().max() > 2


# Rebalancing ----------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_the_weights_are_one_on_average(lam, portraits):
    net = classifier(lam=lam)
    net.fit_scale(portraits.ab)
    assert (net.frequency * net.weights).sum().item() == pytest.approx(1, abs=1e-4)


def test_rare_bins_weigh_more_only_with_rebalancing(portraits):
    plain, half = classifier(lam=1.0), classifier(lam=0.5)
    for net in (plain, half):
        net.fit_scale(portraits.ab)
    assert torch.allclose(plain.weights, torch.ones(160))
    order = half.frequency.argsort()
    assert half.weights[order].diff().max() <= 1e-6
    rarest, commonest = half.weights[order[0]], half.weights[order[-1]]
    expected = (half.frequency[order[-1]] + 1 / 160) / (
        half.frequency[order[0]] + 1 / 160
    )
    assert rarest / commonest == pytest.approx(expected.item(), rel=1e-4)
    assert rarest > 5 * commonest


def test_the_loss_is_the_weighted_cross_entropy():
    ab = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0)) * 8
    net = classifier(lam=0.5, num_bins=40)
    net.fit_scale(ab)
    logits = torch.randn(2, 40, 8, 8)
    bins, shares = net.target(ab)
    dense = torch.zeros(2, 40, 8, 8).scatter(1, bins, shares)
    entropy = torch.nn.functional.cross_entropy(logits, dense, reduction="none")
    expected = (net.weights[bins[:, 0]] * entropy).mean()
    found = net.loss(logits, LabImages(torch.zeros(2, 1, 16, 16), ab))
    torch.testing.assert_close(found, expected)
    assert net.reported(1.25) == 1.25  # nats, not scale S


# Decoding -------------------------------------------------------------------------


def test_the_decoded_color_of_one_certain_bin_is_its_center():
    net = classifier()
    for place in (0, 77, 159):
        logits = torch.full((1, 160, 2, 2), -50.0)
        logits[:, place] = 50
        for temperature in (1.0, 0.38):
            ab = net.decode(logits, temperature)
            assert ab.shape == (1, 2, 2, 2)
            assert ab[0, :, 1, 1].tolist() == pytest.approx(net.centers[place].tolist())


def test_temperature_1_is_the_mean_and_near_0_the_mode():
    net = classifier()
    p = torch.full((160,), 1e-9)
    red, blue = place_of(net, 20.0, 0.0), place_of(net, -20.0, -10.0)
    p[red], p[blue] = 0.6, 0.4
    logits = p.log().view(1, 160, 1, 1)
    mean = net.decode(logits, 1.0).flatten()
    assert mean.tolist() == pytest.approx([0.6 * 20 - 0.4 * 20, -4.0], abs=1e-3)
    assert net.decode(logits, 0.01).flatten().tolist() == pytest.approx([20, 0])
    between = net.decode(logits, 0.38)[0, 0].item()
    share = 0.6 ** (1 / 0.38) / (0.6 ** (1 / 0.38) + 0.4 ** (1 / 0.38))
    assert between == pytest.approx(20 * share - 20 * (1 - share), abs=1e-3)
    assert torch.equal(net.decode(logits + 7, 1.0), net.decode(logits + 7, 1.0))
    torch.testing.assert_close(net.decode(logits + 7, 0.38), net.decode(logits, 0.38))


def test_the_temperature_changes_the_prediction_but_not_the_logits():
    net = classifier().eval()
    net.fit_scale(plane((20, 20), (-20, 5)))
    torch.nn.init.normal_(net.last.weight, std=3)
    L = torch.rand(2, 1, 16, 16) * 100
    with torch.no_grad():
        logits = net(L / 100)
        warm = net.predict(L)
        net.temperature.fill_(0.38)
        cold = net.predict(L)
        assert torch.equal(net(L / 100), logits)
        for ab, temperature in ((warm, 1.0), (cold, 0.38)):
            small = net.decode(logits, temperature)
            large = torch.nn.functional.interpolate(
                small, scale_factor=2, mode="bilinear"
            )
            torch.testing.assert_close(ab, large)
    assert warm.shape == (2, 2, 16, 16)
    assert (warm - cold).abs().max() > 1


def test_an_untrained_classifier_predicts_the_mean_color():
    net = classifier().eval()
    net.fit_scale(plane((20, 30), (20, 30), (-10, 0)))
    with torch.no_grad():
        ab_hat = net.predict(torch.rand(2, 1, 16, 16) * 100)
    assert ab_hat.mean(dim=(0, 2, 3)).tolist() == pytest.approx([10, 20], abs=0.5)
    assert ab_hat.std(dim=(0, 2, 3)).max() < 1e-3


# The network ----------------------------------------------------------------------


def test_the_classifier_has_the_trunk_of_the_unet_and_q_logits():
    ours, theirs = Classifier(base=4, num_bins=50), UNet(base=4)
    trunk = {k: v.shape for k, v in ours.trunk.state_dict().items()}
    assert trunk == {k: v.shape for k, v in theirs.trunk.state_dict().items()}
    more = count_parameters(ours) - count_parameters(theirs)
    assert more == (50 - 2) * (4 + 1)
    assert Classifier(base=4, unshuffle=4)(torch.rand(1, 1, 64, 64)).shape == (
        1,
        160,
        16,
        16,
    )


@pytest.mark.parametrize("lam", [1.0, 0.5])
def test_the_loss_falls_and_the_colors_are_learned(lam):
    images = photographs(12)
    net = classifier(lam=lam)
    history = fit(net, images, recipe=recipe(num_epochs=40, lr=0.02), seed=0)
    losses = history["train_mse"]
    assert losses[-1] < 0.75 * losses[0]
    spread = images.ab.float().var(dim=(0, 2, 3)).mean().item() / 255**2
    assert evaluate(net, images).mse.mean < 0.3 * spread
    untrained = classifier(lam=lam)
    untrained.fit_scale(images.ab)
    assert evaluate(untrained, images).mse.mean > 0.8 * spread


def test_a_weights_file_holds_bins_frequencies_and_temperature(tmp_path):
    options = {"base": 4, "levels": 2, "num_bins": 60, "lam": 0.5}
    net = classifier(**options)
    fit(net, photographs(8), recipe=recipe(num_epochs=1), seed=0)
    net.temperature.fill_(0.38)
    save_weights(tmp_path / "w.safetensors", net, "classifier", options)
    again, _ = load_weights(tmp_path / "w.safetensors")
    assert not torch.equal(again.centers, classifier(**options).centers)
    assert torch.equal(again.centers, net.centers)
    assert torch.equal(again.weights, net.weights)
    assert again.temperature.item() == pytest.approx(0.38)
    assert again.lam == 0.5 and str(again) == str(net)
    ab = photographs(3, seed=5).ab
    for ours, theirs in zip(again.target(ab), net.target(ab), strict=True):
        assert torch.equal(ours, theirs)  # the look-up table fits the loaded bins
    L = photographs(2).L
    with torch.no_grad():
        torch.testing.assert_close(again.predict(L), net.eval().predict(L))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bins": 4}, "num_bins 4: use 5 to 2025"),
        ({"grid": 10.0, "num_bins": 600}, "num_bins 600: use 5 to 529"),
        ({"lam": 1.5}, "lam 1.5"),
        ({"temperature": 0.0}, "temperature 0.0"),
    ],
)
def test_an_invalid_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Classifier(**options)


def test_the_experiments_differ_only_in_rebalancing():
    faces = drawn()
    data = course_data(faces, split_faces(faces), copies=1, seed=4)
    plain, rebalanced = (
        train_experiment(f"classifier/{name}", data, PROFILES["quick"], num_epochs=1)
        for name in ("plain", "rebalanced")
    )
    assert (plain.net.lam, rebalanced.net.lam) == (1.0, 0.5)
    assert torch.equal(plain.net.centers, rebalanced.net.centers)
    assert plain.experiment.recipe(3) == rebalanced.experiment.recipe(3)
    assert str(plain.net) != str(
        rebalanced.net
    )  # a checkpoint fits only its own experiment
    regressor = train_experiment("unet/quarter", data, PROFILES["quick"], num_epochs=1)
    assert str(regressor.net.trunk) == str(plain.net.trunk)


def test_the_histograms_share_axes_and_color_scale():
    wide = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0)) * 20
    fig = ab_histogram({"spread": wide, "one color": plane((10, 10))}, limit=40)
    panels = [ax for ax in fig.axes if ax.get_title()]
    spans = {ax.images[0].get_clim() for ax in panels}
    assert len(panels) == 2 and spans == {(-6.0, 0.0)}  # all pixels in one place: 10^0
    assert {ax.get_xlim() for ax in panels} == {(-40.0, 40.0)}
    plt.close(fig)
