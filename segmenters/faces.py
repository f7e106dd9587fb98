"""The segmenter `faces`: the parts of one face that fills the image, as generators of faces draw it."""

from __future__ import annotations

from pathlib import Path

from .base import Vocabulary
from .unet import UNetSegmenter

# name, category, display colour
CLASSES: tuple[tuple[str, str, str], ...] = (
    ("background", "object", "#8fa3b8"),
    ("person", "object", "#7a5a8c"),  # beyond the face: hair, hat, ears, neck, clothes
    ("face", "part", "#e8b48c"),
    ("nose", "part", "#d9763a"),
    ("brow", "part", "#5c3a1e"),
    ("eye", "part", "#2f6fd0"),
    ("lips", "part", "#d0304a"),
    ("mouth", "part", "#f2f0d0"),  # what open lips show
)
VOCABULARY = Vocabulary(
    names=tuple(name for name, _, _ in CLASSES),
    categories=tuple(category for _, category, _ in CLASSES),
    colours=tuple(colour for _, _, colour in CLASSES),
)


class FacesSegmenter(UNetSegmenter):
    """Faces in 8 classes, as a face-landmark model places them: see `dissect.recipes.train_faces`."""

    name = "faces"
    vocabulary = VOCABULARY
    weights = Path(__file__).parent / "weights" / "faces.safetensors"
