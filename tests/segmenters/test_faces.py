"""The embedded segmenter of faces against the landmark model that taught it, on samples that it was not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ganatomy.segmenters import load_segmenter
from ganatomy.segmenters.faces import VOCABULARY

# samples 0, 2, …, 10 of seed 12 of `dcgan_faces`: images (N, 3, 64, 64) uint8, the teacher's labels (N, 128, 128) uint8
HELD_OUT = np.load(Path(__file__).parent / "faces.npz")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(HELD_OUT["images"]).float() / 255


def test_parts_of_faces_are_where_the_teacher_sees_them(images: torch.Tensor) -> None:
    large = F.interpolate(images, (128, 128), mode="bilinear", antialias=True)
    said, taught = load_segmenter("faces")(large)[:, 0], torch.from_numpy(HELD_OUT["labels"]).long()
    assert (said == taught).double().mean() > 0.75
    for number, name in enumerate(VOCABULARY.names):
        both = ((said == number) & (taught == number)).sum()
        assert both / ((said == number) | (taught == number)).sum() > 0.2, name


def test_images_of_any_size_are_named_alike(images: torch.Tensor) -> None:
    segmenter = load_segmenter("faces")
    small, large = segmenter(images), segmenter(F.interpolate(images, scale_factor=4.0, mode="bilinear"))
    assert small.shape == (6, 1, 64, 64)
    assert (small == large[:, :, ::4, ::4]).double().mean() > 0.9


def test_probabilities_carry_a_gradient(images: torch.Tensor) -> None:
    images = images.clone().requires_grad_(True)
    chances = load_segmenter("faces").probabilities(images)  # type: ignore[attr-defined]
    assert torch.allclose(chances.sum(1), torch.ones(6, 64, 64), atol=1e-5)
    chances[:, VOCABULARY.names.index("eye")].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
