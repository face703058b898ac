"""The named experiments: their registry, how they run, and what they write."""

from helpers.experiments.registry import EXPERIMENTS, get_experiment
from helpers.experiments.run import evaluate_baselines, train_experiment
from helpers.experiments.run_folder import start_run
from helpers.experiments.tables import Row
