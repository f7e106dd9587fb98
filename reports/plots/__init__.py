"""Results as figures of matplotlib, fit for a paper: intervals, units on the axes, colours that the colour-blind tell
apart, and text that stays text in PDF and SVG. The methods `plot…` of the results call these functions."""

from .audits import diversity, fitness, repair, seams, spectrum, watched
from .interventions import effects, scan
from .runs import classes, units

__all__ = [
    "classes",
    "diversity",
    "effects",
    "fitness",
    "repair",
    "scan",
    "seams",
    "spectrum",
    "units",
    "watched",
]
