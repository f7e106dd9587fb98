"""Controls: what a layer of a network that has learnt nothing would give.

rotation    the same network, its units mixed by a random orthogonal matrix: is it the units that mean something, or
            any direction of the layer? (Bau et al. 2017, section 3.2)
untrained   the same architecture with weights drawn anew, on its own images
"""

from __future__ import annotations

from ..scoring.layer_basis import ROTATION

UNTRAINED = "untrained"


CONTROLS = (ROTATION, UNTRAINED)
