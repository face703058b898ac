"""How training steps are computed on a machine: threads, memory layout, precision.

`Execution()` is plain PyTorch. Its options compute the same step in another way. Which of
them are fastest depends on the network, so `autotune.choose_execution` measures it.
"""

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from helpers.files import InputError
from helpers.training import distributed
from helpers.training import narrow as engine

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of mallopt(3)
UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class Execution:
    """Options for computing training steps.

    threads        CPU threads per operation; 0 keeps torch's setting
    channels_last  keep the channels of a pixel together in memory
    bf16           convolutions in bfloat16 (autocast); weights and losses stay float32
    fused          one kernel for the whole optimizer step
    timed_kernels  let cuDNN time its kernels and use the fastest (GPU)
    compiled       "" or a torch.compile mode: "default", "reduce-overhead" (CUDA graphs)
    narrow         narrow layers with compiled loops; see `training.narrow` (CPU)
    """

    threads: int = 0
    channels_last: bool = False
    bf16: bool = False
    fused: bool = False
    timed_kernels: bool = False
    compiled: str = ""
    narrow: bool = False

    def __str__(self) -> str:
        words = [f"{self.threads} threads"] if self.threads else []
        words += ["compiled loops for narrow layers"] if self.narrow else []
        words += ["channels_last"] if self.channels_last else []
        words += ["bf16"] if self.bf16 else []
        words += ["fused optimizer"] if self.fused else []
        words += ["timed kernels"] if self.timed_kernels else []
        words += [f"torch.compile ({self.compiled})"] if self.compiled else []
        return ", ".join(words) or "plain"

    def compile(self, net: nn.Module) -> nn.Module:
        """Return the module to call in training: `net`, compiled if `compiled` is set."""
        if not self.compiled:
            return net
        return torch.compile(net, mode=self.compiled, dynamic=False)

    def autocast(self, device: torch.device):
        """Return the context manager for a forward pass on `device`."""
        if not self.bf16:
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    @contextmanager
    def active(self, net: nn.Module) -> Iterator[None]:
        """Set threads, memory layout and cuDNN for `net`; restore them at the end."""
        keep_freed_memory()
        found, timed = torch.get_num_threads(), torch.backends.cudnn.benchmark
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        loops = engine.narrow(net) if self.narrow and _has_numba() else nullcontext()
        try:
            torch.set_num_threads(self.threads or found)
            torch.backends.cudnn.benchmark = self.timed_kernels
            net.to(memory_format=layout)
            with loops:
                yield
        finally:
            torch.set_num_threads(found)
            torch.backends.cudnn.benchmark = timed
            net.to(memory_format=torch.contiguous_format)


PLAIN = Execution()


def default_execution(net: nn.Module) -> Execution:
    """Return the form for short runs: compiled loops if all of the network is narrow."""
    is_alone = distributed.count() == 1
    return Execution(narrow=is_alone and engine.is_narrow(net) and _has_numba())


def _has_numba() -> bool:
    if not engine.is_available():
        slow = "numba is not installed, so narrow networks train several times slower"
        warnings.warn(f"{slow}; pip install numba", stacklevel=3)
    return engine.is_available()


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors (glibc only).

    Otherwise, every large tensor is newly mapped and the system zeroes its pages first,
    which takes up to a third of a small network's training time. Older versions of glibc
    reject a threshold this large; mapping is then disabled entirely. Setting the trim
    threshold after a rejection would freeze the mapping threshold at its small default.
    Source: mallopt(3).
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    mallopt = getattr(library, "mallopt", None)
    if mallopt and (mallopt(M_MMAP_THRESHOLD, UNLIMITED) or mallopt(M_MMAP_MAX, 0)):
        mallopt(M_TRIM_THRESHOLD, UNLIMITED)


def cpu_has_bf16() -> bool:
    """Return whether the CPU computes in bfloat16 natively; if not, bfloat16 is slower."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def set_seed(seed: int) -> None:
    """Seed torch; call this before building a network."""
    torch.manual_seed(seed)


def choose_device(device: str = "auto") -> str:
    """Return "cpu" or "cuda"; "auto" uses the GPU if there is one.

    If a GPU is requested but absent, a note is printed and the CPU is used. Raises
    InputError for any other name.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {device!r}: unknown; use auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is available: using the CPU")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
