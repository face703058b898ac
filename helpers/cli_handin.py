"""The commands for students and graders: `deepcolor student`, etc."""

import click

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
