"""The checks behind each component of the assignment's rubric.

A check looks at what a submission does, not at what it says: functions are called with
probe images whose result is known, layers are watched while an image passes through them,
and errors are measured again from the weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.color import rgb2lab
from torch import nn

from helpers.apps.runner import read_notebook
from helpers.apps.submission import NETWORKS, SIDE, read_square
from helpers.apps.tour import MINUTES
from helpers.data.copies import find_copies
from helpers.evaluation.metrics import chrominance_mse
from helpers.files import InputError

SAMPLE = 12  # images that are read again from their files
TOLERANCE = 0.02  # relative, between a reported MSE and the one measured here
UP_LAYERS = (nn.ConvTranspose2d, nn.Upsample, nn.PixelShuffle, nn.UpsamplingNearest2d)
LAYERS = (nn.Conv2d, *UP_LAYERS)
GPU_PATHS = {
    "asks whether there is a GPU": ("cuda.is_available", "choose_device"),
    "moves the network to the device": (
        ".to(device",
        ".to(run.device",
        '.to("cuda',
        ".cuda(",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One checked fact: what was checked, whether it holds, and what was found."""

    check: str
    holds: bool
    found: str


def load(work) -> Iterator[Finding]:
    """Check the tensor of images, its type and the order of its channels."""
    images = work.load()
    shape = tuple(images.shape)
    good = len(shape) == 4 and shape[1:] == (3, SIDE, SIDE)
    yield Finding("tensor (n, 3, 128, 128)", good, f"{shape}")
    yield Finding("32-bit floats", images.dtype == torch.float32, f"{images.dtype}")
    numbers = torch.linspace(0, len(images) - 1, SAMPLE).long().tolist()
    truth = torch.stack([read_square(work.file(i)) for i in numbers])
    ours = _unit(images)[numbers]
    errors = {
        "BGR": (ours - truth).abs().mean().item(),
        "RGB": (ours.flip(1) - truth).abs().mean().item(),
    }
    order = min(errors, key=errors.get)
    yield Finding(
        "channels blue, green, red, as OpenCV reads them",
        order == "BGR" and errors["BGR"] < 0.05,
        f"{order}, mean difference from {SAMPLE} files {errors[order]:.3f}",
    )


def augment(work) -> Iterator[Finding]:
    """Check augmentation by probe images, and that the test images are untouched."""
    ramp = torch.linspace(0.2, 0.8, SIDE).expand(3, SIDE, SIDE)
    flat = torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(3, SIDE, SIDE)
    probes = torch.stack([ramp, flat] * 10)
    out = work.augment(probes)
    yield Finding(
        "ten times as many", len(out) == 200, f"{len(out)} from {len(probes)}"
    )
    shape = tuple(out.shape[1:])
    yield Finding("the same size", shape == (3, SIDE, SIDE), f"{shape}")
    middle = out[:, :, SIDE // 2, SIDE // 2]  # a flat image keeps its ratio of colors
    ratio = middle[:, 2] / middle[:, 0]
    flats = (ratio - 4.5).abs() < 0.5
    factor = out[flats][:, 2].mean(dim=(1, 2)) / 0.9
    low, high = factor.min().item(), factor.max().item()
    good = 0.55 <= low < 0.95 and high <= 1.02
    yield Finding(
        "one random factor from 0.6 to 1 for all channels",
        good,
        f"factors {low:.2f} to {high:.2f} of {int(flats.sum())} flat images",
    )
    ramps = out[~flats]
    rise = ramps[:, 1, SIDE // 2, -1] - ramps[:, 1, SIDE // 2, 0]
    flipped = (rise < 0).float().mean().item()
    yield Finding("some are mirrored", 0.1 < flipped < 0.9, f"{flipped:.0%} are")
    scale = ramps[:, 1].amax(dim=(1, 2)).clamp(max=0.8)
    span = (rise.abs() / scale).median().item()
    yield Finding(
        "crops show a part of the image",
        0.2 < span < 0.74,
        f"half of them span less than {span / 0.75:.0%}",
    )
    yield _untouched(work)


def _untouched(work) -> Finding:
    tested, numbers = _unit(work.test_images()), work.split()[1]
    if len(tested) != len(numbers):
        return Finding(
            "test images are not augmented",
            False,
            f"{len(tested)} test images, {len(numbers)} in the split",
        )
    truth = torch.stack([read_square(work.file(i)) for i in numbers[:SAMPLE]])
    worst = (tested[:SAMPLE] - truth).abs().mean(dim=(1, 2, 3)).max().item()
    return Finding(
        "test images are not augmented",
        worst < 0.05,
        f"largest mean difference from the files {worst:.3f}",
    )


def lab(work) -> Iterator[Finding]:
    """Check the conversion against scikit-image's, in natural units."""
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(1, 3, 8, 8, generator=generator)
    colors[0, :, 0, 0], colors[0, :, 0, 1] = 0, 1  # black, white
    probe = colors.repeat_interleave(SIDE // 8, 2).repeat_interleave(SIDE // 8, 3)
    out = work.to_lab(probe)
    truth = rgb2lab(probe[0].flip(0).permute(1, 2, 0).numpy())
    yield Finding(
        "the same shape", tuple(out.shape) == (1, 3, SIDE, SIDE), f"{tuple(out.shape)}"
    )
    found = out[0].permute(1, 2, 0).numpy()
    L, ab = found[..., 0], found[..., 1:]
    yield Finding(
        "L* from 0 to 100",
        L.min() > -0.5 and 99 < L.max() < 100.5,
        f"black {L.min():.1f}, white {L.max():.1f}",
    )
    worst = np.abs(ab - truth[..., 1:]).max()
    yield Finding(
        "a*, b* in natural units", worst < 3, f"at most {worst:.1f} from scikit-image"
    )


def regressor(work) -> Iterator[Finding]:
    """Check the regressor's layers and its error."""
    net = work.network("regressor")
    layers = watch(net)
    sides = [side for layer, side in layers if isinstance(layer, nn.Conv2d)]
    yield Finding(
        "seven convolutions, each halves the image",
        sides == [SIDE // 2**n for n in range(1, 8)],
        f"sides {sides}",
    )
    rectified = _rectified(net)
    count = sum(isinstance(layer, nn.ReLU) for layer, _ in layers)
    yield Finding(
        "ReLU after the hidden convolutions",
        max(rectified, count) >= 6,  # a ReLU may be shared, or BatchNorm follow it
        f"{rectified} convolutions get no negative values; {count} ReLU layers",
    )
    y = run(net, torch.rand(2, 1, SIDE, SIDE))
    yield Finding(
        "two numbers per image", tuple(y.shape) == (2, 2), f"{tuple(y.shape)}"
    )
    yield from _error(work, net, "regressor")


def colorizer(work) -> Iterator[Finding]:
    """Check the colorizer's layers and its error."""
    net = work.network("colorizer")
    y = run(net, torch.rand(2, 1, SIDE, SIDE))
    yield Finding(
        "a*, b* for every pixel",
        tuple(y.shape) == (2, 2, SIDE, SIDE),
        f"{tuple(y.shape)}",
    )
    layers = watch(net)
    sides = [side for layer, side in layers if isinstance(layer, LAYERS)]
    ups = sum(isinstance(layer, UP_LAYERS) for layer, _ in layers)
    yield Finding("up-sampling layers", ups > 0, f"{ups} layers, sides {sides}")
    smallest = min(sides, default=SIDE)
    yield Finding("a bottleneck", smallest <= SIDE // 4, f"smallest map {smallest}")
    yield from _error(work, net, "colorizer")


def _error(work, net, task: str) -> Iterator[Finding]:
    """Measure a test error again, and compare it with the reported one."""
    truth = work.to_lab(work.test_images())
    ab = torch.cat([run(net, L / 100) for L in truth[:, :1].split(25)])
    true_ab = truth[:, 1:] if ab.ndim == 4 else truth[:, 1:].mean(dim=(2, 3))
    error = chrominance_mse(ab, true_ab).mean().item()
    gray = chrominance_mse(torch.zeros_like(ab), true_ab).mean().item()
    reported = work.reported(task)
    agrees = reported is not None and abs(error / reported - 1) <= TOLERANCE
    claim = "none is reported" if reported is None else f"reported {reported:.3e}"
    yield Finding(
        "the reported test MSE is that of these weights",
        agrees,
        f"measured {error:.3e}, {claim}; {work.name_of(task)}",
    )
    yield Finding(
        "its error is smaller than that of a prediction of gray",
        error < gray,
        f"{error:.3e}, gray {gray:.3e}",
    )


def batchnorm(work) -> Iterator[Finding]:
    """Check where BatchNorm is, that it was trained, and that it is in evaluation mode."""
    for task in NETWORKS:
        net = work.network(task)
        norms = [x for x in net.modules() if isinstance(x, nn.BatchNorm2d)]
        moved = sum(bool(x.running_mean.abs().max() > 0) for x in norms)
        layers = [layer for layer, _ in watch(net)]  # moves them in training mode
        hidden = [i for i, x in enumerate(layers) if isinstance(x, nn.Conv2d)]
        hidden = [
            i for i in hidden if any(isinstance(x, LAYERS) for x in layers[i + 1 :])
        ]
        followed = sum(isinstance(layers[i + 1], nn.BatchNorm2d) for i in hidden)
        yield Finding(
            f"{task}: BatchNorm after each hidden convolution",
            followed == len(hidden) > 0,
            f"{followed} of {len(hidden)}",
        )
        yield Finding(
            f"{task}: running statistics",
            moved == len(norms) > 0,
            f"{moved} of {len(norms)} BatchNorm layers have them",
        )
        generator = torch.Generator().manual_seed(0)
        L = torch.rand(8, 1, SIDE, SIDE, generator=generator)
        with torch.no_grad():  # in the mode in which it was handed in
            gap = (net(L)[:1] - net(L[:1])).abs().max()
        yield Finding(
            f"{task}: evaluation mode in the test",
            bool(gap < 0.01),
            f"alone or in a minibatch, ab differs by {gap:.3f}",
        )


def training(work) -> Iterator[Finding]:
    """Check the split and the colorized pictures."""
    train, test = work.split()
    sizes = work.whole_split()
    share = sizes[1] / sum(sizes)
    yield Finding(
        "90% for training, 10% for the test",
        0.08 <= share <= 0.12,
        f"{sizes[0]} and {sizes[1]}; trained on {len(train)}",
    )
    known = min(train + test, default=-1) >= 0
    leaked = set(train) & set(test)
    if known:
        levels = (_unit(work.load()) * 255).round().to(torch.uint8)
        for group in map(set, find_copies(levels)):
            leaked |= group & set(test) if group & set(train) else set()
    yield Finding(
        "no test image is in the training set",
        known and not leaked,
        f"{len(leaked)} are" if known else "the split names other images",
    )
    for part, index in (("train", train), ("test", test)):
        pictures = work.pictures(part)
        yield Finding(
            f"colorized {part} images",
            len(pictures) > 0,
            f"{len(pictures)} pictures",
        )
        if pictures and known:
            yield _from_the_set(work, pictures[0], index, part)


def _from_the_set(work, picture: Path, index: list[int], part: str) -> Finding:
    """Check that a picture has the L* of an image in its set."""
    L = _lightness(read_square(picture.read_bytes()))
    all_L = torch.stack([_lightness(image) for image in _unit(work.load()[index])])
    gap = (all_L - L).abs().mean(dim=(1, 2)).min().item()
    return Finding(
        f"it is a {part} image with its own L*",
        gap < 3,
        f"{picture.name}: mean difference {gap:.1f} of 100",
    )


def gpu(work) -> Iterator[Finding]:
    """Check the code path for a GPU, and use it if there is one."""
    for check, words in GPU_PATHS.items():
        place = _where(work, words)
        missing = f"no cell contains {' or '.join(words)}"
        yield Finding(check, bool(place), place or missing)
    if torch.cuda.is_available():
        net = work.network("colorizer").cuda()
        y = run(net, torch.rand(2, 1, SIDE, SIDE, device="cuda"))
        yield Finding("runs on the GPU", y.is_cuda, torch.cuda.get_device_name())


def _where(work, words: tuple[str, ...]) -> str:
    """Return the first code that contains one of the words: notebook, line."""
    for path in sorted(work.notebooks.glob("*.ipynb")):
        for cell in read_notebook(path).cells:
            for line in cell.source.splitlines():
                code = line.partition("#")[0]  # a comment is no evidence
                if cell.cell_type == "code" and any(word in code for word in words):
                    return f"{path.stem}: {code.strip()}"
    return ""


def report_and_tour(work) -> Iterator[Finding]:
    """Check that the report and the film of the tour are there."""
    report = work.report()
    yield Finding(
        "a written report",
        report is not None,
        report.name if report else "none; `deepcolor report` makes it",
    )
    film = work.tour()
    minutes = _minutes(film) if film else 0
    found = f"{minutes:.1f} minutes" if film else "none; `make tour` records it"
    low, high = MINUTES
    good = film is not None and low <= minutes <= high
    yield Finding("a video tour of 5 to 7 minutes", good, found)


def watch(net: nn.Module) -> list[tuple[nn.Module, int]]:
    """Return each layer in the order of its use, with the side of its output.

    A network that averages over the mirror image uses its layers twice; once is returned.
    """
    used: list[tuple[nn.Module, int]] = []

    def note(layer, _, output):
        if layer not in [x for x, _ in used]:
            used.append((layer, output.shape[-1] if output.ndim > 2 else 1))

    leaves = [m for m in net.modules() if not list(m.children())]
    handles = [layer.register_forward_hook(note) for layer in leaves]
    run(net, torch.rand(2, 1, SIDE, SIDE))
    for handle in handles:
        handle.remove()
    return used


def _rectified(net: nn.Module) -> int:
    """Return how many convolutions after the first get no negative values."""
    lowest: dict[nn.Module, float] = {}

    def note(layer, inputs):
        lowest.setdefault(layer, inputs[0].min().item())

    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    handles = [layer.register_forward_pre_hook(note) for layer in convolutions]
    run(net, torch.rand(2, 1, SIDE, SIDE))
    for handle in handles:
        handle.remove()
    return sum(low >= 0 for low in list(lowest.values())[1:])


def run(net: nn.Module, L: torch.Tensor) -> torch.Tensor:
    """Return the prediction for L*/100 (B, 1, 128, 128), in the mode that the net has."""
    with torch.no_grad():
        return net(L).float()


def _unit(images: torch.Tensor) -> torch.Tensor:
    return images / (255 if images.max() > 2 else 1)


def _lightness(image: torch.Tensor) -> torch.Tensor:
    rgb = image.flip(0).permute(1, 2, 0).numpy()
    return torch.from_numpy(rgb2lab(rgb)[..., 0])


def _minutes(film: Path) -> float:
    video = cv2.VideoCapture(str(film))
    rate = video.get(cv2.CAP_PROP_FPS)
    if not video.isOpened() or not rate:
        raise InputError(f"{film}: not a film that OpenCV can read; record it again")
    return video.get(cv2.CAP_PROP_FRAME_COUNT) / rate / 60
