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


def my_share(index: torch.Tensor) -> torch.Tensor:
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


def largest(*numbers: int) -> list[int]:
    """For each number the largest that any process has."""
    if count() == 1:
        return list(numbers)
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    values = torch.tensor(numbers, dtype=torch.int32, device=device)
    distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values.tolist()


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
            if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
                module.__class__ = SharedBatchNorm
    return DistributedDataParallel(net)


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm with the statistics of all processes' parts; torch's own needs a GPU.

    Variances as in torch: biased to normalize, unbiased in the running average. Sums are
    taken of what is left when the running mean is subtracted, so that squares stay small.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C) or (B, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        shifted = x if self.running_mean is None else x - self.running_mean.view(shape)
        pixels = x.new_full((x.shape[1],), x.numel() / x.shape[1])
        sums = [shifted.sum(dim=dims), shifted.square().sum(dim=dims), pixels]
        total, squares, pixels = _SumOfAll.apply(torch.stack(sums))  # one message
        mean = total / pixels
        variance = squares / pixels - mean.square()
        if self.running_mean is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean += self.momentum * mean
                unbiased = variance * (pixels / (pixels - 1))
                self.running_var.lerp_(unbiased, self.momentum)
        factor = self.weight * (variance + self.eps).rsqrt()
        offset = self.bias - mean * factor
        return shifted * factor.view(shape) + offset.view(shape)

    def _check_input_dim(self, x: torch.Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"BatchNorm wants (B, C) or (B, C, H, W), got {x.ndim}D")


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, values: torch.Tensor) -> torch.Tensor:
        return sum_of_all(values.clone())

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return sum_of_all(gradient.clone())
