"""What a generator draws too rarely, too alike, or never: mode collapse and missing classes, beside real images.

from ganatomy.dissect import diversity

found = diversity.audit("progan_scenes", samples=1000)     # what dissect diversity does
found.classes.query("verdict != ''")
found.whole                                                # metrics with interval, and real against real as their zero
found.layers                                               # where diversity dies
diversity.compare_classes(made, real, names)               # shares of pixels (N, C) and (M, C) of your own
"""

from .audit import audit
from .by_class import compare_classes, compare_pairs, contributions, mean_parts, segmentation_distance
from .by_layer import depth_table, effective_rank
from .result import Diversity
from .whole_images import support, twins, vendi

__all__ = [
    "Diversity",
    "audit",
    "compare_classes",
    "compare_pairs",
    "contributions",
    "depth_table",
    "effective_rank",
    "mean_parts",
    "segmentation_distance",
    "support",
    "twins",
    "vendi",
]
