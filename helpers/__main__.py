"""Run `deepcolor ...` as `python -m helpers ...`, for torchrun among others."""

from helpers.cli import main

main()
