"""Results as figures of matplotlib, fit for a paper: intervals, units on the axes, colours that the colour-blind tell
apart, and text that stays text in PDF and SVG. The methods `plot…` of the results call these functions."""

from .audits import diversity, fitness, repair, seams, spectrum, watched
from .interventions import effects, scan
from .runs import class_effects, classes, unit_effects, units

__all__ = [
    "class_effects",
    "classes",
    "diversity",
    "effects",
    "fitness",
    "repair",
    "scan",
    "seams",
    "spectrum",
    "unit_effects",
    "units",
    "watched",
]
