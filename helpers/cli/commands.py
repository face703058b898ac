"""The command line: `deepcolor run`, `train`, `sweep`, `bench`, `evaluate`, etc."""

import warnings
from pathlib import Path

import click

from helpers.cli import handin, photographs
from helpers.cli.options import (
    COUNT,
    DEFAULT_SEED,
    POSITIVE,
    SEED,
    Course,
    cell_timeout_option,
    data_options,
    device_option,
    epochs_option,
    evaluation_options,
    force_option,
    images_option,
    jobs_option,
    notebook_data_options,
    output_option,
    run_dir_option,
    seed_option,
    split_option,
    whole_numbers,
)
from helpers.files import InputError


@click.group(
    cls=Course,
    commands=handin.COMMANDS + photographs.COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool):
    """Deep colorization: networks that predict a*, b* of a photograph from its L*."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


@main.command()
@notebook_data_options
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
@jobs_option
@cell_timeout_option
@click.option(
    "-p",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a notebook parameter; repeatable.",
)
def run(
    profile,
    run_dir,
    parameters,
    seed,
    epochs,
    only,
    resume,
    jobs,
    cell_timeout,
    **given,
):
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
    how = {"only": only, "resume": resume, "jobs": jobs, "cell_timeout": cell_timeout}
    page = run_notebooks(folder, given, **how, log=click.echo)
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
    default="",
    metavar="K,K,...",
    show_default=f"those of the file, or {DEFAULT_SEED}",
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
@run_dir_option
def bench(networks, repeats, steps, threads, device, run_dir):
    """Measure the training speed of NETWORKS on this machine, one change per row.

    NETWORKS are regressor, sigmoid (both of report 000), colorizer (stride 2), stack (of
    report 003) and unet; by default, all.
    """
    from helpers.apps.bench import run_bench
    from helpers.experiments.run_folder import default_run_dir

    counts = whole_numbers(threads, "--threads")
    folder = default_run_dir("quick", run_dir)
    run_bench(networks, counts, repeats, steps, device, folder, log=click.echo)


@main.command()
@click.argument("folders", nargs=-1, metavar="[RUN_DIR...]")
@click.option("-o", "--output", default="RESULTS.md", show_default=True, metavar="FILE")
def results(folders, output):
    """Collect the results of all training runs in run folders on one page.

    Without a folder, only the table and the plot at the top of the page are updated.
    """
    from helpers.experiments.leaderboard import renew_opening, write_leaderboard

    path, folders = Path(output), [Path(folder) for folder in folders]
    path = write_leaderboard(folders, path) if folders else renew_opening(path)
    click.echo(f"wrote {path} and {path.with_suffix('.png')}")


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
