"""The command line: `deepcolor run`, `train`, `sweep`, `bench`, `evaluate` and so on."""

import time
import warnings
from pathlib import Path

import click

from helpers.files import InputError, WorkFailed, peak_memory

CANCELLED = 130


class Course(click.Group):
    """Errors of the course become one line; the exit code says whose fault it was."""

    def invoke(self, ctx: click.Context):
        """Run a command; exit 2 for wrong input, 1 for failed work, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except (InputError, WorkFailed) as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(2 if isinstance(error, InputError) else 1)
        except KeyboardInterrupt:
            click.echo("stopped by Ctrl-C; what is finished is kept", err=True)
            ctx.exit(CANCELLED)


images_option = click.option(
    "--images",
    default="",
    metavar="FOLDER|ZIP|portraits",
    help="Photographs; by default those in face_images/, else the synthetic portraits.",
)
run_dir_option = click.option(
    "--run-dir",
    default="",
    metavar="DIR",
    help="Results; by default outputs/<profile>.",
)
profile_option = click.option(
    "--profile",
    default="quick",
    type=click.Choice(["quick", "standard", "full"]),
    show_default=True,
    help="How long to train: minutes, half an hour, or the long protocols on a GPU.",
)
split_option = click.option(
    "--split",
    default="random",
    type=click.Choice(["random", "groups"]),
    show_default=True,
    help="groups: no sitter stands in both parts.",
)
device_option = click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"])
)
seed_option = click.option("--seed", default=None, type=click.IntRange(min=0))
epochs_option = click.option(
    "--epochs", default=0, type=click.IntRange(min=0), help="Instead of the profile's."
)
weights_option = click.option(
    "--weights",
    default="",
    metavar="NAME|FILE",
    help="One of the networks in weights/, or a .safetensors file.",
)
trained_option = click.option(
    "--run-dir", default="", metavar="DIR", help="Use the network of this run."
)
trained_profile_option = click.option(
    "--profile",
    type=click.Choice(["quick", "standard", "full"]),
    help="Use the network of the run of this profile, outputs/<profile>.",
)

COLORIZER_WEIGHTS = (
    "11_colorize_photos/best.safetensors",
    "08_extra_credit/best.safetensors",
    "07_gpu_training/chosen.safetensors",
)
REGRESSOR_WEIGHTS = ("04_regressor/regressor.safetensors",)


@click.group(cls=Course, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool):
    """Deep colorization: networks that predict a*, b* of a photograph from its L*."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


@main.command()
@profile_option
@images_option
@split_option
@run_dir_option
@device_option
@seed_option
@epochs_option
@click.option(
    "--only", multiple=True, metavar="NN", help="Only this notebook; repeatable."
)
@click.option(
    "--resume", is_flag=True, help="Skip notebooks whose inputs are unchanged."
)
@click.option(
    "-p",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A notebook's parameter.",
)
def run(
    profile, images, split, run_dir, device, seed, epochs, only, resume, parameters
):
    """Run the notebooks in order; results go to the run folder."""
    from helpers.apps.runner import run_notebooks
    from helpers.experiments.run_folder import default_run_dir

    given = {
        "profile": profile,
        "images": images,
        "split": split,
        "device": device,
        "seed": "" if seed is None else str(seed),
        "num_epochs": str(epochs or ""),
    }
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not equals:
            raise InputError(f"-p {parameter}: write -p NAME=VALUE")
        given[name] = value
    given = {name: value for name, value in given.items() if value or name == "images"}
    folder = default_run_dir(given["profile"], run_dir)
    page = run_notebooks(folder, given, only=only, resume=resume, log=click.echo)
    click.echo(page.read_text(encoding="utf-8"))
    click.echo(f"wrote {page}")


@main.command()
@click.argument("name")
@profile_option
@images_option
@split_option
@run_dir_option
@device_option
@seed_option
@epochs_option
@click.option("--plain", is_flag=True, help="Compute the steps in plain PyTorch.")
@click.option(
    "--without",
    multiple=True,
    metavar="TRICK",
    help="threads, channels_last, bf16, fused, subpixel, compiled... ; repeatable.",
)
@click.option("--tensorboard", is_flag=True, help="Write curves and sample pictures.")
def train(name, seed, **options):
    """Train one network by its NAME, for example maps/32; the same command goes on."""
    from helpers.experiments.registry import DEFAULT_SEED
    from helpers.experiments.run import train_one

    seed = DEFAULT_SEED if seed is None else seed
    train_one(name, seed=seed, log=click.echo, **options)


@main.command()
@click.argument("names", nargs=-1, required=True)
@profile_option
@images_option
@split_option
@run_dir_option
@device_option
@epochs_option
@click.option("--seeds", default="", metavar="K,K,...", help="By default the one seed.")
@click.option(
    "--jobs", default=0, type=click.IntRange(min=0), help="At a time; 0: free cores."
)
@click.option("--cluster", default="", metavar="slurm", help="As jobs, by submitit.")
@click.option("--time", "timeout_min", default=60, help="Minutes of a job.")
@click.option("--memory", "mem_gb", default=8, help="GB of a job.")
@click.option("--gpus", "gpus_per_node", default=0, help="GPUs of a job.")
@click.option("--account", "slurm_account", help="Who pays.")
@click.option("--qos", "slurm_qos", help="Quality of service.")
def sweep(
    names, profile, images, split, run_dir, device, epochs, seeds, jobs, cluster, **job
):
    """Train networks by their NAMES or patterns ('maps/*'), side by side, in one table."""
    from helpers.experiments.registry import DEFAULT_SEED
    from helpers.experiments.run_folder import default_run_dir
    from helpers.experiments.sweep import run_sweep

    try:
        numbers = [int(k) for k in seeds.split(",")] if seeds else [DEFAULT_SEED]
    except ValueError as error:
        raise InputError(f"--seeds {seeds}: write whole numbers, 1,2,3") from error
    page = run_sweep(
        names,
        numbers,
        run_dir=default_run_dir(profile, run_dir),
        profile=profile,
        images=images,
        split=split,
        device=device,
        epochs=epochs,
        jobs=jobs,
        cluster=cluster,
        slurm={name: value for name, value in job.items() if value},
        log=click.echo,
    )
    click.echo(page.read_text(encoding="utf-8"))
    click.echo(f"wrote {page}")


@main.command()
@click.argument("networks", nargs=-1, metavar="[colorizer|unet]...")
@click.option("--repeats", default=7, type=click.IntRange(min=1), show_default=True)
@click.option("--steps", default=2, type=click.IntRange(min=1), show_default=True)
@device_option
@profile_option
@run_dir_option
def bench(networks, repeats, steps, device, profile, run_dir):
    """How fast training is here: the earlier reports' loop, then a change a row."""
    from helpers.apps.bench import BENCHES, measure, table, variants
    from helpers.experiments.run_folder import default_run_dir, environment
    from helpers.files import write_json
    from helpers.training.execution import choose_device

    for name in networks:
        if name not in BENCHES:
            raise InputError(f"network {name!r}: unknown; use {' or '.join(BENCHES)}")
    device, measured = choose_device(device), {}
    click.echo(f"{repeats} times {steps} steps of each row, in turn, on {device}")
    for name in networks or BENCHES:
        measured[name] = measure(variants(name, device), repeats, steps)
        click.echo(f"\n{name}\n{table(measured[name])}")
    path = default_run_dir(profile, run_dir) / "bench.json"
    write_json(path, {"environment": environment(), "networks": measured})
    click.echo(f"wrote {path}")


@main.command()
@click.argument("folders", nargs=-1, required=True, metavar="RUN_DIR...")
@click.option("-o", "--output", default="RESULTS.md", show_default=True, metavar="FILE")
def results(folders, output):
    """Gather the figures of all trainings below run folders into one page."""
    from helpers.experiments.leaderboard import write_ledger

    click.echo(f"wrote {write_ledger([Path(f) for f in folders], Path(output))}")


@main.command()
@click.argument("weights")
@images_option
@click.option(
    "--split",
    default="all",
    type=click.Choice(["all", "random", "groups"]),
    show_default=True,
    help="Test all photographs, or the test part of this split.",
)
@seed_option
@device_option
def evaluate(weights, images, split, seed, device):
    """Test trained WEIGHTS on the photographs of --images."""
    from helpers.data.faces import load_faces, split_faces
    from helpers.evaluation.predict import photograph_size, predict_all
    from helpers.experiments.registry import DEFAULT_SEED
    from helpers.training.checkpoint import find_weights, load_weights
    from helpers.training.execution import choose_device

    net, metadata = load_weights(find_weights(weights))
    faces = load_faces(images, size=photograph_size(net))
    click.echo(faces.describe())
    photographs, part = faces.images, ""
    if split != "all":
        seed = DEFAULT_SEED if seed is None else seed
        parts = split_faces(faces, by=split, seed=seed)
        photographs = photographs[parts.test]
        part = f", the test part of split {parts.how}, seed {seed}"
    scale = "of R, G, B in -1..1" if net.task == "rgb" else "on scale S"
    click.echo(
        f"{metadata['network']}: MSE {scale} over {len(photographs)} images{part}"
    )
    predicted = predict_all(net.to(choose_device(device)), photographs)
    for name, value in predicted.figures().items():
        click.echo(f"{name:<20}{value}")


@main.command()
@click.argument("weights", nargs=2)
@images_option
@split_option
@seed_option
def compare(weights, images, split, seed):
    """Test two networks on one test part: the paired difference of their errors."""
    from helpers.data.faces import load_faces, split_faces
    from helpers.data.lab import to_lab_images
    from helpers.evaluation.evaluate import evaluate as test
    from helpers.evaluation.metrics import paired_difference
    from helpers.experiments.registry import DEFAULT_SEED
    from helpers.training.checkpoint import find_weights, load_weights

    nets = [load_weights(find_weights(path))[0] for path in weights]
    if {net.task for net in nets} not in ({"map"}, {"mean"}):
        raise InputError(
            f"{' and '.join(weights)}: give two colorizers or two regressors"
        )
    faces = load_faces(images)
    seed = DEFAULT_SEED if seed is None else seed
    parts = split_faces(faces, by=split, seed=seed)
    lab = to_lab_images(faces.images[parts.test])
    click.echo(f"{faces.describe()}\n{len(lab)} test images, split {parts.how}")
    found = [test(net, lab) for net in nets]
    for path, result in zip(weights, found, strict=True):
        click.echo(f"{path}: MSE on scale S {result.mse}")
    difference = paired_difference(found[0].per_image, found[1].per_image)
    click.echo(f"first minus second: {difference}")


@main.command()
@click.argument("weights")
@images_option
@click.option(
    "-o", "--output", required=True, metavar="DIR", help="Folder for the pictures."
)
@click.option(
    "--save-estimations", is_flag=True, help="Write estimations_test.npy and the names."
)
@click.option("--force", is_flag=True, help="Replace what is already there.")
@device_option
def predict(weights, images, output, save_estimations, force, device):
    """Let WEIGHTS color --images as they were trained on; pictures and truths beside."""
    from helpers.data.faces import load_faces
    from helpers.evaluation.predict import photograph_size, predict_all
    from helpers.training.checkpoint import find_weights, load_weights
    from helpers.training.execution import choose_device

    net, _ = load_weights(find_weights(weights))
    if net.task == "mean":
        raise InputError(f"{weights}: predicts means; use `deepcolor chrominance`")
    folder = Path(output)
    if any(folder.glob("prediction")) and not force:
        raise InputError(f"{folder}: holds predictions; use --force or another folder")
    faces = load_faces(images, size=photograph_size(net))
    click.echo(faces.describe())
    predicted = predict_all(net.to(choose_device(device)), faces.images)
    predicted.write_pictures(folder, faces.names)
    if save_estimations:
        click.echo(f"wrote {predicted.write_estimations(folder, faces.names)}")
    for name, value in predicted.figures().items():
        click.echo(f"{name:<20}{value}")
    click.echo(f"wrote {len(faces)} pictures to {output}/prediction, truth, grayscale")


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGES...")
@weights_option
@trained_profile_option
@trained_option
def chrominance(inputs, weights, profile, run_dir):
    """Predict the mean a* and mean b* of photographs from their luminance.

    IMAGES are files, folders, zips or patterns ('scans/*.jpg'). The network is that of
    weights/regressor.safetensors.
    """
    from helpers.apps.colorize import predict_mean_chrominance
    from helpers.apps.photographs import check_all_read, find_photographs
    from helpers.data.images import decode_image

    net = _network(weights, profile, run_dir, REGRESSOR_WEIGHTS, "regressor")
    photographs, unreadable = find_photographs(inputs, decode_image), []
    click.echo(f"{'file':<40}{'mean a*':>10}{'mean b*':>10}")
    for photograph in photographs:
        try:
            a, b = predict_mean_chrominance(net, photograph.read())
        except InputError as error:
            unreadable.append(str(error))
        else:
            name = click.format_filename(photograph.name)
            click.echo(f"{name:<40}{a:>10.2f}{b:>10.2f}")
    check_all_read(unreadable, len(photographs))


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o", "--output", required=True, metavar="DIR", help="Folder for the pictures."
)
@click.option("--force", is_flag=True, help="Replace pictures that are already there.")
@click.option(
    "--strength",
    default=1.0,
    type=click.FloatRange(0, 2),
    show_default=True,
    help="0 gray, 1 as predicted, 2 twice the chrominance.",
)
@click.option(
    "--compare",
    is_flag=True,
    help="Also write grayscale and colored side by side, as NAME.compare.png.",
)
@click.option(
    "--box",
    "boxes",
    multiple=True,
    metavar="X,Y,W,H",
    help="A small face in one large photograph, colored by itself; repeatable.",
)
@weights_option
@trained_profile_option
@trained_option
def colorize(
    inputs, output, force, strength, compare, boxes, weights, profile, run_dir
):
    """Color photographs of any size, as PNG.

    INPUTs are files, folders, zips or patterns ('scans/*.jpg'); of many pages or an
    animation the first picture is taken. 16 bits and alpha are kept. The network is that
    of weights/colorizer.safetensors.
    """
    import numpy as np

    from helpers.apps.colorize import colorize_all, grayscale
    from helpers.apps.photographs import (
        check_all_read,
        comparison,
        find_photographs,
        targets,
    )
    from helpers.data.images import decode_picture, write_image
    from helpers.progress import progress

    boxes = [_box(given) for given in boxes]
    net = _network(weights, profile, run_dir, COLORIZER_WEIGHTS, "colorizer")
    photographs = find_photographs(inputs, decode_picture)
    if boxes and len(photographs) > 1:
        raise InputError(
            f"--box: is for one photograph, not {len(photographs)}; color it alone"
        )
    paths = targets(photographs, Path(output), force, compare)
    reads, unreadable = [photograph.read for photograph in photographs], []
    start = time.perf_counter()
    with progress(None, "coloring", total=len(paths)) as bar:

        def write(path: Path, image_bgr, result_bgr):
            write_image(path, result_bgr)
            if compare:
                both = np.hstack([grayscale(image_bgr), result_bgr])
                write_image(comparison(path), both)

        def report(path: Path, error: InputError | None):
            bar.update()
            if error:
                unreadable.append(str(error))
            elif bar.disable:
                click.echo(click.format_filename(path))

        jobs = zip(paths, reads, strict=True)
        colorize_all(net, jobs, write, report, strength=strength, boxes=boxes)
    seconds, done = time.perf_counter() - start, len(paths) - len(unreadable)
    if done:
        click.echo(
            f"colored {done} of {len(paths)} photographs in {seconds:.1f} s "
            f"({done / seconds:.1f}/s), peak memory {peak_memory() / 2**20:.0f} MiB",
            err=True,
        )
    check_all_read(unreadable, len(paths))


def _box(given: str) -> tuple[int, int, int, int]:
    """The numbers of --box X,Y,W,H."""
    try:
        left, top, width, height = map(int, given.split(","))
    except ValueError:
        raise InputError(
            f"--box {given}: write X,Y,W,H, four whole numbers of pixels"
        ) from None
    return left, top, width, height


def _network(weights: str, profile: str, run_dir: str, names: tuple, kind: str):
    """The network to use: that of --weights, of a run that is named, or our own."""
    from helpers.experiments.run_folder import default_run_dir
    from helpers.training.checkpoint import find_weights, load_network

    if weights or not (profile or run_dir):
        return load_network(find_weights(weights or kind), kind)
    folder = default_run_dir(profile, run_dir)
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise InputError(
            f"{folder}: no trained {kind} here; "
            "run `deepcolor run` first or give --weights"
        )
    return load_network(found[0], kind)


@main.command()
@click.option(
    "--weights",
    multiple=True,
    metavar="NAME|FILE",
    help="A network to choose on the page; repeatable. By default those in weights/.",
)
@click.option(
    "--port",
    default=7860,
    type=click.IntRange(1, 65535),
    show_default=True,
    help="The next free one is taken when it is not free.",
)
def demo(weights, port):
    """Open a page for the browser: drop a photograph, see it colored, download it."""
    from helpers.apps.demo import serve

    serve(weights, port, log=click.echo)
