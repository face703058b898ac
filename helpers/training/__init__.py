"""Training: the loop, optimizers, checkpoints, and the execution of steps."""

from helpers.training.checkpoint import remove_checkpoint
from helpers.training.execution import set_seed
from helpers.training.loop import fit
from helpers.training.muon import orthogonal
from helpers.training.optim import Recipe, has_settled, minibatches
from helpers.training.tensorboard import TensorBoardLogger
from helpers.training.weights import find_weights, load_weights
