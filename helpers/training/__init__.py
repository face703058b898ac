"""The training loop, optimizers, checkpoints, and how steps are computed."""
