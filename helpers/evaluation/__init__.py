"""How good a network is: predictions, errors with intervals, figures."""

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
from helpers.evaluation.predict import save_estimations

__all__ = [
    "accuracy_12",
    "bootstrap",
    "chrominance_mse",
    "ciede2000",
    "colorfulness",
    "evaluate",
    "figures",
    "picture_metrics",
    "predict",
    "save_estimations",
]
