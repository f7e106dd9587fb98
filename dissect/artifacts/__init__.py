"""Units behind artifacts: find them, and plant some to see how well they are found.

from ganatomy import dissect

suspects = dissect.artifacts.find("runs/progan_scenes-layer5", detector="rare")
suspects.units.head(20)
planted = dissect.artifacts.plant(dissect.load_generator("progan_scenes"), "layer5", [3, 17], "blotches")
"""

from .detectors import DETECTORS
from .find import find
from .planting import KINDS, plant
from .result import Suspects

__all__ = ["DETECTORS", "KINDS", "Suspects", "find", "plant"]
