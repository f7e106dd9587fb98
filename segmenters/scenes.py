"""The embedded segmenter: a small U-Net that names the pixels of church scenes, 128×128 and thereabouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .base import UNLABELLED, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights" / "scenes.safetensors"
SIDE = 128  # pixels; images of another size are resized to it and the labels back
CONFIDENCE = 0.5  # a pixel whose best class is less probable stays unlabelled

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


def network() -> nn.Module:
    """images (N, 3, 128, 128) in [-2, 2] -> class scores (N, 23, 128, 128), with random weights."""
    import segmentation_models_pytorch as smp

    return smp.Unet(
        "tu-tf_mobilenetv3_small_minimal_100",
        encoder_weights=None,
        encoder_depth=4,
        decoder_channels=(64, 48, 32, 24),
        classes=len(CLASSES),
    )


def normalise(images: Tensor) -> Tensor:
    """[0, 1] -> [-2, 2]."""
    return (images - 0.5) * 4


class ScenesSegmenter:
    """Church scenes in 23 classes. Trained on renders alone, never on generated images."""

    name = "scenes"
    vocabulary = VOCABULARY

    def __init__(self, device: str = "cpu") -> None:
        import torch
        from safetensors.torch import load_file

        self.network = network()
        self.network.load_state_dict(load_file(WEIGHTS))
        self.network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> labels (N, 1, H, W) int64, -1 where no class reaches CONFIDENCE."""
        import torch
        from torch.nn import functional as F

        size = images.shape[2:]
        with torch.inference_mode():
            scores = self._scores(images)
            best, labels = scores.max(1, keepdim=True)  # (N, 1, S, S)
            unsure = best - scores.logsumexp(1, keepdim=True) < torch.tensor(CONFIDENCE).log()
            labels = labels.masked_fill(unsure, UNLABELLED)
            if size != (SIDE, SIDE):
                labels = F.interpolate(labels.float(), size, mode="nearest-exact").long()
        return labels

    def probabilities(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> (N, 23, H, W) in [0, 1], differentiable."""
        from torch.nn import functional as F

        chances = self._scores(images).softmax(1)
        if images.shape[2:] != (SIDE, SIDE):
            chances = F.interpolate(chances, images.shape[2:], mode="bilinear", antialias=True, align_corners=False)
        return chances

    def _scores(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> class scores (N, 23, 128, 128)."""
        import torch
        from torch.nn import functional as F

        if images.shape[2:] != (SIDE, SIDE):
            images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        scores: Tensor = self.network(normalise(images).contiguous(memory_format=torch.channels_last))
        return scores
