"""The command line, `deepcolor`; nothing but `helpers.__main__` imports it."""

from helpers.cli.commands import main
