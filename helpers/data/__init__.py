"""Photographs in: reading, splitting, augmenting, conversion to L*a*b*."""
