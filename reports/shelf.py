"""Where a page's pictures and tables go: files beside it, or into the page itself."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote

TYPES = {".webp": "image/webp", ".svg": "image/svg+xml", ".csv": "text/csv", ".json": "application/json"}


class Shelf:
    """Keeps what a page refers to. With `folder` None everything becomes a data: address, for a single file."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def put(self, name: str, content: bytes) -> str:
        """Keep it under a name such as images/12.webp; returns the address by which the page refers to it.

        Raises:
            OSError: it cannot be written.
        """
        if self.folder is None:
            return f"data:{TYPES[Path(name).suffix]};base64,{base64.b64encode(content).decode()}"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return quote(name)
