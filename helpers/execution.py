"""How steps are computed on a machine: threads, memory layout, number format, kernels.

`Execution()` is plain PyTorch. Every other form computes the same step in another way;
which of them is faster differs from network to network, so `tuning.choose_execution`
measures.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from helpers.files import InputError


@dataclass(frozen=True)
class Execution:
    """The form in which training steps are computed.

    threads        CPU threads of one operation; 0 leaves torch's number
    channels_last  keep the planes of a pixel together in memory
    bf16           convolutions in bfloat16 (autocast); weights and losses stay float32
    fused          one kernel for the whole optimizer step
    compiled       "" or a mode of torch.compile: "default", "reduce-overhead" (CUDA graphs)
    """

    threads: int = 0
    channels_last: bool = False
    bf16: bool = False
    fused: bool = False
    compiled: str = ""

    def __str__(self) -> str:
        words = [f"{self.threads} threads"] if self.threads else []
        words += ["channels_last"] if self.channels_last else []
        words += ["bf16"] if self.bf16 else []
        words += ["fused optimizer"] if self.fused else []
        words += [f"torch.compile ({self.compiled})"] if self.compiled else []
        return ", ".join(words) or "plain"

    def prepare(self, net: nn.Module) -> None:
        """Lay the network's weights out in memory."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        net.to(memory_format=layout)

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
    def active(self) -> Iterator[None]:
        """Use this number of threads, and then again the number found."""
        found = torch.get_num_threads()
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(found)


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
