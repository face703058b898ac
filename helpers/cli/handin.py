"""The commands for students and graders: `deepcolor student`, etc."""

from pathlib import Path

import click

from helpers.cli.options import (
    POSITIVE,
    collect_in,
    force_option,
    images_option,
)

COMMANDS = []
command = collect_in(COMMANDS)


@command
@click.argument("folder", metavar="DIR")
@click.option("--solutions", is_flag=True, help="With solutions and stored outputs.")
@click.option(
    "--keep", is_flag=True, help="Leave copies that exist already as they are."
)
def student(folder, solutions, keep):
    """Copy the notebooks to DIR, without the solutions of the exercises.

    Copies with solutions are source notebooks for nbgrader, too.
    """
    from helpers.apps.student import copy_notebooks

    copy_notebooks(folder, solutions=solutions, keep=keep, log=click.echo)


@command
@click.argument("submission", default="", metavar="[DIR|ZIP]")
@images_option
def grade(submission, images):
    """Grade a run folder or a submission from what it contains and does.

    By default, outputs/quick.
    """
    from helpers.apps.grade import grade as grade_submission
    from helpers.experiments.run_folder import default_run_dir

    grade_submission(default_run_dir("quick", submission), images, log=click.echo)


@command
def examples():
    """Write the pictures in examples/ again."""
    from helpers.apps.examples import write_examples

    write_examples(log=click.echo)


@command
@click.argument("results", metavar="RESULTS.json")
@click.option(
    "--only", default="", metavar="NAME", help="Only this network, or this notebook."
)
@images_option
@click.option(
    "--run-dir",
    default="",
    metavar="DIR",
    help="Folder for the new results; by default, a scratch folder.",
)
def reproduce(results, only, images, run_dir):
    """Run again what a results file claims, and compare the errors.

    RESULTS.json is that of a run folder, metrics.json of one training run, or a file in
    reference/.
    """
    from helpers.apps.reproduce import reproduce as run_again

    run_again(results, only=only, images=images, run_dir=run_dir, log=click.echo)


@command
@click.argument("run_dir", required=False, default="", metavar="[RUN_DIR]")
@click.option(
    "--text",
    metavar="FILE.md",
    help="Markdown whose sections replace those of the default text.",
)
@click.option("--authors", default="", metavar="NAMES", help="Names below the title.")
@click.option(
    "--full", is_flag=True, help="Every network and figure, on as many pages as needed."
)
def report(run_dir, **options):
    """Write the report of a run as PDF and HTML, on one page.

    RUN_DIR is a folder that `deepcolor run` has filled; by default, outputs/quick. The
    sections of the text are Implementation, Evaluation, How to run, Known problems, and
    Extra credit: Tanh, feature maps, classification.
    """
    from helpers.apps.report import write_report
    from helpers.experiments.run_folder import default_run_dir

    for path in write_report(default_run_dir("quick", run_dir), **options):
        click.echo(f"wrote {path}")


@command
@click.argument("run_dir", default="", metavar="[RUN_DIR]")
@click.option("-o", "--output", default="submission.zip", metavar="FILE.zip")
@click.option("--with-images", is_flag=True, help="Include the images of the run.")
@click.option(
    "--tour-link", default="", metavar="URL", help="Where the film is shared."
)
@click.option(
    "--max-size",
    default=500,
    type=POSITIVE,
    show_default=True,
    help="Largest zip file, in MB.",
)
@force_option
def submit(run_dir, output, with_images, tour_link, max_size, force):
    """Write the zip file to hand in, after grading the run folder."""
    from helpers.apps.submit import submit as write_submission
    from helpers.experiments.run_folder import default_run_dir

    write_submission(
        default_run_dir("quick", run_dir),
        output,
        with_images=with_images,
        tour_link=tour_link,
        max_megabytes=max_size,
        force=force,
        log=click.echo,
    )


@command
@click.argument("script", metavar="[SCRIPT]", required=False)
@click.option("-o", "--output", metavar="FILE", help="[default: videotour/tour.mp4]")
@click.option("--silent", is_flag=True, help="Captions without speech.")
@force_option
def tour(script, output, silent, force):
    """Play videotour/script.md in JupyterLab and film it, with captions.

    This takes some minutes and needs chromium and ffmpeg; espeak-ng speaks the captions.
    """
    from helpers.apps.tour import FILM, MINUTES, SCRIPT, record_tour
    from helpers.files import make_folder, refuse_existing

    output = Path(output or FILM)
    refuse_existing(output, force)
    make_folder(output.parent)
    seconds = record_tour(script or SCRIPT, output, speech=not silent, log=click.echo)
    click.echo(f"{output}: {seconds / 60:.1f} minutes")
    if not MINUTES[0] <= seconds / 60 <= MINUTES[1]:
        click.echo("The assignment asks for {} to {} minutes.".format(*MINUTES))
