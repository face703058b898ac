"""`python -m helpers ...` is `deepcolor ...`; torchrun starts its processes this way."""

from helpers.cli import main

main()
