"""Where a page's pictures and tables are stored: in files beside it, or in the page itself."""

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
}  # which Python's own table may lack
ANY = "application/octet-stream"  # a browser offers to save it
SMALL = 700  # bytes


class Shelf:
    """Stores what a page refers to: in a folder, or with `folder` None as data: addresses in a single file.

    Very small pictures, such as most label maps, always become data: addresses, since a file would take more space.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def put(self, name: str, content: bytes) -> str:
        """Store content under a name such as images/12.webp; returns the address by which the page refers to it.

        Raises:
            OSError: the file cannot be written.
        """
        if self.folder is None or (name.endswith(".webp") and len(content) <= SMALL):
            kind = TYPES.get(Path(name).suffix) or guess_type(name)[0] or ANY
            return f"data:{kind};base64,{base64.b64encode(content).decode()}"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return quote(name, errors="surrogateescape")
