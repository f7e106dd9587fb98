"""The network that the embedded segmenters share: a small U-Net that sees images at 128×128."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .base import UNLABELLED, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn

SIDE = 128  # pixels; images of another size are resized to it and the labels back
CONFIDENCE = 0.5  # a pixel whose best class is less probable stays unlabelled


def network(classes: int) -> nn.Module:
    """images (N, 3, 128, 128) in [-2, 2] -> class scores (N, classes, 128, 128), with random weights."""
    import segmentation_models_pytorch as smp

    return smp.Unet(
        "tu-tf_mobilenetv3_small_minimal_100",
        encoder_weights=None,
        encoder_depth=4,
        decoder_channels=(64, 48, 32, 24),
        classes=classes,
    )


def normalise(images: Tensor) -> Tensor:
    """[0, 1] -> [-2, 2]."""
    return (images - 0.5) * 4


class UNetSegmenter:
    """A segmenter whose weights come with the package; subclasses say which, and what the classes are called."""

    name: str
    vocabulary: Vocabulary
    weights: Path

    def __init__(self, device: str = "cpu") -> None:
        import torch
        from safetensors.torch import load_file

        self.network = network(len(self.vocabulary))
        self.network.load_state_dict(load_file(self.weights))
        self.network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> labels (N, 1, H, W) int64, -1 where no class reaches CONFIDENCE."""
        import torch
        from torch.nn import functional as F

        size = images.shape[2:]
        with torch.inference_mode():
            scores = self._scores(images)
            if size.numel() < SIDE**2:  # fewer pixels to name
                scores = F.interpolate(scores, size, mode="nearest-exact")
            best, labels = scores.max(1, keepdim=True)  # (N, 1, …)
            total = (scores - best).exp_().sum(1, keepdim=True).log_() + best  # logsumexp, whose maximum is known
            labels = labels.masked_fill(best - total < torch.tensor(CONFIDENCE).log(), UNLABELLED)
            if labels.shape[2:] != size:
                labels = F.interpolate(labels.float(), size, mode="nearest-exact").long()
        return labels

    def probabilities(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> (N, C, H, W) in [0, 1], differentiable."""
        from torch.nn import functional as F

        chances = self._scores(images).softmax(1)
        if images.shape[2:] != (SIDE, SIDE):
            chances = F.interpolate(chances, images.shape[2:], mode="bilinear", antialias=True, align_corners=False)
        return chances

    def _scores(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> class scores (N, C, 128, 128)."""
        import torch
        from torch.nn import functional as F

        if images.shape[2:] != (SIDE, SIDE):
            images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        scores: Tensor = self.network(normalise(images).contiguous(memory_format=torch.channels_last))
        return scores
