"""User-facing programs: colorize, the demo page, the notebook runner, the benchmark."""

from helpers.apps.bench import cost_curves, measure, table, variants
from helpers.apps.colorize import colorize, grayscale
from helpers.apps.upsampling import DetailedMap
