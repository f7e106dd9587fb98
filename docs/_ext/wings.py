"""The directive `wings`: the import contract of pyproject.toml, drawn as floors of a house."""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
WIDTH, FLOOR, GAP = 760, 34, 12


def floors() -> list[list[str]]:
    """The wings by floor, the highest first; those of one floor do not import each other."""
    contracts = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["ganatomy"])
    return [[wing.strip() for wing in floor.split("|")] for floor in layers]


def drawing() -> str:
    """The floors as SVG: one row of boxes a floor."""
    boxes = []
    for row, wings in enumerate(floors()):
        width = (WIDTH - GAP * (len(wings) - 1)) / len(wings)
        for column, wing in enumerate(wings):
            x, y = column * (width + GAP), row * (FLOOR + GAP)
            boxes.append(f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{FLOOR}" rx="4"/>')
            boxes.append(
                f'<text x="{x + width / 2:.0f}" y="{y + FLOOR / 2 + 5:.0f}" text-anchor="middle">{escape(wing)}</text>'
            )
    height = len(floors()) * (FLOOR + GAP) - GAP
    about = 'role="img" aria-label="The wings of ganatomy, one row for each floor of the import contract"'
    return f'<svg class="wings" viewBox="-1 -1 {WIDTH + 2} {height + 2}" {about}>{"".join(boxes)}</svg>'


class Wings(SphinxDirective):
    """Put the drawing into the page."""

    def run(self) -> list[Node]:
        self.env.note_dependency(str(PYPROJECT))
        return [nodes.raw("", drawing(), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("wings", Wings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
