"""The commands for students and graders: `deepcolor student`, etc."""

import click

from helpers.cli_options import images_option, run_dir_option

COMMANDS = []


def command(function):
    """Collect a command for the group of `helpers.cli`."""
    COMMANDS.append(click.command()(function))
    return COMMANDS[-1]


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
@click.argument("submission", default="outputs/quick", metavar="[DIR|ZIP]")
@images_option
def grade(submission, images):
    """Grade a run folder or a submission by evidence; by default, outputs/quick."""
    from helpers.apps.grade import grade as grade_submission

    grade_submission(submission, images, log=click.echo)


@command
@click.argument("results", metavar="RESULTS.json")
@click.option(
    "--only", default="", metavar="NAME", help="Only this network, or this notebook."
)
@images_option
@run_dir_option
def reproduce(results, only, images, run_dir):
    """Run again what a results file claims, and compare the errors.

    RESULTS.json is that of a run folder, metrics.json of one training run, or a file in
    reference/.
    """
    from helpers.apps.reproduce import reproduce as run_again

    run_again(results, only=only, images=images, run_dir=run_dir, log=click.echo)
