"""What a generator draws too rarely, too similarly, or never: mode collapse and missing classes, beside real images.

from ganatomy.dissect import diversity

result = diversity.audit("progan_scenes", samples=1000)    # what `dissect diversity` does
result.classes.query("verdict != ''")
result.whole                                               # metrics with interval, and real against real as their zero
result.layers                                              # where diversity is lost
diversity.compare_classes(generated, real, names)          # on your own shares of pixels, (N, C) and (M, C)
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
