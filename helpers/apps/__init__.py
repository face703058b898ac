"""What a user runs: colorize, demo page, notebook runner, benchmark."""
