"""What a run captures: layers, units, precision, thumbnails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

THUMBNAIL = 256  # pixels
PRECISIONS = FLOAT32, BFLOAT16 = "float32", "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Shapes and scales of what is captured, from a probe of one sample."""

    grid: int
    image: tuple[int, int]  # height, width
    planes: int
    shapes: dict[str, tuple[int, int, int]]  # layer -> units, height, width as spooled
    scales: dict[str, float]  # layer -> power of two by which featuremaps are divided to suit float16
    precision: str = FLOAT32  # in which the networks compute

    @classmethod
    def of(cls, info: dict[str, Any]) -> Plan:
        """The plan that a run.json records."""
        return cls(
            grid=info["grid"],
            image=tuple(info["image"]),
            planes=info["planes"],
            shapes={name: (layer["units"], layer["height"], layer["width"]) for name, layer in info["layers"].items()},
            scales={name: layer["scale"] for name, layer in info["layers"].items()},
            precision=info["config"]["precision"],
        )

    def array(self, layer: str) -> str:
        """The name of a layer's array in the spool: by number, since a layer may be called anything."""
        return f"features-{list(self.shapes).index(layer)}"

    @property
    def sample_bytes(self) -> int:
        """Bytes that a sample takes on disk, without the headers of files."""
        shrink = min(1.0, THUMBNAIL / max(self.image))
        features = sum(2 * units * height * width for units, height, width in self.shapes.values())
        return features + 2 * self.planes * self.grid**2 + round(3 * self.image[0] * self.image[1] * shrink**2)
