"""Where a page's pictures and tables go: files beside it, or into the page itself."""

from __future__ import annotations

import base64
from mimetypes import guess_type
from pathlib import Path
from urllib.parse import quote

TYPES = {
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".csv": "text/csv",
    ".md": "text/markdown",
}  # that Python's own table may lack
ANY = "application/octet-stream"  # a browser offers to save it
SMALL = 700  # bytes


class Shelf:
    """Keeps what a page refers to. With `folder` None everything becomes a data: address, for a single file.

    Pictures no larger than many a file's own entry on the disk become one always: label maps, most of them.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def put(self, name: str, content: bytes) -> str:
        """Keep it under a name such as images/12.webp; returns the address by which the page refers to it.

        Raises:
            OSError: it cannot be written.
        """
        if self.folder is None or (name.endswith(".webp") and len(content) <= SMALL):
            kind = TYPES.get(Path(name).suffix) or guess_type(name)[0] or ANY
            return f"data:{kind};base64,{base64.b64encode(content).decode()}"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return quote(name, errors="surrogateescape")
