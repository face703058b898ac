"""Export a trained network as an ONNX file, for use without PyTorch and this course."""

import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from helpers.files import InputError, refuse_existing, write_atomic
from helpers.nets import HintedUNet
from helpers.nets.base import Network
from helpers.training.weights import find_weights, load_weights

INSTALL = 'export needs onnx and onnxscript; run pip install -e ".[onnx]"'
EXAMPLE_SIZE = 128  # height of the example input with which the graph is recorded


class Predictor(torch.nn.Module):
    """A network's `predict`: natural units in, natural units out, flips averaged."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs (B, C, H, W) to natural ab (B, 2, H, W); see `Network.predict`."""
        return self.net.predict(inputs)


def export(
    weights: str, output: Path, force: bool = False, log: Callable[[str], None] = print
) -> None:
    """Write a network as ONNX. The size of its input stays variable.

    weights  a name or a file, see `find_weights`
    output   a file that ends in .onnx

    The graph has one input, `lightness`, (B, 1, H, W) float32, L* in 0..100; for a network
    that accepts hints, `lightness_and_hints`, (B, 4, H, W): L*, a*, b*, mask, with zeros
    where nothing is known. Its output is `ab`, natural units. Raises InputError if the
    packages are missing, the file exists or the network does not predict maps from L*.
    """
    if not (find_spec("onnx") and find_spec("onnxscript")):
        raise InputError(INSTALL)
    if output.suffix != ".onnx":
        raise InputError(f"{output}: give a file that ends in .onnx")
    refuse_existing(output, force)
    net, _ = load_weights(find_weights(weights), "colorizer")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torchvision is not needed
    has_hints = isinstance(net, HintedUNet)
    name = "lightness_and_hints" if has_hints else "lightness"
    example = torch.rand(2, 4 if has_hints else 1, EXAMPLE_SIZE, EXAMPLE_SIZE + 32)
    step = 2**net.num_down
    height, width = (step * torch.export.Dim(n, min=2, max=512) for n in "hw")
    sizes = {0: torch.export.Dim("batch", min=1), 2: height, 3: width}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # inside torch's exporter
        program = torch.onnx.export(
            Predictor(net).eval(),
            (example,),
            input_names=[name],
            output_names=["ab"],
            dynamic_shapes=(sizes,),
            dynamo=True,
            verbose=False,
        )
    write_atomic(output, program.model_proto.SerializeToString())
    log(
        f"wrote {output}: input {name} (batch, {example.shape[1]}, H, W), H and W "
        f"multiples of {step}; output ab (batch, 2, H, W)"
    )
