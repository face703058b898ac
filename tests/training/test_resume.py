"""A training run stopped anywhere and resumed equals an uninterrupted one, bit for bit."""

import multiprocessing
import os
import random
import signal
import threading

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

from helpers.data.lab import LabImages
from helpers.files import WorkFailed
from helpers.nets.mean_head import MeanHeadUNet
from helpers.training import loop
from helpers.training import state as state_module
from helpers.training.checkpoint import load_checkpoint
from helpers.training.execution import PLAIN, Execution
from helpers.training.signals import StopSignals
from helpers.training.state import TrainingDiverged

FORMS = {
    "plain": PLAIN,
    "narrow": Execution(1, narrow=True),
    "fast": Execution(1, channels_last=True, bf16=True, fused=True),
}
STEPS = 5 * 3  # five epochs of three minibatches

needs_unix = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")


def train(form, path=None, data=fresh_photographs, seed=0, **options):
    """Train a small net; return (weights, history without seconds)."""
    net = small_net(seed, head="linear")
    history = fit(
        net,
        data(11),
        photographs(5, seed=1),
        recipe=recipe(num_epochs=5),
        seed=3,
        execution=FORMS[form],
        checkpoint=path,
        save_every=0.0,  # after each step
        **options,
    )
    return weights(net), without_seconds(history)


def at_step(number, act):
    """Return a `my_share`, called first in each step, that calls `act` in step `number`."""
    taken, really_share = [], loop.distributed.my_share

    def share(index):
        taken.append(None)
        if len(taken) == number:
            act()
        return really_share(index)

    return share


def train_until_killed(form, path, number):
    torch.set_num_threads(1)
    loop.distributed.my_share = at_step(
        number, lambda: os.kill(os.getpid(), signal.SIGKILL)
    )
    train(form, path)


@needs_unix
@pytest.mark.parametrize("form", FORMS)
def test_killed_at_six_random_steps_it_ends_in_equal_bits(form, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    unbroken, expected = train(form)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.training.loop"])
    path, draw = tmp_path / "checkpoint.pt", random.Random(form)
    positions = []
    for _ in range(6):
        child = context.Process(
            target=train_until_killed, args=(form, path, draw.randint(1, 3))
        )
        child.start()
        child.join(120)
        assert child.exitcode in (-signal.SIGKILL, 0)
        if saved := load_checkpoint(path):
            positions.append((saved["epoch"], saved["step"]))
    assert len(set(positions)) >= 3  # it was killed at different points
    assert any(step for _, step in positions)  # and within epochs
    resumed, history = train(form, path, seed=77)
    torch.set_num_threads(threads)
    assert history == expected
    assert_same_weights(resumed, unbroken)


@pytest.mark.parametrize("data", [photographs, fresh_photographs])
@pytest.mark.parametrize("form", FORMS)
def test_stopped_after_any_step_it_ends_in_equal_bits(
    form, data, tmp_path, monkeypatch
):
    unbroken, expected = train(form, data=data)
    for number in range(1, STEPS + 1, 4):
        path = tmp_path / f"{number}.pt"
        with monkeypatch.context() as patch:
            stop = at_step(number, lambda: signal.raise_signal(signal.SIGINT))
            patch.setattr(loop.distributed, "my_share", stop)
            train(form, path, data)
        saved = load_checkpoint(path)
        assert (saved["epoch"] - 1) * 3 + saved["step"] == number
        resumed, history = train(form, path, data, seed=77)
        assert history == expected
        assert_same_weights(resumed, unbroken)


def train_with_dropout(path=None, log=None):
    torch.manual_seed(0)
    net = MeanHeadUNet(base=4, levels=2)
    options = {"checkpoint": path, "log": log, "save_every": 0.0}
    fit(net, fresh_photographs(), recipe=recipe(num_epochs=4), seed=3, **options)
    return weights(net)


def test_dropout_is_the_same_after_a_stop_and_whatever_was_drawn_before(
    tmp_path, monkeypatch
):
    unbroken = train_with_dropout()
    with monkeypatch.context() as patch:
        stop = at_step(5, lambda: signal.raise_signal(signal.SIGINT))
        patch.setattr(loop.distributed, "my_share", stop)
        train_with_dropout(tmp_path / "checkpoint.pt")
    torch.rand(17)
    assert_same_weights(train_with_dropout(tmp_path / "checkpoint.pt"), unbroken)


def test_the_fast_form_really_computes_otherwise():
    assert differ(train("plain")[0], train("fast")[0])


def test_a_checkpoint_goes_on_in_the_form_it_was_started_in(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    unbroken, expected = train("fast")
    stop = at_step(7, lambda: signal.raise_signal(signal.SIGINT))
    with monkeypatch.context() as patch:
        patch.setattr(loop.distributed, "my_share", stop)
        train("fast", path)
    resumed, history = train("plain", path)
    assert history == expected
    assert_same_weights(resumed, unbroken)


# Signals --------------------------------------------------------------------------


def interrupted(monkeypatch, number, act, path=None, **options):
    with monkeypatch.context() as patch:
        patch.setattr(loop.distributed, "my_share", at_step(number, act))
        return train("plain", path, **options)


def test_ctrl_c_returns_the_network_as_trained_so_far(monkeypatch, capsys):
    stop = StopSignals()
    found, history = interrupted(
        monkeypatch, 8, lambda: signal.raise_signal(signal.SIGINT), stop=stop
    )
    assert stop.received == signal.SIGINT
    assert history["epoch"] == [1, 2]
    assert differ(found, weights(small_net(0, head="linear")))
    assert "stopped by SIGINT at epoch 3, step 2" in capsys.readouterr().out


def test_ctrl_c_in_the_first_epoch_returns_an_empty_history(monkeypatch):
    act = lambda: signal.raise_signal(signal.SIGINT)  # noqa: E731
    _, history = interrupted(monkeypatch, 1, act)
    assert not any(history.values())


def test_a_second_ctrl_c_acts_at_once(monkeypatch):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted(monkeypatch, 4, twice)


@needs_unix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
@pytest.mark.parametrize("first", [(), ("SIGINT",)], ids=["alone", "after Ctrl-C"])
def test_term_and_usr1_save_and_then_act(first, name, monkeypatch, tmp_path):
    def told():
        for each in (*first, name):
            signal.raise_signal(getattr(signal, each))

    path, number, seen = tmp_path / "checkpoint.pt", getattr(signal, name), []
    before = signal.signal(number, lambda *_: seen.append(load_checkpoint(path)))
    try:
        lines = []
        interrupted(monkeypatch, 5, told, path, log=lines.append)
    finally:
        signal.signal(number, before)
    (saved,) = seen  # passed on once, after the checkpoint was written
    assert (saved["epoch"], saved["step"]) == (2, 2)
    assert f"stopped by {name} at epoch 2, step 2; run the same command" in lines[-1]


def test_a_signal_to_another_process_stops_this_one_between_two_epochs(monkeypatch):
    calls = []

    def max_of_all(signal_number, due):
        calls.append(None)  # before each epoch, and after each of its three steps
        return [signal.SIGINT if len(calls) == 5 else signal_number, due]

    monkeypatch.setattr(loop.distributed, "max_of_all", max_of_all)
    _, history = train("plain")
    assert history["epoch"] == [1]
    assert len(calls) == 5


def test_the_handlers_are_put_back(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    train("plain")
    assert signal.getsignal(signal.SIGINT) is before
    interrupted(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_another_thread_leaves_signals_alone():
    found = []
    thread = threading.Thread(target=lambda: found.append(train("plain")))
    thread.start()
    thread.join(60)
    assert len(found) == 1


# Losses that are not finite -------------------------------------------------------


def diverging(step: int, monkeypatch, **options):
    """Train with a NaN loss at a step; return (error, weights then and before)."""
    net, seen = small_net(head="linear"), []
    really_loss, really_inputs = net.loss, net.inputs

    def inputs(minibatch):
        seen.append(weights(net))
        return really_inputs(minibatch)

    def loss(y, minibatch):
        value = really_loss(y, minibatch)
        return value * float("nan") if len(seen) == step else value

    monkeypatch.setattr(net, "inputs", inputs)
    monkeypatch.setattr(net, "loss", loss)
    names = [f"face {i}.jpg" for i in range(11)]
    with pytest.raises(TrainingDiverged) as caught:
        fit(net, photographs(), recipe=recipe(), seed=3, names=names, **options)
    return str(caught.value), weights(net), seen[-1]


@pytest.mark.parametrize("step", [1, 5])
def test_the_last_healthy_weights_and_buffers_are_kept(step, monkeypatch):
    text, after, before = diverging(step, monkeypatch)
    assert_same_weights(after, before)
    epoch, within = divmod(step - 1, 3)
    assert text.startswith(f"epoch {epoch + 1}, step {within + 1} of 3: ")
    assert "learning rate" in text


def test_the_files_of_the_minibatch_are_named(monkeypatch):
    text, *_ = diverging(1, monkeypatch)
    from helpers.training.optim import minibatches

    index = minibatches(11, 4, seed=3, epoch=1)[0].tolist()
    assert f"images {', '.join(repr(f'face {i}.jpg') for i in index[:3])}" in text


def test_looking_seldom_goes_back_to_the_last_look(monkeypatch):
    monkeypatch.setattr(state_module, "CHECK_EVERY", {"cpu": 50})
    _, after, before = diverging(5, monkeypatch)  # checks at the end of each epoch
    assert differ(after, before)
    monkeypatch.undo()
    net = small_net(head="linear")
    fit_one = recipe(num_epochs=4)
    stop = at_step(3, lambda: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(loop.distributed, "my_share", stop)
    fit(net, photographs(), recipe=fit_one, seed=3)
    assert_same_weights(after, weights(net))


def test_an_image_that_is_not_a_number_spoils_no_running_average():
    broken = photographs(8)
    broken.ab[5, 0, 3, 3] = float("nan")
    broken.L[5, 0, 3, 3] = float("nan")
    net = small_net(head="tanh")
    with pytest.raises(WorkFailed, match="not finite"):
        fit(net, LabImages(broken.L, broken.ab), recipe=recipe())
    assert all(value.isfinite().all() for value in weights(net).values())
