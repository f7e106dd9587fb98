"""Random numbers from a counter: a pure function of seed, stream and number, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# a sample's index is the stream of its latent; all other streams are far above these
BOOTSTRAP, ROTATION, PIXELS, WEIGHTS, MATCHING, HALVES, COLOURS, PICTURES, SHIFTS, NOISE, DIRECTIONS = (
    2**62 + k for k in range(11)
)
PERMUTATION = 2**63  # and, above it, one for each size of a block


def dice(seed: int, stream: int, number: int = 0) -> np.random.Generator:
    """An independent generator for the `number`-th use of a stream (Philox, Salmon et al. 2011).

    >>> float(dice(0, PIXELS, 3).random()) == float(dice(0, PIXELS, 3).random())
    True
    >>> float(dice(0, PIXELS, 3).random()) == float(dice(0, PIXELS, 4).random())
    False
    """
    key = np.array([seed, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, number, 0, 0]))


def bits(shape: tuple[int, int], seed: int, stream: int, number: int) -> NDArray[np.uint64]:
    """Uniform 64-bit numbers of this shape."""
    return dice(seed, stream, number).bit_generator.random_raw(shape)
