"""Several processes that train one network together: torchrun and DistributedDataParallel.

Each process computes its part of every minibatch. Gradients, BatchNorm's statistics and
losses are those of the whole minibatch, so the result is that of one process up to
rounding.
"""

import os
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from helpers.files import InputError

SILENCE = timedelta(seconds=100)  # a process that waits longer for another gives up


def join(device: str) -> str:
    """Meet the other processes, where torchrun started some; returns this one's device."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or distributed.is_initialized():
        return device
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, timeout=SILENCE)
    return device


def leave() -> None:
    """Part from the other processes, at the end of the work."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    """The number of processes that train together; 1 without torchrun."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process; 0 writes the files and speaks."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def my_part(index: torch.Tensor) -> torch.Tensor:
    """The images of a minibatch that this process computes; parts differ by one at most.

    Raises InputError when there are fewer images than processes.
    """
    if len(index) < count():
        raise InputError(
            f"minibatches of {len(index)} images for {count()} processes; "
            "start fewer processes or choose larger minibatches"
        )
    return index.tensor_split(count())[rank()]


def sum_of_all(values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` over all processes, in place; without others, as they are."""
    if count() > 1:
        distributed.all_reduce(values)
    return values


def any_of_all(*flags: bool) -> tuple[bool, ...]:
    """For each flag whether any process raises it."""
    if count() == 1:
        return flags
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    raised = sum_of_all(torch.tensor(flags, dtype=torch.int32, device=device))
    return tuple(bool(number) for number in raised.tolist())


def gather(values: torch.Tensor) -> torch.Tensor:
    """Every process's values (N,), one after the other."""
    if count() == 1:
        return values
    parts = [None] * count()
    distributed.all_gather_object(parts, values)
    return torch.cat(parts)


def share(net: nn.Module) -> nn.Module:
    """`net` as it is to be called in training: its gradients are those of all processes.

    BatchNorm layers of `net` become ones that see the whole minibatch. Alone, `net` itself.
    """
    if count() == 1:
        return net
    if next(net.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    else:
        for module in net.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SharedBatchNorm2d
    return DistributedDataParallel(net)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm with the statistics of all processes' parts; torch's own needs a GPU.

    Variances as in torch: biased to normalise, unbiased in the running average.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(x)
        pixels = sum_of_all(x.new_tensor(x.numel() / x.shape[1]))
        mean = _SumOfAll.apply(x.sum(dim=(0, 2, 3))) / pixels
        centered = x - mean.view(1, -1, 1, 1)
        variance = _SumOfAll.apply(centered.square().sum(dim=(0, 2, 3))) / pixels
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            unbiased = variance * (pixels / (pixels - 1))
            self.running_var.lerp_(unbiased, self.momentum)
        factor = self.weight * (variance + self.eps).rsqrt()
        return centered * factor.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, values: torch.Tensor) -> torch.Tensor:
        return sum_of_all(values.clone())

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return sum_of_all(gradient.clone())
