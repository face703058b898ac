"""The command line: `deepcolor run`, `train`, `sweep`, `bench`, `evaluate`, etc."""

import warnings
from functools import partial
from pathlib import Path

import click

from helpers.cli.handin import COMMANDS
from helpers.cli.options import (
    COUNT,
    DEFAULT_SEED,
    POSITIVE,
    SEED,
    TONES,
    Course,
    Strength,
    data_options,
    device_option,
    epochs_option,
    evaluation_options,
    force_option,
    images_option,
    output_option,
    profile_option,
    run_dir_option,
    seed_option,
    split_option,
    trained_profile_option,
    trained_run_option,
    weights_option,
    whole_numbers,
)
from helpers.files import InputError


@click.group(
    cls=Course,
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool):
    """Deep colorization: networks that predict a*, b* of a photograph from its L*."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


@main.command()
@data_options
@click.option(
    "--seed", type=SEED, help="Random seed; by default, the one in the notebooks."
)
@epochs_option
@click.option(
    "--only", multiple=True, metavar="NN", help="Run only this notebook; repeatable."
)
@click.option(
    "--resume", is_flag=True, help="Skip notebooks whose inputs are unchanged."
)
@click.option(
    "-p",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a notebook parameter; repeatable.",
)
def run(profile, run_dir, only, resume, parameters, seed, epochs, **given):
    """Run the notebooks in order; the results are written to the run folder."""
    from helpers.apps.runner import run_notebooks
    from helpers.experiments.run_folder import default_run_dir

    given |= {"profile": profile} | ({"num_epochs": str(epochs)} if epochs else {})
    given |= {} if seed is None else {"seed": str(seed)}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not equals:
            raise InputError(f"-p {parameter}: write -p NAME=VALUE")
        given[name] = value
    folder = default_run_dir(given["profile"], run_dir)
    page = run_notebooks(folder, given, only=only, resume=resume, log=click.echo)
    click.echo(page.read_text(encoding="utf-8"))
    click.echo(f"wrote {page}")


@main.command()
@click.argument("name")
@data_options
@seed_option
@epochs_option
@click.option(
    "--start",
    default="",
    metavar="NAME|FILE",
    help="Fine-tune these weights, at a tenth of the learning rate.",
)
@click.option("--plain", is_flag=True, help="Compute training steps in plain PyTorch.")
@click.option(
    "--without",
    multiple=True,
    metavar="OPTION",
    help="Do not use narrow, threads, channels_last, bf16, fused, ...; repeatable.",
)
@click.option("--tensorboard", is_flag=True, help="Write curves and sample images.")
def train(name, **options):
    """Train one network by its NAME, for example maps/32.

    If training was stopped, the same command resumes it.
    """
    from helpers.experiments.run import train_one

    train_one(name, log=click.echo, **options)


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@data_options
@seed_option
@epochs_option
def reference(names, **options):
    """Train networks by NAME; keep their results in reference/ for the notebooks.

    A finished run in --run-dir is not trained again.
    """
    from helpers.experiments.reference import make_reference

    for name in names:
        make_reference(name, log=click.echo, **options)


@main.command()
@click.argument("names", nargs=-1, required=True)
@data_options
@epochs_option
@click.option(
    "--seeds",
    default=str(DEFAULT_SEED),
    metavar="K,K,...",
    show_default=True,
    help="Random seeds; each network is trained with each of them.",
)
@click.option(
    "--jobs",
    default=0,
    type=COUNT,
    help="Training runs in parallel; by default, one per free core.",
)
@click.option(
    "--cluster", default="", metavar="slurm", help="Submit each training run as a job."
)
@click.option("--time", default=60, help="Time limit per job, in minutes.")
@click.option("--memory", default=8, help="Memory per job, in GB.")
@click.option("--gpus", default=0, help="GPUs per job.")
@click.option("--account", help="Account to charge for the jobs.")
@click.option("--qos", help="Quality of service for the jobs.")
def sweep(names, seeds, run_dir, profile, time, memory, gpus, account, qos, **options):
    """Train networks by NAMES, patterns ('maps/*') or a YAML file; write one table."""
    from helpers.experiments.run_folder import default_run_dir
    from helpers.experiments.sweep import chosen, run_sweep

    names, numbers = chosen(names, whole_numbers(seeds, "--seeds"))
    slurm = {"timeout_min": time, "mem_gb": memory, "gpus_per_node": gpus}
    slurm |= {"slurm_account": account, "slurm_qos": qos}
    folder = default_run_dir(profile, run_dir)
    options |= {"run_dir": folder, "profile": profile, "log": click.echo}
    page = run_sweep(names, numbers, slurm=slurm, **options)
    click.echo(page.read_text(encoding="utf-8"))
    click.echo(f"wrote {page}")


@main.command()
@click.argument("networks", nargs=-1)
@click.option("--repeats", default=7, type=POSITIVE, show_default=True)
@click.option("--steps", default=2, type=POSITIVE, show_default=True)
@click.option("--threads", default="", metavar="K,K,...", help="By default, 1 and all.")
@device_option
@profile_option
@run_dir_option
def bench(networks, repeats, steps, threads, device, profile, run_dir):
    """Measure the training speed of NETWORKS on this machine, one change per row.

    NETWORKS are regressor, sigmoid (both of report 000), colorizer (stride 2), stack (of
    report 003) and unet; by default, all.
    """
    from helpers.apps.bench import run_bench
    from helpers.experiments.run_folder import default_run_dir

    counts = whole_numbers(threads, "--threads")
    folder = default_run_dir(profile, run_dir)
    run_bench(networks, counts, repeats, steps, device, folder, log=click.echo)


@main.command()
@click.argument("folders", nargs=-1, required=True, metavar="RUN_DIR...")
@click.option("-o", "--output", default="RESULTS.md", show_default=True, metavar="FILE")
def results(folders, output):
    """Collect the results of all training runs in run folders on one page."""
    from helpers.experiments.leaderboard import write_leaderboard

    click.echo(f"wrote {write_leaderboard([Path(f) for f in folders], Path(output))}")


@main.command()
@click.argument("weights")
@images_option
@click.option(
    "--split",
    default="all",
    type=click.Choice(["all", "random", "groups", "folders"]),
    show_default=True,
    help="Use all images, or only the test set of this split.",
)
@evaluation_options
@seed_option
@device_option
def evaluate(**options):
    """Evaluate trained WEIGHTS on the photographs in --images."""
    from helpers.apps.evaluate_weights import evaluate_weights

    evaluate_weights(**options, log=click.echo)


@main.command()
@click.argument("weights", nargs=2)
@images_option
@split_option
@seed_option
def compare(**options):
    """Compare two networks on one test set: the paired difference of their errors."""
    from helpers.apps.evaluate_weights import compare_weights

    compare_weights(**options, log=click.echo)


@main.command()
@click.argument("weights")
@images_option
@output_option
@click.option(
    "--save-estimations",
    is_flag=True,
    help="Also write estimations_test.npy and the file names.",
)
@force_option
@device_option
def predict(**options):
    """Write the predictions of WEIGHTS for --images, at the training resolution."""
    from helpers.apps.evaluate_weights import predict_folder

    predict_folder(**options, log=click.echo)


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGES...")
@weights_option
@trained_profile_option
@trained_run_option
def chrominance(inputs, weights, profile, run_dir):
    """Predict the mean a* and mean b* of photographs from their lightness.

    IMAGES are files, folders, zips or patterns ('scans/*.jpg'). The network is
    weights/regressor.safetensors unless another is given.
    """
    from helpers.apps.colorize_files import list_chrominance, load_network

    net = load_network(weights, profile, run_dir, "regressor")
    list_chrominance(net, inputs, log=_echo)


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@output_option
@force_option
@click.option(
    "--strength",
    default=1.0,
    type=Strength(0, 2),
    show_default=True,
    help="0: gray; 1: as predicted; 2: twice the chrominance.",
)
@click.option(
    "--vivid", is_flag=True, help="Livelier colors; the same as --strength 1.15."
)
@click.option(
    "--compare",
    is_flag=True,
    help="Also write gray and colorized side by side, as NAME.compare.png.",
)
@click.option(
    "--box",
    "boxes",
    multiple=True,
    metavar="X,Y,W,H",
    help="Colorize this region, a small face, separately (one photograph); repeatable.",
)
@click.option(
    "--faces/--no-faces",
    default=True,
    help="Find small faces and colorize each separately (default).",
)
@click.option(
    "--hint",
    "points",
    multiple=True,
    metavar="X,Y=COLOR",
    help="The color of one place, for example 120,80=#c58c6a or 300,400=navy; repeatable.",
)
@click.option(
    "--like", default="", metavar="FILE", help="Use the mean color of this photograph."
)
@click.option(
    "--tone",
    default="",
    type=click.Choice(["", *TONES]),
    metavar="warm|neutral|cool",
    help="The mean color, relative to that of the training photographs.",
)
@weights_option
@trained_profile_option
@trained_run_option
def colorize(
    inputs,
    output,
    vivid,
    boxes,
    points,
    like,
    tone,
    weights,
    profile,
    run_dir,
    **options,
):
    """Colorize photographs of any size; the results are PNG files.

    INPUTs are files, folders, zips or patterns ('scans/*.jpg'). A film becomes an MP4
    file. For multi-page files and animations, only the first image is used. 16-bit depth
    and alpha are preserved. The network is weights/portrait.safetensors by default.
    """
    from helpers.apps import colorize_files as files
    from helpers.apps.colorize import LIVELY
    from helpers.apps.hints import make_hints

    options["strength"] *= LIVELY if vivid else 1
    options |= {"log": _echo, "summarize": partial(click.echo, err=True)}
    options["boxes"] = [files.parse_box(given) for given in boxes]
    films, photographs = files.split_films(inputs)
    only = bool(boxes or points or options["compare"])
    files.check_films(films, output, options["force"], only)
    net = files.load_network(weights, profile, run_dir, "colorizer")
    options["hints"] = make_hints(net, points, like, tone)
    if photographs:
        files.colorize_files(net, photographs, output, **options)
    if films:
        names = ("strength", "hints", "log", "summarize")
        files.colorize_films(net, films, output, **{n: options[n] for n in names})


@main.command()
@click.argument("weights")
@click.argument("output", type=click.Path(path_type=Path))
@force_option
def export(weights, output, force):
    """Write the network WEIGHTS as OUTPUT.onnx, for other programs."""
    from helpers.apps.export import export

    export(weights, output, force, log=click.echo)


@main.command()
@click.option(
    "--weights",
    multiple=True,
    metavar="NAME|FILE",
    help="A network to offer on the page; repeatable. By default, those in weights/.",
)
@click.option(
    "--port",
    default=7860,
    type=click.IntRange(1, 65535),
    show_default=True,
    help="If the port is in use, the next free one is used.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="0.0.0.0 serves your network, too; a password is then printed and asked for.",
)
def demo(weights, port, host):
    """Open a page in the browser: drop a photograph, see it colorized, download it."""
    from helpers.apps.demo import serve

    serve(weights, port, log=click.echo, host=host)


def _echo(line: str) -> None:
    """Print a line that may contain file names with arbitrary bytes."""
    click.echo(click.format_filename(line))
