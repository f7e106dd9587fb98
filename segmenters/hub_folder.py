"""The folder of a model on the Hugging Face hub: a local one, or one that the hub's client keeps in its cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..hooks.errors import DissectError, UsageError, one_line


def hub_folder(name: str, prefix: str, files: Sequence[str]) -> Path:
    """The folder itself, or the one in the hub's cache to which the files of a repository are downloaded.

    Args:
        name: a folder, or the id OWNER/NAME of a repository on the hub.
        prefix: what stands before the name on the command line, such as `hub:`; for messages.
        files: the names, or patterns, of the files to download.

    Raises:
        UsageError: the name is neither a folder nor an id, or the hub has no such repository.
        DissectError: the hub cannot be reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is None:
        raise UsageError(
            f"There is no folder {name!r}. Give {prefix}FOLDER, a folder written by save_pretrained, or "
            f"{prefix}OWNER/NAME, a repository on the Hugging Face hub."
        )
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(files)))
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"There is no folder {name!r}, and the Hugging Face hub has no public repository of that name; check "
            "the spelling."
        ) from error
    except Exception as error:  # the hub's client has changed its HTTP library, and its errors with it, more than once
        raise DissectError(
            f"There is no folder {name!r}, and the Hugging Face hub cannot be reached ({one_line(error)}). On a "
            f"machine that reaches it run `hf download {name} --local-dir DIR`, then give {prefix}DIR here."
        ) from error
