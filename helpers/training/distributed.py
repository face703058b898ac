"""Training one network with several processes: torchrun and DistributedDataParallel.

Each process computes its share of every minibatch; gradients and losses are those of the
whole minibatch. BatchNorm computes its statistics over the whole minibatch on GPUs
(SyncBatchNorm), but over each process's share on CPUs, where PyTorch has no such layer.
"""

import os
import signal
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from helpers.files import InputError

TIMEOUT = timedelta(seconds=100)  # a process that waits longer for another gives up
PARENT = os.getppid()


def join(device: str) -> str:
    """Join the process group if torchrun started one; return this process's device."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or distributed.is_initialized():
        return device
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    return device


def leave() -> None:
    """Leave the process group when the work is done."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    """Return the number of processes that train together; 1 without torchrun."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process; rank 0 writes the files and the log."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def wrap(net: nn.Module) -> nn.Module:
    """Wrap `net` for training with several processes; see the module docstring."""
    if count() == 1:
        return net
    if next(net.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return DistributedDataParallel(net)


def my_share(index: torch.Tensor) -> torch.Tensor:
    """Return this process's share of the image indices in a minibatch.

    Shares differ by at most one image. Raises InputError for fewer images than processes.
    """
    if len(index) < count():
        raise InputError(
            f"minibatches of {len(index)} images for {count()} processes; "
            "start fewer processes or use larger minibatches"
        )
    return index.tensor_split(count())[rank()]


def weighted(loss: torch.Tensor, mine: torch.Tensor, index: torch.Tensor):
    """Weight a loss so that its average over processes is the average over all images."""
    return loss * (count() * len(mine) / len(index))


def sum_of_all(values: torch.Tensor) -> torch.Tensor:
    """Sum `values` over all processes, in place."""
    if count() > 1:
        distributed.all_reduce(values)
    return values


def max_of_all(*numbers: int) -> list[int]:
    """Return the maximum of each number over all processes."""
    if count() == 1:
        return list(numbers)
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    values = torch.tensor(numbers, dtype=torch.int32, device=device)
    distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values.tolist()


def gather(values: torch.Tensor) -> torch.Tensor:
    """Concatenate the values (N,) from all processes."""
    if count() == 1:
        return values
    parts = [None] * count()
    distributed.all_gather_object(parts, values)
    return torch.cat(parts)


def broadcast_buffers(net: nn.Module) -> None:
    """Copy the buffers of rank 0 (BatchNorm's running averages) to every process."""
    if count() > 1:
        for buffer in net.buffers():
            distributed.broadcast(buffer, 0)


def signal_of_lost_parent() -> int:
    """Return SIGTERM if torchrun has died, leaving its processes running; else 0."""
    return signal.SIGTERM if count() > 1 and os.getppid() != PARENT else 0
