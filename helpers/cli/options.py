"""What the commands of the command line share: options, and how errors are shown."""

import math
from collections.abc import Callable
from pathlib import Path

import click

from helpers.files import InputError, WorkFailed

CANCELED = 130  # exit code after Ctrl-C
DEFAULT_SEED = 4  # as in helpers.experiments.registry, which is slow to import
POSITIVE, COUNT = click.IntRange(min=1), click.IntRange(min=0)
MAX_SEED = 2**32 - 1  # as in helpers.experiments.run_folder
SEED = click.IntRange(0, MAX_SEED)
TONES = ("warm", "neutral", "cool")
PROFILES = click.Choice(["quick", "standard", "full"])
images_option = click.option(
    "--images",
    default="",
    metavar="FOLDER|ZIP|portraits",
    help="Photographs; by default, those in face_images/ or the synthetic portraits.",
)
run_dir_option = click.option(
    "--run-dir",
    default="",
    metavar="DIR",
    help="Folder for the results; by default, outputs/<profile>.",
)
profile_option = click.option(
    "--profile",
    default="quick",
    type=PROFILES,
    show_default=True,
    help="How long to train: minutes, half an hour, or the long protocols for a GPU.",
)
split_option = click.option(
    "--split",
    default="random",
    type=click.Choice(["random", "groups", "folders"]),
    show_default=True,
    help="groups: no sitter is in both sets. folders: the sets are named train and val.",
)
notebook_split_option = click.option(
    "--split",
    default="random",
    type=click.Choice(["random", "groups"]),
    show_default=True,
    help="groups: no sitter is in both sets.",
)
device_option = click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"])
)
seed_option = click.option(
    "--seed",
    default=DEFAULT_SEED,
    type=SEED,
    show_default=True,
    help="Random seed for the split, the augmentation and the weights.",
)
epochs_option = click.option(
    "--epochs",
    default=0,
    type=COUNT,
    help="Number of epochs; by default, the profile's.",
)
jobs_option = click.option(
    "--jobs",
    default=1,
    type=POSITIVE,
    show_default=True,
    help="Number of notebooks that run at the same time.",
)
cell_timeout_option = click.option(
    "--cell-timeout",
    default=0,
    type=COUNT,
    metavar="SECONDS",
    help="Stop at a cell that takes longer; by default, never.",
)
weights_option = click.option(
    "--weights",
    default="",
    metavar="NAME|FILE",
    help="One of the networks in weights/, or a .safetensors file.",
)
trained_run_option = click.option(
    "--run-dir", default="", metavar="DIR", help="Use the network from this run."
)
trained_profile_option = click.option(
    "--profile",
    type=PROFILES,
    help="Use the network from the run in outputs/<profile>.",
)
output_option = click.option(
    "-o",
    "--output",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder for the images.",
)
force_option = click.option("--force", is_flag=True, help="Replace existing files.")


class Strength(click.FloatRange):
    """A number from 0 to 2; "nan" is none."""

    def convert(self, value, param, ctx):
        """Return the number; fail for "nan", which click's range lets pass."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number from {self.min} to {self.max}.")
        return number


def _with_options(command, options):
    """Add options to a command, in the order in which its help lists them."""
    for option in reversed(options):
        command = option(command)
    return command


def data_options(command, split=split_option):
    """Add the options that run, train and sweep share."""
    options = [profile_option, images_option, split, run_dir_option, device_option]
    return _with_options(command, options)


def notebook_data_options(command):
    """Add the same options, but only the splits that the notebooks can use."""
    return data_options(command, notebook_split_option)


def whole_numbers(text: str, option: str) -> list[int]:
    """Return the numbers in "1,2,3"; raise InputError for anything else."""
    if not all(word.isdecimal() for word in text.split(",") if text):
        raise InputError(f"{option} {text}: write whole numbers, 1,2,3")
    numbers = [int(word) for word in text.split(",") if text]
    if max(numbers, default=0) > MAX_SEED:
        raise InputError(f"{option} {text}: numbers up to {MAX_SEED}")
    return numbers


def evaluation_options(command):
    """Add the options of evaluate that ask for more figures."""
    options = [
        click.option(
            "--hints", is_flag=True, help="Also with color hints, and by lightness."
        ),
        click.option(
            "--against",
            multiple=True,
            metavar="NAME|FILE",
            help="Compare with this network on the same images; repeatable.",
        ),
        click.option(
            "--tables",
            is_flag=True,
            help="Compare with the baselines, fitted to the training set of --split.",
        ),
        click.option(
            "--output",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Also write the figures as JSON.",
        ),
        force_option,
    ]
    return _with_options(command, options)


class Course(click.Group):
    """A group of commands that turns errors into one line and an exit code."""

    def invoke(self, ctx: click.Context):
        """Run a command; exit 2 on invalid input, 1 on failed work, 130 on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except (InputError, WorkFailed) as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(2 if isinstance(error, InputError) else 1)
        except KeyboardInterrupt:
            click.echo("stopped by Ctrl-C; finished results are kept", err=True)
            ctx.exit(CANCELED)


def collect_in(commands: list) -> Callable:
    """Return a decorator that makes a function a command and adds it to a list."""

    def collect(function):
        commands.append(click.command()(function))
        return commands[-1]

    return collect
