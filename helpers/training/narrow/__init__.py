"""Fast training of narrow convolutional networks on the CPU.

PyTorch's kernels compute the feature maps of a pixel in the lanes of a SIMD register. A
network with three maps leaves most of the lanes empty. Here, the lanes hold the images of
the minibatch, so they are full whatever the number of maps.

`with narrow(net):` computes the chains of narrow layers in `net` in this way. Only the
computation changes: modules, weights, optimizer and autograd are PyTorch's. A stage is a
convolution or transposed convolution, optionally followed by BatchNorm, an activation and
2x2 max-pooling; a chain is a run of stages in an `nn.Sequential`. Layers that are wide, of
another kind, or have hooks are left to PyTorch.

The output of a chain that ends without BatchNorm or pooling is computed when it is used. If
it is used by `F.mse_loss`, the loss and its gradient are computed in the same pass, so that
no map of the size of the image is stored.

This needs numba, and compiles its loops on first use; numba keeps them in its cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

MAX_MAPS = 16  # wider layers are left to PyTorch
ACTIVATIONS = {  # act and slope; see `Output`
    nn.Identity: (0, 1.0),
    nn.ReLU: (0, 0.0),
    nn.Sigmoid: (1, 1.0),
    nn.Tanh: (2, 1.0),
}
CONVOLUTIONS = nn.Conv2d, nn.ConvTranspose2d
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def is_available() -> bool:
    """Return whether numba is installed."""
    return find_spec("numba") is not None


def is_narrow(net: nn.Module) -> bool:
    """Return whether no convolution in `net`, on the CPU, has more than 16 maps."""
    convolutions = [m for m in net.modules() if isinstance(m, CONVOLUTIONS)]
    maps = [max(m.in_channels, m.out_channels) for m in convolutions]
    is_on_cpu = all(p.device.type == "cpu" for p in net.parameters())
    return is_on_cpu and 0 < max(maps, default=0) <= MAX_MAPS


@contextmanager
def narrow(net: nn.Module) -> Iterator[None]:
    """Compute the narrow layers of `net` with compiled loops, on the CPU in float32.

    They use as many threads as PyTorch. If all layers are narrow, PyTorch itself uses one:
    between two of its operations, its threads wait in a busy loop, which would slow the
    compiled loops down.
    """
    from helpers.training.narrow import stages

    prepare()
    found = [m for m in net.modules() if type(m) is nn.Sequential]
    threads, stages.num_threads = torch.get_num_threads(), torch.get_num_threads()
    for module in found:
        module.forward = partial(_forward, module)
    try:
        torch.set_num_threads(1 if is_narrow(net) else threads)
        yield
    finally:
        torch.set_num_threads(threads)
        for module in found:
            del module.forward


def _forward(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Compute `nn.Sequential.forward`, its narrow stages with compiled loops."""
    rest = list(layers)
    while rest:
        chain, maps = [], x.shape[1] if x.dim() == 4 else 0
        while _is_supported(x) and (stage := _next_stage(rest, maps)):
            chain.append(stage)
            maps = stage[1].out_channels
        if not chain:
            x = rest.pop(0)(x)
            continue
        run = _Run(x, chain)
        last = run.stages[-1]
        if not (rest or last.norm or last.shape.pool) and torch.is_grad_enabled():
            return _Delayed(x, run)
        x = _Chain.apply(x, None, run, *run.params)
    return x


def _is_supported(x: torch.Tensor) -> bool:
    kind = (type(x), x.dtype, x.device.type, x.dim())
    is_plain = kind == (torch.Tensor, torch.float32, "cpu", 4) and x.numel() > 0
    return is_plain and not torch.is_autocast_enabled("cpu")


def _next_stage(layers: list, maps: int) -> tuple | None:
    """Remove the layers of a stage from the list; return its shape, conv and norm.

    maps  those of its input. Layers made for another number are left to PyTorch, which
          raises its own error; the compiled loops would read and write beyond their arrays.
    """
    from helpers.training.narrow.stages import shape_of

    shape = shape_of(layers[0], MAX_MAPS) if layers and _is_bare(layers[0]) else None
    if shape is None or layers[0].in_channels != maps:
        return None
    conv, norm = layers.pop(0), None
    if layers and type(layers[0]) is nn.BatchNorm2d and _is_bare(layers[0]):
        if layers[0].num_features != conv.out_channels:
            return shape, conv, norm
        norm = layers.pop(0)
    if (
        layers
        and type(layers[0]) in (*ACTIVATIONS, nn.LeakyReLU)
        and _is_bare(layers[0])
    ):
        act, slope = ACTIVATIONS.get(type(layers[0]), (0, None))
        slope = layers[0].negative_slope if slope is None else slope
        if slope >= 0:
            shape = replace(shape, act=act, slope=slope)
            layers.pop(0)
    if layers and type(layers[0]) is nn.MaxPool2d and _is_bare(layers[0]):
        pool = layers[0]
        form = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        if (*form, pool.ceil_mode, pool.return_indices) == (2, 2, 0, 1, False, False):
            shape = replace(shape, pool=True)
            layers.pop(0)
    return shape, conv, norm


def _is_bare(layer: nn.Module) -> bool:
    """Return whether a layer has no hooks, which would have to run with it."""
    return not any(getattr(layer, name) for name in HOOKS)


class _Run:
    """A chain's stages in one forward pass; all but the last are computed."""

    def __init__(self, x: torch.Tensor, chain: list):
        from helpers.training.narrow import stages

        self.images = stages.image_output(*x.shape[1:])
        self.z, self.stages, self.params = [stages.array(x).reshape(-1)], [], []
        for shape, conv, norm in chain:
            before = self.images
            if self.stages:
                self.advance()
                before = self.stages[-1].out
            stage = stages.Stage(shape, norm, conv.out_channels, before, len(x))
            self.stages.append(stage)
            of_norm = (norm.weight, norm.bias) if norm is not None else (None, None)
            self.params += [conv.weight, conv.bias, *of_norm]

    def advance(self) -> None:
        """Compute the last stage."""
        self.z.append(self.stages[-1].forward(self.z[-1], *self.params[-4:]))


class _Chain(torch.autograd.Function):
    """The output of a chain or, with a target, its mean squared error."""

    @staticmethod
    def forward(ctx, x, target, run, *params):
        from helpers.training.narrow import kernels, stages

        ctx.stages, ctx.images = run.stages, run.images
        ctx.has_target = target is not None
        ctx.set_materialize_grads(False)
        last, extra = run.stages[-1], []
        if target is None:
            run.advance()
            f = last.out.y
            y = torch.empty(len(x), f.maps, f.height, f.width)
            last.run(
                kernels.finish, f.slots, y.numpy().reshape(-1), run.z[-1], last.out
            )
        else:
            truth = stages.array(target).reshape(-1)
            needs = _needs(ctx, len(run.stages) - 1)
            given = run.z[-1], stages.EMPTY, stages.EMPTY, None, truth, needs
            loss, gradients, *more = last.backward(*given, params[-4:])
            y = torch.tensor(loss / target.numel(), dtype=torch.float32)
            extra = [*gradients[:2], *map(torch.from_numpy, more)]
        z = map(torch.from_numpy, run.z[1:])
        ctx.save_for_backward(x.contiguous(), *z, *extra, *params)
        ctx.num_z = len(run.z)
        if target is None:
            run.z = None  # autograd decides how long they are kept
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        from helpers.training.narrow import kernels, stages

        all_stages, saved, needs = ctx.stages, ctx.saved_tensors, ctx.needs_input_grad
        z = [tensor.numpy().reshape(-1) for tensor in saved[: ctx.num_z]]
        params = saved[len(saved) - 4 * len(all_stages) :]
        gradients, number = [None] * len(params), len(all_stages)
        if dy is None:
            return None, None, None, *gradients
        if ctx.has_target:
            scale = (lambda t: t) if dy.item() == 1 else (lambda t: t * dy)
            extra = [t if t is None else scale(t) for t in saved[ctx.num_z :][:4]]
            gradients[-4:-2] = extra[:2]
            dy, sums = (t.numpy() for t in extra[2:])
            number -= 1
        else:
            last, images = all_stages[-1], stages.array(dy).reshape(-1)
            f = last.out.y
            dy = stages.empty(f, last.num_images)
            sums = np.zeros((last.groups, f.maps, 2))
            last.run(kernels.start_back, f.slots, dy, sums, images, z[-1], last.out)
        for k in reversed(range(number)):
            if not (needs[0] or any(needs[3 : 7 + 4 * k])):
                break
            z_in, z_out, mine = z[k], z[k + 1], slice(4 * k, 4 * k + 4)
            given = z_in, z_out, dy, sums, stages.EMPTY, _needs(ctx, k)
            _, gradients[mine], dy, sums = all_stages[k].backward(*given, params[mine])
        if not needs[0]:
            return None, None, None, *gradients
        f, dx = ctx.images.y, torch.empty(saved[0].shape)
        flat = dx.numpy().reshape(-1)
        all_stages[0].run(kernels.finish, f.slots, flat, dy, ctx.images)
        return dx, None, None, *gradients


def _needs(ctx, k: int) -> tuple[bool, bool, bool]:
    """Return whether weight, bias and input of stage k need a gradient."""
    needs, first = ctx.needs_input_grad, 3 + 4 * k
    return needs[first], needs[first + 1], needs[0] or any(needs[3:first])


def _versions(x: torch.Tensor, run: _Run) -> list[int | None]:
    """Return how often the input and each weight has been modified in place."""
    tensors = (x, *run.params)
    return [None if t is None or t.is_inference() else t._version for t in tensors]


class _Delayed(torch.Tensor):
    """The output of a chain, computed when it is used; see above."""

    @staticmethod
    def __new__(cls, x: torch.Tensor, run: _Run):
        f = run.stages[-1].out.y
        size = torch.Size((len(x), f.maps, f.height, f.width))
        y = cls._make_wrapper_subclass(cls, size, dtype=torch.float32)
        y.size_of_value, y.value, y.given = size, None, (x, run)
        y.versions = _versions(x, run)
        return y

    def compute(self, target: torch.Tensor | None = None) -> torch.Tensor:
        """Return the output or, with a target, its mean squared error."""
        x, run = self.given
        if self.versions != _versions(x, run):
            raise RuntimeError(
                "a weight or the input was modified by an inplace operation before the "
                "network's output was used"
            )
        return _Chain.apply(x, target, run, *run.params)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        y = args[0] if args else None
        if isinstance(y, cls) and y.value is None:
            if function is torch.Tensor.float:
                return y
            if function is F.mse_loss and y.can_join(*args[1:], **(kwargs or {})):
                return y.compute(args[1])
        args, kwargs = tree_map_only(cls, cls.get, (args, kwargs or {}))
        return function(*args, **kwargs)

    __torch_dispatch__ = __torch_function__

    def can_join(
        self, target, size_average=None, reduce=None, reduction="mean", weight=None
    ) -> bool:
        """Return whether these are arguments of a plain mean squared error."""
        options = size_average, reduce, reduction, weight
        is_mean = options == (None, None, "mean", None)
        is_plain = type(target) is torch.Tensor and not target.requires_grad
        kind = (target.dtype, target.device.type, target.shape)
        return (
            is_mean and is_plain and kind == (torch.float32, "cpu", self.size_of_value)
        )

    def get(self) -> torch.Tensor:
        """Return the output as an ordinary tensor."""
        if self.value is None:
            with torch.enable_grad():  # as when the network was called
                self.value = self.compute()
        return self.value


@cache
def prepare() -> None:
    """Load the loops from numba's cache, where another process puts them; only once.

    A process that had compiled the loops itself rounded differently from those that loaded
    them (numba's reason is not known), so a training resumed by another process did not end
    in equal bits.
    """
    from helpers.training.narrow import compiling

    compiling.compile_in_another_process("narrow._use_all_loops()")
    try:
        _use_all_loops()
    except Exception:  # numba does not say which errors a damaged cache can cause
        compiling.discard_cache()
        _use_all_loops()  # an error that has another reason is raised again


def _use_all_loops() -> None:
    with torch.random.fork_rng(), torch.enable_grad():
        net = [nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU(), nn.MaxPool2d(2)]
        for layers in ([*net, nn.Conv2d(1, 1, 1)], net):
            x = torch.zeros(2, 1, 2, 2, requires_grad=True)
            y = _forward(nn.Sequential(*layers), x)
            F.mse_loss(y, torch.zeros(2, 1, 1, 1)).backward()
