"""Evaluation of networks: predictions, errors with intervals, figures."""

from helpers.evaluation import figures
from helpers.evaluation.evaluate import evaluate, predict
from helpers.evaluation.metrics import (
    accuracy_12,
    bootstrap,
    chrominance_mse,
    ciede2000,
    colorfulness,
    picture_metrics,
)
from helpers.evaluation.predictions import save_estimations
