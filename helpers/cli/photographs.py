"""The commands for photographs of your own: `deepcolor colorize`, `demo`, etc."""

from functools import partial
from pathlib import Path

import click

from helpers.cli.options import (
    TONES,
    Strength,
    collect_in,
    force_option,
    output_option,
    trained_profile_option,
    trained_run_option,
    weights_option,
)

COMMANDS = []
command = collect_in(COMMANDS)


@command
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


@command
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
    from helpers.files import InputError, WorkFailed

    options["strength"] *= LIVELY if vivid else 1
    options |= {"log": _echo, "summarize": partial(click.echo, err=True)}
    options["boxes"] = [files.parse_box(given) for given in boxes]
    films, photographs = files.split_films(inputs)
    only = bool(boxes or points or options["compare"])
    files.check_films(films, output, options["force"], only)
    net = files.load_network(weights, profile, run_dir, "colorizer")
    options["hints"] = make_hints(net, points, like, tone)
    failed = None
    if photographs:
        try:
            files.colorize_files(net, photographs, output, **options)
        except (InputError, WorkFailed) as error:
            failed = error  # the films are still colorized
    if films:
        names = ("strength", "hints", "log", "summarize")
        files.colorize_films(net, films, output, **{n: options[n] for n in names})
    if failed:
        raise failed


@command
@click.argument("weights")
@click.argument("output", type=click.Path(path_type=Path))
@force_option
def export(weights, output, force):
    """Write the network WEIGHTS as OUTPUT.onnx, for other programs."""
    from helpers.apps.export import export

    export(weights, output, force, log=click.echo)


@command
@click.option(
    "--weights",
    multiple=True,
    metavar="NAME|FILE",
    help="A network to offer on the page; repeatable. By default, portrait.",
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
