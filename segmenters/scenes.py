"""The segmenter `scenes`: the pixels of church scenes, 128×128 and thereabouts, in 23 classes."""

from __future__ import annotations

from pathlib import Path

from .base import Vocabulary
from .unet import UNetSegmenter

# name, category, display colour
CLASSES: tuple[tuple[str, str, str], ...] = (
    ("sky", "object", "#8cc4f0"),
    ("cloud", "object", "#e8eef5"),
    ("sun", "object", "#ffd84a"),
    ("mountain", "object", "#7d86a3"),
    ("water", "object", "#3a7ca5"),
    ("grass", "object", "#8ccf5a"),
    ("snow", "object", "#bcd0dc"),
    ("path", "object", "#d9bf8c"),
    ("tree", "object", "#1f7a3a"),
    ("bush", "object", "#5a9e4b"),
    ("building", "object", "#c9a27e"),
    ("tower", "object", "#a8744f"),
    ("roof", "part", "#b5473c"),
    ("spire", "part", "#7c2f4f"),
    ("dome", "part", "#3fa79a"),
    ("door", "part", "#6b3f1d"),
    ("window", "part", "#2f4fa8"),
    ("clock", "part", "#f2f0d0"),
    ("fence", "object", "#a08c6e"),
    ("person", "object", "#d8337a"),
    ("lamp", "object", "#f08c1e"),
    ("boat", "object", "#8a3ff0"),
    ("balloon", "object", "#f0503c"),
)
VOCABULARY = Vocabulary(
    names=tuple(name for name, _, _ in CLASSES),
    categories=tuple(category for _, category, _ in CLASSES),
    colours=tuple(colour for _, _, colour in CLASSES),
)


class ScenesSegmenter(UNetSegmenter):
    """Church scenes in 23 classes. Trained on renders alone, never on generated images."""

    name = "scenes"
    vocabulary = VOCABULARY
    weights = Path(__file__).parent / "weights" / "scenes.safetensors"
