import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from helpers import nets
from helpers.nets.base import evaluation_mode
from helpers.training import narrow as engine
from helpers.training.execution import Execution, default_execution
from helpers.training.narrow import narrow

pytest.importorskip("numba")

slow = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ACTIVATIONS = [None, nn.ReLU(), nn.LeakyReLU(0.01), nn.Sigmoid(), nn.Tanh()]


@st.composite
def stages(draw, maps_in):
    """Draw the layers of a stage of any kind, and its number of maps."""
    kernel, stride = (
        draw(st.sampled_from([1, 2, 3, 4, 5, 7])),
        draw(st.sampled_from([1, 2])),
    )
    maps, padding = draw(st.integers(1, 16)), draw(st.integers(0, kernel - 1))
    kind = draw(st.sampled_from([nn.Conv2d, nn.ConvTranspose2d]))
    has_norm = draw(st.booleans())
    bias = draw(st.booleans()) and not has_norm  # its gradient would be 0 plus rounding
    layers = [kind(maps_in, maps, kernel, stride, padding, bias=bias)]
    if has_norm:
        # A small eps would amplify the rounding of a few nearly equal values.
        momentum, tracks = draw(st.sampled_from([0.1, 0.0, None])), draw(st.booleans())
        norm = nn.BatchNorm2d(maps, 0.1, momentum, track_running_stats=tracks)
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)  # of both signs
        layers.append(norm)
    act = draw(st.sampled_from(ACTIVATIONS))
    layers += [act] if act else []
    layers += [nn.MaxPool2d(2)] if draw(st.booleans()) else []
    return layers, maps


@st.composite
def networks(draw):
    """Draw a chain of stages and an input that it can process."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    maps = draw(st.integers(1, 3))
    size = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    x = torch.randn(draw(st.sampled_from([1, 2, 7, 8, 9, 16, 33])), maps, *size)
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        more, maps = draw(stages(maps))
        layers += more
    return nn.Sequential(*layers), x


def run(net, x, mode=True, dtype=torch.float32, loss=F.mse_loss, shape=None):
    """Return outputs, loss, gradients and buffers of one step, by name.

    shape  of the output, if it is known: asking for it would compute the output before the
           loss, and not together with it
    """
    net = net.to(dtype).train(mode)
    x = x.to(dtype, copy=True).requires_grad_()
    y = net(x)
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(shape or y.shape, generator=generator).to(dtype)
    error = loss(y, target)
    error.backward()
    found = {"y": y.detach() + 0, "loss": error.detach(), "input": x.grad}
    found |= {name: p.grad for name, p in net.named_parameters()}
    return found | {name: b.clone() for name, b in net.named_buffers()}


def assert_agree(net, x, mode=True, tolerance=1e-5, loss=F.mse_loss):
    """Compare the engine with PyTorch; the largest value of each tensor sets its scale.

    Where float32 itself is less exact, ten times PyTorch's own error counts. A gradient can
    be a small difference of large terms (BatchNorm removes a constant), so a tenth of the
    network's largest gradient counts, too.
    """
    exact = run(copy.deepcopy(net), x, mode, torch.float64, loss)
    known, copied = run(copy.deepcopy(net), x, mode, loss=loss), copy.deepcopy(net)
    with narrow(copied):
        found = run(copied, x, mode, loss=loss, shape=known["y"].shape)
    assert found.keys() == known.keys()
    gradients = {"input", *(name for name, _ in net.named_parameters())}
    largest = max(
        exact[n].abs().max().item() for n in gradients if exact[n] is not None
    )
    for name, value in known.items():
        assert (value is None) == (found[name] is None), name
        if value is None or not value.is_floating_point():
            assert value is None or torch.equal(value, found[name]), name
            continue
        assert found[name].shape == value.shape, name
        scale = exact[name].abs().max().item() + 1e-6
        scale += largest / 10 if name in gradients else 0
        error = (found[name] - exact[name]).abs().max().item()
        rounding = (value - exact[name]).abs().max().item()
        assert error <= tolerance * scale + 10 * rounding, name


def test_the_loss_is_computed_together_with_the_output(monkeypatch):
    """Otherwise, these tests would not compare the way that training takes."""
    engine.prepare()
    joined, really_compute = [], engine._Delayed.compute

    def compute(y, target=None):
        joined.append(target is not None)
        return really_compute(y, target)

    monkeypatch.setattr(engine._Delayed, "compute", compute)
    assert_agree(nn.Sequential(nn.Conv2d(1, 3, 3, padding=1)), torch.rand(9, 1, 8, 8))
    assert joined == [True, False]  # `run` then returns the output, too


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(1, 8, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(8, 2, 3)],
        [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)],
        [nn.Conv2d(3, 2, 3)],
        [nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.ConvTranspose2d(5, 2, 4, 2, 1)],
    ],
)
def test_layers_that_do_not_fit_raise_pytorch_s_error(layers):
    net, x = nn.Sequential(*layers), torch.rand(9, 1, 16, 16)
    with pytest.raises(RuntimeError) as known:
        net(x)
    with narrow(net), pytest.raises(RuntimeError) as found:
        net(x).sum()
    assert str(found.value) == str(known.value)


@slow
@given(networks(), st.booleans())
def test_outputs_gradients_and_statistics_are_those_of_pytorch(given_network, mode):
    net, x = given_network
    try:
        run(copy.deepcopy(net), x, mode, torch.float64)
        run(copy.deepcopy(net), x, mode)
    except (RuntimeError, ValueError):  # an output of size 0, or one value per channel
        assume(False)
    assert_agree(net, x, mode)


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("pooled_colorizer", {"head": "sigmoid"}),
        ("pooled_colorizer", {"head": "tanh"}),
        ("pooled_regressor", {}),
        ("guided_colorizer", {}),
        ("colorizer", {"num_down": 4}),
        ("colorizer", {"num_down": 3, "upsample": "nearest", "batchnorm": False}),
        ("regressor", {"batchnorm": True, "head": "linear"}),
        ("stack", {"maps": 16, "tanh": True}),
        ("stack", {"maps": 8, "batchnorm": "everywhere", "layers": 4}),
        ("strided_colorizer", {"maps": (4, 8, 16, 32)}),
        ("unet", {"base": 8}),
    ],
)
def test_every_network_agrees_in_both_modes(network, options):
    torch.manual_seed(0)
    net = nets.build(network, **options)
    x = torch.rand(9, 1, net.size, net.size)
    for mode in (True, False):
        found = copy.deepcopy(net).train(mode)
        with torch.no_grad():
            known = copy.deepcopy(net).train(mode)(x)
            with narrow(found):
                torch.testing.assert_close(found(x), known, rtol=1e-4, atol=1e-5)


def chain(*layers, maps=2):
    return nn.Sequential(nn.Conv2d(1, maps, 3, 2, 1), *layers)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_result_depends_neither_on_threads_nor_on_chance(threads):
    net, x = (
        chain(nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3)),
        torch.rand(50, 1, 9, 9),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with narrow(net):
            first, second = run(copy.deepcopy(net), x), run(copy.deepcopy(net), x)
    finally:
        torch.set_num_threads(before)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_stay_so(value):
    for layers in ([nn.ReLU(), nn.MaxPool2d(2)], [nn.Sigmoid()], [nn.BatchNorm2d(2)]):
        net, x = chain(*layers), torch.rand(8, 1, 8, 8)
        x[0, 0, 3, 3] = value
        known = net(x).isnan()
        with narrow(net):
            assert torch.equal(net(x).isnan(), known)


def test_one_column_has_no_odd_columns():
    layers = [nn.ConvTranspose2d(1, 2, 1, 2, bias=False), nn.BatchNorm2d(2)]
    assert_agree(nn.Sequential(*layers), torch.randn(2, 1, 1, 1))


def test_frozen_parameters_get_no_gradient():
    net, x = (
        chain(nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3)),
        torch.rand(8, 1, 9, 9),
    )
    for frozen in (
        ["0.weight"],
        ["3.weight", "3.bias"],
        ["1.weight", "1.bias"],
        ["0.bias"],
    ):
        some = copy.deepcopy(net)
        for name, parameter in some.named_parameters():
            parameter.requires_grad_(name not in frozen)
        assert_agree(some, x, tolerance=1e-4)


def test_the_gradient_of_any_loss_is_that_of_pytorch():
    net, x = chain(nn.Sigmoid()), torch.rand(8, 1, 9, 9)
    for loss in (
        lambda y, target: F.l1_loss(y, target),
        lambda y, target: 3 * F.mse_loss(y, target),
        lambda y, target: F.mse_loss(y, target, reduction="sum"),
        lambda y, target: F.mse_loss(y, target) + y.mean(),
        lambda y, target: (y.flatten(1) - target.flatten(1)).square().mean(),
        lambda y, target: F.mse_loss(torch.cat([y, y]), torch.cat([target, target])),
    ):
        assert_agree(net, x, loss=loss)


def test_a_hook_runs_and_sees_its_layer_s_output():
    net, seen = chain(nn.BatchNorm2d(2), nn.ReLU()), []
    net[1].register_forward_hook(
        lambda module, given, output: seen.append(output.shape)
    )
    with narrow(net):
        net(torch.rand(4, 1, 8, 8))
    assert seen == [(4, 2, 4, 4)]


def test_a_weight_changed_before_the_backward_pass_is_an_error_as_in_pytorch():
    net = chain(nn.ReLU(), nn.Conv2d(2, 1, 1))
    with narrow(net):
        error = F.mse_loss(net(torch.rand(4, 1, 8, 8)), torch.zeros(4, 1, 4, 4))
        with torch.no_grad():
            net[0].weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            error.backward()


def test_an_input_changed_before_the_output_is_used_is_an_error():
    net, x = chain(nn.ReLU(), nn.Conv2d(2, 1, 1)), torch.rand(4, 1, 8, 8)
    with narrow(net):
        y = net(x)
        x.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum()


def test_an_output_first_used_without_gradients_has_gradients_later():
    net = chain(nn.ReLU(), nn.Conv2d(2, 1, 1))
    with narrow(net):
        y = net(torch.rand(4, 1, 8, 8))
        with torch.no_grad():
            y.sum()
        y.sum().backward()
    assert net[0].weight.grad is not None


def test_a_weight_changed_before_the_output_is_used_is_an_error():
    net = chain(nn.ReLU(), nn.Conv2d(2, 1, 1))
    with narrow(net):
        y = net(torch.rand(4, 1, 8, 8))
        with torch.no_grad():
            net[0].weight.mul_(2)
        with pytest.raises(RuntimeError, match="before the network's output was used"):
            y.sum()


def test_one_value_per_channel_is_an_error_as_in_pytorch():
    net, x = chain(nn.BatchNorm2d(2), nn.ReLU()), torch.rand(1, 1, 1, 1)
    for compute in (net, lambda x: engine._forward(net, x)):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            compute(x)


def test_batchnorm_counts_the_minibatch_even_if_the_output_is_not_used():
    net = chain(nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1))
    with narrow(net):
        net(torch.rand(4, 1, 8, 8))
    assert net[1].num_batches_tracked == 1
    assert net[1].running_mean.abs().max() > 0


def test_only_the_computation_is_swapped_and_it_is_put_back():
    net = nets.build("colorizer", num_down=3)
    state, text = copy.deepcopy(net.state_dict()), str(net)
    with pytest.raises(ZeroDivisionError), narrow(net):
        assert str(net) == text
        assert net.state_dict().keys() == state.keys()
        raise ZeroDivisionError
    assert not any("forward" in vars(module) for module in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])


def test_what_the_loops_do_not_compute_is_left_to_pytorch():
    x = torch.rand(4, 1, 8, 8)
    for layers in (
        [nn.Conv2d(1, 17, 3)],
        [nn.Conv2d(1, 2, 3, dilation=2)],
        [nn.Conv2d(1, 2, (3, 1))],
        [nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")],
        [nn.ConvTranspose2d(1, 2, 3, 2, output_padding=1)],
        [nn.Conv2d(1, 2, 3), nn.MaxPool2d(3)],
        [nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, ceil_mode=True)],
        [nn.Conv2d(1, 2, 3), nn.LeakyReLU(-1.0)],
        [nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2)],
    ):
        assert_agree(nn.Sequential(*layers), x)
    double = nn.Sequential(nn.Conv2d(1, 2, 3)).double()
    with narrow(double):
        assert double(x.double()).dtype == torch.float64


def test_the_default_is_compiled_loops_for_narrow_networks_only(monkeypatch):
    small, large = nets.build("colorizer"), nets.build("unet", base=8)
    assert default_execution(small) == Execution(narrow=True)
    assert default_execution(large) == Execution()
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="numba is not installed, so .* several times"):
        assert default_execution(small) == Execution()
    with (
        pytest.warns(UserWarning, match="numba is not installed"),
        evaluation_mode(small),
        Execution(narrow=True).active(small),
    ):  # a checkpoint made with numba
        assert small(torch.rand(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_no_result_contains_uninitialized_memory(monkeypatch):
    from helpers.training.narrow import stages as module

    really = module._memory

    def poisoned(size):
        memory = really(size)
        memory[:] = np.nan
        return memory

    monkeypatch.setattr(module, "_memory", poisoned)
    for network in ("pooled_colorizer", "colorizer"):
        net, x = nets.build(network), torch.rand(11, 1, 64, 64)
        with narrow(net):
            assert all(v is None or v.isfinite().all() for v in run(net, x).values())


def test_a_damaged_cache_is_removed_and_the_loops_are_compiled_again(
    monkeypatch, tmp_path
):
    import numba

    from helpers.training.narrow import compiling

    damaged, calls = tmp_path / "some" / "kernels.backward.nbi", []
    damaged.parent.mkdir()
    damaged.write_bytes(b"garbage")

    @numba.njit(cache=True)
    def function(x):
        return x

    def use():
        calls.append(None)
        if len(calls) == 1:
            raise EOFError("Ran out of input")
        assert function(1) == 1

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "compile_in_another_process", lambda use: None)
    monkeypatch.setattr(compiling, "_compiled", [function])
    monkeypatch.setattr(engine, "_use_all_loops", use)
    engine.prepare.__wrapped__()
    assert len(calls) == 2
    assert not damaged.exists()
    assert function.stats.cache_hits == {}


def test_another_process_fills_the_cache_once(monkeypatch, tmp_path):
    import numba

    from helpers.training.narrow import compiling

    (tmp_path / "version").mkdir()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "version"))
    note = tmp_path / "note"
    use = f"narrow._use_all_loops; print('used', file=open({str(note)!r}, 'a'))"
    compiling.compile_in_another_process("1 / 0")  # is not taken for done
    for _ in range(2):
        compiling.compile_in_another_process(use)
    assert note.read_text() == "used\n"
    compiling.discard_cache()
    compiling.compile_in_another_process(use)
    assert note.read_text() == "used\nused\n"


def test_the_cache_of_another_version_of_the_loops_is_not_used():
    import numba

    from helpers.training.narrow import compiling

    sources = sorted(compiling.Path(compiling.__file__).parent.glob("*.py"))
    assert len(sources) == 5
    version = compiling.sha256(*(path.read_bytes() for path in sources))[:12]
    assert numba.config.CACHE_DIR.endswith(version)
