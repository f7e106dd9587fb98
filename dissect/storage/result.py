"""A finished result in a folder of its own: a description in JSON, tables in CSV and arrays in an .npz file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
from numpy.typing import NDArray

from .contract import COLUMNS
from .files import read_arrays, read_json, read_table, write_arrays, write_csv, write_json
from .result_folder import holds, written
from .shown import Shown

Shapes = Mapping[str, tuple[int | None, ...]]
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class TableFile:
    """The file that keeps a table.

    columns: its entry in `contract.COLUMNS`; empty where that is the file's name.
    optional: the file may be absent; the attribute then has its default.
    """

    name: str
    columns: str = ""
    optional: bool = False


@dataclass(frozen=True, kw_only=True, repr=False)
class Result(Shown):
    """What a command returns, and what it keeps in a folder.

    A subclass names its files, and adds one attribute for each table and one for its arrays:
        DESCRIPTION: the JSON file of `info`.
        TABLES: the file of each table, by attribute.
        ARRAYS: the attribute of its arrays, which lie in ARRAYS.npz; empty for none.
        SHAPES: of the arrays that must be there; None stands for any length.
        MAY_LACK_ARRAYS: whether the file may hold no array at all.

    Its dataclass is made with repr=False, so that `Shown` describes it.
    """

    DESCRIPTION: ClassVar[str]
    TABLES: ClassVar[Mapping[str, TableFile]] = {}
    ARRAYS: ClassVar[str] = ""
    SHAPES: ClassVar[Shapes] = {}
    MAY_LACK_ARRAYS: ClassVar[bool] = False

    info: dict[str, Any]
    folder: Path | None = None  # where it is kept

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Open a kept result.

        Raises:
            DissectError: one of its files is missing or damaged.
        """
        folder = Path(folder)
        info = read_json(folder / cls.DESCRIPTION)
        tables = {
            attribute: read_table(folder / table.name, cls._columns(attribute, info))
            for attribute, table in cls.TABLES.items()
            if cls._has(attribute, info) or (folder / table.name).exists()
        }
        arrays = {}
        if cls.ARRAYS:
            file = folder / f"{cls.ARRAYS}.npz"
            arrays[cls.ARRAYS] = read_arrays(file, cls._shapes(tables), or_none=cls.MAY_LACK_ARRAYS)
        return cls(info=info, folder=folder, **tables, **arrays, **cls._more(folder, info))

    @classmethod
    def kept(cls, folder: Path, config: dict[str, Any], advice: str = "give another --name") -> Self | None:
        """The result that a folder already holds for this very config; None where there is none yet.

        Raises:
            UsageError: the folder holds something else, which is never replaced; `advice` says what to do.
            DissectError: one of its files is missing or damaged.
        """
        return cls.load(folder) if holds(folder, cls.DESCRIPTION, config, advice) else None

    def save(self, folder: str | Path) -> None:
        """Write the folder, whole or not at all.

        Raises:
            DissectError: it cannot be written; nothing of it is left.
        """
        with written(Path(folder)) as part:
            self.write(part)

    def write(self, folder: Path) -> None:
        """Write the files into a folder that exists, the description last."""
        for attribute, table in self.TABLES.items():
            content = getattr(self, attribute)
            if content is not None and len(content.columns):
                write_csv(folder / table.name, content)
        if self.ARRAYS:
            arrays: Mapping[str, NDArray[Any]] = getattr(self, self.ARRAYS)
            write_arrays(folder / f"{self.ARRAYS}.npz", arrays)
        write_json(folder / self.DESCRIPTION, self.info)

    @classmethod
    def files(cls, folder: Path) -> list[str]:
        """The names of its tables and its description that lie in a folder."""
        names = (*(table.name for table in cls.TABLES.values()), cls.DESCRIPTION)
        return [name for name in names if (folder / name).is_file()]

    @classmethod
    def _has(cls, attribute: str, info: dict[str, Any]) -> bool:
        """Whether a result with this description must have this table."""
        return not cls.TABLES[attribute].optional

    @classmethod
    def _columns(cls, attribute: str, info: dict[str, Any]) -> Sequence[str] | None:
        """The columns that a table must have; None for those that `contract` names for its file."""
        columns = cls.TABLES[attribute].columns
        return COLUMNS[columns] if columns else None

    @classmethod
    def _shapes(cls, tables: Tables) -> Shapes:
        """The arrays that must be there, where the tables decide on them."""
        return cls.SHAPES

    @classmethod
    def _more(cls, folder: Path, info: dict[str, Any]) -> dict[str, Any]:
        """Attributes that lie in no file of their own."""
        return {}


@dataclass(frozen=True, kw_only=True, repr=False)
class FolderResult(Result):
    """A result that always has a folder, in which further results or pages may lie."""

    folder: Path = field()  # without the default that it has above
