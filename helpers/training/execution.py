"""How steps are computed on a machine: threads, layout, number format, kernels.

`Execution()` is plain PyTorch. Every other form computes the same step in another way;
which of them is faster differs from network to network, so `tuning.choose_execution`
measures.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from helpers.files import InputError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3), in bytes
NEVER = 2**31 - 1


@dataclass(frozen=True)
class Execution:
    """The form in which training steps are computed.

    threads        CPU threads of one operation; 0 leaves torch's number
    channels_last  keep the planes of a pixel together in memory
    bf16           convolutions in bfloat16 (autocast); weights and losses stay float32
    fused          one kernel for the whole optimizer step
    subpixel       transposed convolutions as convolution and pixel shuffle, the same sums
    timed_kernels  let cuDNN time its kernels and take the fastest (GPU)
    compiled       "" or a mode of torch.compile: "default", "reduce-overhead" (CUDA graphs)
    """

    threads: int = 0
    channels_last: bool = False
    bf16: bool = False
    fused: bool = False
    subpixel: bool = False
    timed_kernels: bool = False
    compiled: str = ""

    def __str__(self) -> str:
        words = [f"{self.threads} threads"] if self.threads else []
        words += ["channels_last"] if self.channels_last else []
        words += ["bf16"] if self.bf16 else []
        words += ["fused optimizer"] if self.fused else []
        words += ["subpixel convolutions"] if self.subpixel else []
        words += ["timed kernels"] if self.timed_kernels else []
        words += [f"torch.compile ({self.compiled})"] if self.compiled else []
        return ", ".join(words) or "plain"

    def compile(self, net: nn.Module) -> nn.Module:
        """What is to be called in training: `net`, or its compiled form."""
        if not self.compiled:
            return net
        return torch.compile(net, mode=self.compiled, dynamic=False)

    def autocast(self, device: torch.device):
        """The context of a forward pass on `device`."""
        if not self.bf16:
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    @contextmanager
    def active(self, net: nn.Module) -> Iterator[None]:
        """Bring threads and network into this form, and back again at the end.

        Memory that was freed is kept from now on, see `keep_freed_memory`.
        """
        keep_freed_memory()
        found, timed = torch.get_num_threads(), torch.backends.cudnn.benchmark
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        doubling = [m for m in net.modules() if doubles(m)] if self.subpixel else []
        try:
            torch.set_num_threads(self.threads or found)
            torch.backends.cudnn.benchmark = self.timed_kernels
            net.to(memory_format=layout)
            for module in doubling:
                module.__class__ = SubpixelConvTranspose2d
            yield
        finally:
            torch.set_num_threads(found)
            torch.backends.cudnn.benchmark = timed
            net.to(memory_format=torch.contiguous_format)
            for module in doubling:
                module.__class__ = nn.ConvTranspose2d


class SubpixelConvTranspose2d(nn.ConvTranspose2d):
    """A 4x4 transposed convolution of stride 2 as a 3x3 convolution and a pixel shuffle.

    Each of the four pixels that one becomes is a weighted sum over its 3x3 neighbors,
    with 2x2 weights that are not zero. Source: Shi et al., CVPR 2016.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C', 2H, 2W)."""
        before, after = self.weight.shape[:2]
        index = _subpixel_index(before, after).to(x.device)
        kernel = F.pad(self.weight.flatten(), (0, 1))[index]  # the last one is zero
        y = F.pixel_shuffle(F.conv2d(x, kernel, padding=1), 2)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


def doubles(module: nn.Module) -> bool:
    """Whether a layer is one that `SubpixelConvTranspose2d` can compute."""
    return type(module) is nn.ConvTranspose2d and (
        (module.kernel_size, module.stride, module.padding, module.output_padding)
        == ((4, 4), (2, 2), (1, 1), (0, 0))
    )


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for the next ones (glibc only).

    Else every large tensor is new memory, and the system clears its pages first: up to a
    third of a small network's time. Source: mallopt(3).
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    mallopt = getattr(library, "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, NEVER)
        mallopt(M_TRIM_THRESHOLD, NEVER)


@lru_cache
def _subpixel_index(before: int, after: int) -> torch.Tensor:
    """Where in a flat (before, after, 4, 4) weight each number of the kernel stands.

    (4 after, before, 3, 3) int64; a zero of the kernel points behind the weight's end.
    """
    parity, row = torch.arange(2).view(2, 1), torch.arange(3)
    k = 3 + parity - 2 * row  # (2, 3): row of the 4x4 weight for a row of the kernel
    known = (k >= 0) & (k <= 3)
    k_y, k_x = k.view(1, 2, 1, 1, 3, 1), k.view(1, 1, 2, 1, 1, 3)
    into = torch.arange(before).view(1, 1, 1, before, 1, 1)
    out = torch.arange(after).view(after, 1, 1, 1, 1, 1)
    index = ((into * after + out) * 4 + k_y) * 4 + k_x
    inside = known.view(1, 2, 1, 1, 3, 1) & known.view(1, 1, 2, 1, 1, 3)
    end = torch.tensor(16 * before * after)
    return torch.where(inside, index, end).view(4 * after, before, 3, 3)


PLAIN = Execution()


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, it is slower."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def set_seed(seed: int) -> None:
    """Seed torch; call it before a network is built and before it is trained."""
    torch.manual_seed(seed)


def choose_device(device: str = "auto") -> str:
    """The device to compute on: "cpu", "cuda" or, for "auto", the GPU where there is one.

    Where a GPU is asked for and absent the answer is "cpu", with a printed note. Raises
    InputError for another word.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {device!r}: unknown; use auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is visible: computing on the CPU")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
