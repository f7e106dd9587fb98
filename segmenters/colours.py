"""Display colours for classes that come without any."""

from __future__ import annotations

import colorsys

GOLDEN_RATIO = (5**0.5 - 1) / 2  # of the colour circle; steps of it never come back to the same hue
TONES = ((0.52, 0.62), (0.36, 0.70), (0.68, 0.72))  # (lightness, saturation) in turn, so that near hues still differ


def palette(n: int) -> tuple[str, ...]:
    """n distinct colours "#rrggbb"; the i-th one is the same whatever n is."""
    colours = []
    for i in range(n):
        lightness, saturation = TONES[i % len(TONES)]
        rgb = colorsys.hls_to_rgb(i * GOLDEN_RATIO % 1, lightness, saturation)
        colours.append("#" + "".join(f"{round(channel * 255):02x}" for channel in rgb))
    return tuple(colours)
