import math
import re
import types

import numpy as np
import pytest
import torch
from engine import (
    assert_same_weights,
    differ,
    fit,
    fresh_photographs,
    photographs,
    recipe,
    small_net,
    weights,
    without_seconds,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import nets
from helpers.data.lab import LabImages
from helpers.evaluation.evaluate import evaluate
from helpers.evaluation.metrics import bootstrap, chrominance_mse
from helpers.files import InputError, WorkFailed
from helpers.nets.baselines import MeanColor
from helpers.training import state as training
from helpers.training.checkpoint import load_checkpoint, previous
from helpers.training.execution import choose_device, set_seed
from helpers.training.loop import epoch_line
from helpers.training.optim import make_optimizer, minibatches
from helpers.training.state import TrainingDiverged

FEW = settings(max_examples=100, deadline=None, database=None)


class Stopped(Exception):
    """Stand-in for Ctrl-C in these tests."""


def stop_after(epoch: int):
    def log(line: str) -> None:
        if line.startswith(f"epoch {epoch:>4} "):
            raise Stopped

    return log


# Minibatches ----------------------------------------------------------------------


@FEW
@given(st.integers(2, 300), st.integers(3, 120), st.integers(0, 50), st.integers(1, 9))
def test_minibatches_visit_every_image_once_in_nearly_equal_parts(
    num_images, batch_size, seed, epoch
):
    batches = list(minibatches(num_images, batch_size, seed, epoch))
    sizes = [len(batch) for batch in batches]
    assert sorted(torch.cat(batches).tolist()) == list(range(num_images))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert len(sizes) == math.ceil(num_images / batch_size)


def test_eleven_images_by_ten_are_six_and_five():
    assert [len(batch) for batch in minibatches(11, 10, 0, 1)] == [6, 5]


@pytest.mark.parametrize("num_images", [2, 3, 5, 11])
def test_no_minibatch_of_two_is_left_with_one_image(num_images):
    batches = list(minibatches(num_images, 2, 0, 1))
    assert min(len(batch) for batch in batches) >= 2
    assert sorted(torch.cat(batches).tolist()) == list(range(num_images))


def test_minibatches_are_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return torch.cat(list(minibatches(100, 10, seed, epoch))).tolist()

    assert order(1, 2) == order(1, 2)
    torch.manual_seed(99)
    assert order(1, 2) == order(1, 2)
    different = {tuple(order(seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(different) == 25
    assert order(0, 1) != list(range(100))


# Fit ------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["onecycle", "constant"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_learns(optimizer, schedule):
    lr = {"sgd": 0.1}.get(optimizer, 0.02)
    if schedule == "constant":
        lr /= 2
    train = photographs(12)
    history = fit(
        small_net(),
        train,
        recipe=recipe(num_epochs=30, lr=lr, optimizer=optimizer, schedule=schedule),
    )
    errors = history["train_mse"]
    assert errors[-1] < 0.5 * errors[0]
    assert errors[-1] < evaluate(MeanColor(train), train).mse.mean


def test_the_history_has_one_number_an_epoch_of_what_was_asked():
    train, test = photographs(8), photographs(4, seed=1)
    net = small_net()
    history = fit(net, train, test, recipe=recipe(), validation=photographs(3, 2))
    names = "epoch lr train_mse seconds test_mse test_mean_mse validation_mse "
    names += "validation_mean_mse"
    assert set(history) == set(names.split())
    assert history["epoch"] == [1, 2, 3, 4]
    assert all(len(values) == 4 for values in history.values())
    assert all(type(x) in (int, float) for values in history.values() for x in values)
    alone = fit(small_net(), train, recipe=recipe())
    assert set(alone) == {"epoch", "lr", "train_mse", "seconds"}


def test_the_test_errors_in_the_history_are_those_of_evaluate():
    train, test = photographs(8), photographs(4, seed=1)
    net = small_net()
    history = fit(net, train, test, recipe=recipe())
    assert history["test_mse"][-1] == pytest.approx(evaluate(net, test).mse.mean)
    assert history["test_mse"][0] != history["test_mse"][-1]


def test_the_training_error_is_the_mean_over_images_on_scale_s():
    train = photographs(11)  # minibatches of 6 and 5: an unweighted mean would differ
    net = small_net(batchnorm=False, head="tanh")
    expected = evaluate(net, train).mse.mean
    still = recipe(num_epochs=1, batch_size=10, lr=0.0, optimizer="sgd")
    history = fit(net, train, recipe=still)
    assert history["train_mse"] == [pytest.approx(expected, rel=1e-5)]


def test_the_test_part_changes_nothing_in_the_training():
    train = photographs(8)
    with_test, without = small_net(), small_net()
    one = fit(with_test, train, photographs(4, seed=1), recipe=recipe())
    other = fit(without, train, recipe=recipe())
    assert one["train_mse"] == other["train_mse"]
    assert_same_weights(weights(with_test), weights(without))


def test_the_same_seed_trains_to_equal_bits_and_another_does_not():
    train, results = photographs(11), []
    for noise, seed in ((1, 0), (2, 0), (1, 5)):
        net = small_net()
        torch.manual_seed(noise)  # earlier random numbers must not matter
        fit(net, train, recipe=recipe(), seed=seed)
        results.append(weights(net))
    assert_same_weights(results[0], results[1])
    assert differ(results[0], results[2])


def test_the_scale_is_fitted_to_the_training_part():
    train = photographs(8)
    net = small_net(head="linear")
    fit(net, train, photographs(4, seed=1), recipe=recipe(num_epochs=1))
    expected = train.ab.float().mean(dim=(0, 2, 3)).tolist()
    assert net.scale.offset.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("number", [2, 3, 5])
@pytest.mark.parametrize("name", ["colorizer", "unet"])
def test_a_handful_of_images_trains_with_batchnorm(name, number):
    options = {"colorizer": {"num_down": 2}, "unet": {"base": 2, "levels": 2}}[name]
    history = fit(
        nets.build(name, **options), photographs(number), recipe=recipe(batch_size=50)
    )
    assert np.isfinite(history["train_mse"]).all()


def test_a_minibatch_of_two_trains_where_batchnorm_sees_one_pixel():
    net = small_net(num_down=4)  # 16 -> 1
    history = fit(net, photographs(5), recipe=recipe(batch_size=2))
    assert np.isfinite(history["train_mse"]).all()


def test_one_image_is_too_few():
    with pytest.raises(InputError, match="at least 2 images"):
        fit(small_net(), photographs(1), recipe=recipe())


@pytest.mark.parametrize("head", ["relu", "linear"])
@pytest.mark.parametrize("kind", ["identical", "gray"])
def test_images_that_are_all_equal_or_all_gray_keep_finite_errors(kind, head):
    train = photographs(6)
    if kind == "identical":
        train = train[torch.zeros(6, dtype=torch.long)]
    else:
        train = LabImages(train.L, torch.zeros_like(train.ab))
    history = fit(small_net(head=head), train, train, recipe=recipe())
    for name in ("train_mse", "test_mse"):
        assert np.isfinite(history[name]).all()


def test_no_epochs_change_nothing():
    net = small_net()
    before = weights(net)
    assert not any(fit(net, photographs(), recipe=recipe(num_epochs=0)).values())
    assert_same_weights(weights(net), before)


@pytest.mark.parametrize("num_epochs", [1, 2])
@pytest.mark.parametrize("number", [2, 6])
def test_the_shortest_schedules_work(num_epochs, number):
    history = fit(
        small_net(), photographs(number), recipe=recipe(num_epochs=num_epochs)
    )
    assert len(history["lr"]) == num_epochs
    assert all(0 < lr <= 0.01 for lr in history["lr"])


def test_the_log_gets_one_line_an_epoch():
    lines = []
    fit(small_net(), photographs(), recipe=recipe(num_epochs=3), log=lines.append)
    assert len(lines) == 3
    assert [line[:15] for line in lines] == [f"epoch    {i} of 3" for i in (1, 2, 3)]


def test_an_epoch_line_names_each_part():
    row = {"epoch": 7, "train_mse": 1.5e-3, "test_mse": 2e-3, "seconds": 0.25}
    line = "epoch    7 of 20  train 1.500e-03  test 2.000e-03  0.2 s"
    assert epoch_line(row, 20) == line
    row["validation_mse"] = 3e-3
    assert "  validation 3.000e-03  test 2.000e-03" in epoch_line(row, 20)


# Divergence -----------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_and_names_the_epoch():
    train = photographs(8)
    train.ab[5, 0, 3, 3] = math.nan
    with pytest.raises(TrainingDiverged, match=r"^epoch 1, step \d of 2: the loss"):
        fit(small_net(head="tanh"), train, recipe=recipe())


def test_a_rate_that_is_far_too_high_stops_and_keeps_the_last_checkpoint(tmp_path):
    path, lines = tmp_path / "checkpoint.pt", []
    wild = recipe(num_epochs=50, lr=1e9, optimizer="sgd", schedule="constant")
    net = small_net(head="linear", batchnorm=False)
    with pytest.raises(TrainingDiverged) as caught:
        fit(net, photographs(4), recipe=wild, checkpoint=path, log=lines.append)
    assert str(caught.value).startswith(f"epoch {len(lines) + 1}, step 1 of 1: ")
    assert "(learning rate 1e+09)" in str(caught.value)
    assert isinstance(caught.value, WorkFailed)
    assert path.exists() == bool(lines)


# Validation and patience ----------------------------------------------------------


def opposite(images: LabImages) -> LabImages:
    """Images colored unlike the training set: more training makes the error worse."""
    return LabImages(images.L, -3 * images.ab)


def test_patience_needs_a_validation_part():
    with pytest.raises(ValueError, match="patience needs a validation set"):
        fit(small_net(), photographs(), photographs(), recipe=recipe(patience=2))


def test_patience_stops_so_many_epochs_after_the_best():
    train = photographs(12)
    history = fit(
        small_net(),
        train,
        recipe=recipe(num_epochs=40, patience=3),
        validation=opposite(train),
    )
    best = history["epoch"][int(np.argmin(history["validation_mse"]))]
    assert len(history["epoch"]) == best + 3 < 40


def test_the_weights_of_the_best_epoch_are_kept():
    train, net = photographs(12), small_net()
    validation = opposite(train)
    history = fit(
        net, train, recipe=recipe(num_epochs=6, lr=0.05), validation=validation
    )
    errors = history["validation_mse"]
    assert errors[-1] > min(errors)
    assert len(errors) == 6
    assert evaluate(net, validation).mse.mean == pytest.approx(min(errors))


def test_without_validation_the_last_weights_are_kept():
    train, net = photographs(12), small_net()
    test = opposite(train)
    history = fit(net, train, test, recipe=recipe(num_epochs=6, lr=0.05))
    assert evaluate(net, test).mse.mean == pytest.approx(history["test_mse"][-1])
    assert history["test_mse"][-1] > min(history["test_mse"])


# Stop and resume ------------------------------------------------------------------


def train_once(path=None, log=None, seed=0, with_validation=False, **changes):
    """Train a small net; return (weights, history without seconds)."""
    net = small_net(seed, head="linear")
    history = fit(
        net,
        photographs(11),
        photographs(5, seed=1),
        recipe=recipe(num_epochs=5, **changes),
        seed=3,
        validation=photographs(4, seed=2) if with_validation else None,
        checkpoint=path,
        log=log,
    )
    return weights(net), without_seconds(history)


@pytest.mark.parametrize("epoch", [1, 3, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adam", "schedule": "constant"},
        {"optimizer": "sgd", "weight_decay": 1e-4},
        {"with_validation": True},
        {"with_validation": True, "patience": 2, "lr": 0.05},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "adamw",
)
def test_a_stopped_training_goes_on_to_equal_bits(tmp_path, changes, epoch):
    path = tmp_path / "checkpoint.pt"
    unbroken, expected = train_once(**changes)
    if epoch <= len(expected["epoch"]):
        with pytest.raises(Stopped):
            train_once(path, stop_after(epoch), **changes)
    resumed, history = train_once(path, seed=77, **changes)
    assert history == expected
    assert_same_weights(resumed, unbroken)


def test_a_training_stopped_after_every_epoch_goes_on_to_equal_bits(tmp_path):
    path = tmp_path / "checkpoint.pt"
    unbroken, expected = train_once()
    for epoch in range(1, 6):
        with pytest.raises(Stopped):
            train_once(path, stop_after(epoch))
    resumed, history = train_once(path)
    assert history == expected
    assert_same_weights(resumed, unbroken)


def test_a_stop_in_mid_epoch_goes_on_from_the_last_whole_epoch(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    unbroken, expected = train_once()
    really_forward, steps = nets.Colorizer.forward, []

    def forward(net, L):
        if net.training:
            steps.append(len(L))
            if len(steps) == 8:  # three minibatches per epoch: within the third
                raise Stopped
        return really_forward(net, L)

    monkeypatch.setattr(nets.Colorizer, "forward", forward)
    with pytest.raises(Stopped):
        train_once(path)
    monkeypatch.setattr(nets.Colorizer, "forward", really_forward)
    assert load_checkpoint(path)["history"]["epoch"] == [1, 2]
    resumed, history = train_once(path)
    assert history == expected
    assert_same_weights(resumed, unbroken)


@pytest.mark.filterwarnings("ignore:.*damaged, using")
def test_a_damaged_checkpoint_costs_one_epoch_and_no_bit(tmp_path):
    path = tmp_path / "checkpoint.pt"
    unbroken, expected = train_once()
    with pytest.raises(Stopped):
        train_once(path, stop_after(3))
    path.write_bytes(path.read_bytes()[:-5])
    lines = []
    resumed, history = train_once(path, lines.append)
    assert len(lines) == 3  # 3, 4 and 5
    assert history == expected
    assert_same_weights(resumed, unbroken)


@pytest.mark.parametrize("changes", [{}, {"with_validation": True, "patience": 1}])
def test_a_finished_training_returns_at_once_with_its_weights(tmp_path, changes):
    path = tmp_path / "checkpoint.pt"
    changes = changes | {"lr": 0.05}
    trained, expected = train_once(path, **changes)
    lines, written = [], path.read_bytes()
    again, history = train_once(path, lines.append, seed=77, **changes)
    assert lines == []
    assert history == expected
    assert_same_weights(again, trained)
    assert path.read_bytes() == written


def test_training_without_a_checkpoint_is_the_same_and_writes_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    trained, expected = train_once()
    assert list(tmp_path.iterdir()) == []
    with_checkpoint, history = train_once(tmp_path / "checkpoint.pt")
    assert history == expected
    assert_same_weights(with_checkpoint, trained)
    assert previous(tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"num_epochs": 6},
        {"num_epochs": 1},
        {"batch_size": 5},
        {"lr": 0.02},
        {"optimizer": "adam"},
        {"schedule": "constant"},
        {"weight_decay": 0.0},
    ],
    ids=lambda change: "-".join(map(str, change.items())),
)
def test_a_checkpoint_of_another_recipe_is_refused_and_the_change_named(
    tmp_path, change
):
    path = tmp_path / "checkpoint.pt"
    fit(small_net(), photographs(), recipe=recipe(num_epochs=2), checkpoint=path)
    written, net = path.read_bytes(), small_net()
    before = weights(net)
    changed = recipe(**({"num_epochs": 2} | change))
    with pytest.raises(InputError) as caught:
        fit(net, photographs(), recipe=changed, checkpoint=path)
    ((name, value),) = change.items()
    text = str(caught.value)
    assert text.startswith(f"{path}: belongs to another training run ({name} was ")
    assert f"is now {value}" in text
    assert "\n" not in text
    assert path.read_bytes() == written
    assert_same_weights(weights(net), before)


def refusal(tmp_path, net=None, train=None, seed=0, **options) -> str:
    """Return the error message for a checkpoint that belongs to another training run."""
    path = tmp_path / "checkpoint.pt"
    fit(small_net(), photographs(), recipe=recipe(), checkpoint=path)
    with pytest.raises(InputError) as caught:
        fit(
            net or small_net(),
            train or photographs(),
            recipe=recipe(),
            seed=seed,
            checkpoint=path,
            **options,
        )
    return str(caught.value)


def test_a_checkpoint_of_another_seed_is_refused(tmp_path):
    assert "seed was 0 and is now 1" in refusal(tmp_path, seed=1)


def test_a_checkpoint_of_more_or_other_images_is_refused(tmp_path):
    more = refusal(tmp_path, train=photographs(12))
    assert "training images was 11 and is now 12" in more
    other = refusal(tmp_path / "b", train=photographs(seed=9))
    assert "of the training images" in other


def test_a_checkpoint_of_the_same_images_in_other_colors_is_refused(tmp_path):
    images = photographs()
    text = refusal(tmp_path, train=LabImages(images.L, -images.ab))
    assert "training images" in text


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    for i, options in enumerate([{"maps": 4}, {"head": "tanh"}, {"batchnorm": False}]):
        text = refusal(tmp_path / str(i), net=small_net(**options))
        assert "another training run (network)" in text


def test_a_checkpoint_of_other_labels_is_refused(tmp_path):
    text = refusal(tmp_path, net=small_net(head="sigmoid", labels="tanh"))
    assert "another training run (network)" in text


# Evaluate -------------------------------------------------------------------------


def test_the_error_is_the_mean_square_on_scale_s():
    images = photographs(5)
    net = small_net().eval()
    with torch.no_grad():
        ab_hat = net.predict(images.L)
    expected = ((ab_hat - images.ab.float()) / 255).square().mean(dim=(1, 2, 3))
    result = evaluate(net, images)
    assert torch.allclose(result.per_image, expected, rtol=1e-4)
    assert result.mse.mean == pytest.approx(expected.mean().item(), rel=1e-4)
    assert result.mse == bootstrap(result.per_image)
    assert torch.allclose(result.prediction, ab_hat, atol=1e-4)
    assert not result.prediction.requires_grad


def test_a_regressor_is_tested_on_the_mean_chrominance():
    images = photographs(4, side=128)
    net = nets.Regressor(head="tanh")
    result = evaluate(net, images)
    truth = images.ab.float().mean(dim=(2, 3))
    assert result.prediction.shape == (4, 2)
    expected = chrominance_mse(result.prediction, truth)
    assert torch.allclose(result.per_image, expected, rtol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_error_does_not_depend_on_the_batch_size(batch_size):
    images, net = photographs(7), small_net().train()
    fit(net, images, recipe=recipe(num_epochs=1))
    whole = evaluate(net, images, batch_size=7)
    result = evaluate(net, images, batch_size)
    assert torch.allclose(result.prediction, whole.prediction, atol=1e-3)
    assert result.mse.mean == pytest.approx(whole.mse.mean, rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_leaves_mode_weights_and_statistics(training):
    net = small_net().train(training)
    before = weights(net)
    evaluate(net, photographs())
    assert all(module.training is training for module in net.modules())
    assert_same_weights(weights(net), before)


def test_evaluate_leaves_a_frozen_layer_frozen():
    net = small_net().train()
    net.down[1].eval()
    evaluate(net, photographs())
    assert net.training
    assert not net.down[1].training


def test_evaluate_restores_the_mode_after_an_error():
    net = small_net().train()
    with pytest.raises(RuntimeError):
        evaluate(net, LabImages(torch.zeros(2, 5, 16, 16), torch.zeros(2, 2, 16, 16)))
    assert net.training


def test_a_baseline_is_evaluated_like_a_network():
    images = photographs(6)
    mean = images.ab.float().mean(dim=(0, 2, 3)).view(2, 1, 1)
    expected = ((images.ab.float() - mean) / 255).square().mean().item()
    assert evaluate(MeanColor(images), images).mse.mean == pytest.approx(
        expected, rel=1e-3
    )


# Recipes and devices --------------------------------------------------------------


def rates(**changes) -> list[float]:
    """Return the learning rate at each of 20 steps, and after them."""
    net = small_net()
    optimizer, scheduler = make_optimizer(net, recipe(**changes), 5)
    found = []
    for _ in range(20):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_a_constant_rate_stays():
    assert rates(schedule="constant", lr=0.003) == [0.003] * 21


def test_one_cycle_warms_up_to_the_rate_and_ends_near_zero():
    found = rates(schedule="onecycle", lr=0.01)
    peak = int(np.argmax(found))
    assert max(found) == pytest.approx(0.01, rel=0.02)
    assert 3 <= peak <= 8
    assert found[0] < 0.001
    assert found[19] < 1e-6
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:20] == sorted(found[peak:20], reverse=True)


def test_one_cycle_may_end_at_a_share_of_the_rate():
    found = rates(schedule="onecycle", lr=0.01, lr_end=0.05)
    assert found[19] == pytest.approx(0.0005)
    assert found[:4] == rates(schedule="onecycle", lr=0.01)[:4]
    assert min(found) == found[0] < 0.0005


def test_the_optimizers_are_torch_s_with_the_recipe_s_numbers():
    kinds = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    for name, kind in kinds.items():
        changes = {"optimizer": name, "weight_decay": 0.02, "schedule": "constant"}
        optimizer, _ = make_optimizer(small_net(), recipe(**changes), 3)
        assert type(optimizer) is kind
        assert optimizer.defaults["lr"] == 0.01
        assert optimizer.defaults["weight_decay"] == 0.02
        assert optimizer.defaults.get("momentum", 0.9) == 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer 'lion': use adamw, adam, sgd or muon"),
        ({"schedule": "cosine"}, "schedule 'cosine': use onecycle or constant"),
    ],
)
def test_an_unknown_word_in_a_recipe_is_an_input_error(change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fit(small_net(), photographs(), recipe=recipe(**change))


@pytest.mark.parametrize(
    ("asked", "available", "answer", "note"),
    [
        ("auto", True, "cuda", False),
        ("auto", False, "cpu", False),
        ("cpu", True, "cpu", False),
        ("cuda", True, "cuda", False),
        ("cuda", False, "cpu", True),
    ],
)
def test_the_device_is_the_gpu_where_asked_for_and_there(
    monkeypatch, capsys, asked, available, answer, note
):
    there = types.SimpleNamespace(is_available=lambda: available)
    monkeypatch.setattr(torch, "cuda", there)
    assert choose_device(asked) == answer
    assert ("no CUDA device" in capsys.readouterr().out) is note


def test_an_unknown_device_is_an_input_error():
    with pytest.raises(InputError, match="device 'tpu': unknown; use auto, cpu or"):
        choose_device("tpu")


def test_set_seed_makes_torch_repeat_itself():
    set_seed(4)
    one = torch.rand(5)
    set_seed(4)
    assert torch.equal(torch.rand(5), one)
    assert not torch.equal(torch.rand(5), one)


def test_the_last_epochs_are_plain_where_the_recipe_says_so(monkeypatch):
    seen = []
    plain = training.only_flips
    monkeypatch.setattr(
        training, "only_flips", lambda aug_params: seen.append(1) or plain(aug_params)
    )
    ends = []
    fit(
        small_net(),
        fresh_photographs(),
        recipe=recipe(num_epochs=5, flip_only_end=0.4),
        after_epoch=lambda row, net: ends.append(len(seen)),
    )
    assert ends == [0, 0, 0, 1, 2]
    assert not recipe(num_epochs=5).is_flip_only(5)
