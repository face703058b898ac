"""How good a network is: metrics with intervals, predictions, figures."""
