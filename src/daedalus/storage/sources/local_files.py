"""Files of this machine: listed and described."""

from __future__ import annotations

import difflib
import glob as globbing
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.errors import SourceError
from daedalus.sql.identifiers import quote_literal
from daedalus.storage.sources.parquet_files import TAIL_BYTES, ParquetFile, footer_length, parse_footer

if TYPE_CHECKING:
    from collections.abc import Iterable

    import duckdb


_OTHER_FORMATS = frozenset({".csv", ".tsv", ".json", ".jsonl", ".ndjson"})
_PATTERN = re.compile(r"[*?\[]")


class LocalFiles:
    """The Parquet files that a path, folder or glob names.

    Args:
        path: absolute.
        where: how messages name the source.
    """

    def __init__(self, path: str, where: str) -> None:
        self._path = path
        self._where = where

    @property
    def folder(self) -> str:
        """The path when it is a folder, else empty: Hive keys are looked for below it."""
        return self._path if Path(self._path).is_dir() else ""

    def setup(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Nothing to prepare."""

    def describe(self) -> tuple[ParquetFile, ...]:
        """Every file with its footer.

        Raises:
            SourceError: there is none, or one cannot be read.
        """
        paths = parquet_paths(self._path)
        if not paths:
            state = "holds no .parquet file" if self.folder else "does not exist"
            key, base = "source.path", "data_root of config/training/runtime.yaml"
            if self._where.endswith("id_relation"):
                key, base = "id_relation", "the project's folder"
            mend = f"Set {key} to a Parquet file, a directory or a glob, relative to {base}"
            near = "" if self.folder else _near(Path(self._path))
            raise SourceError(f"{self._path} {state}", where=self._where, hint=near + mend)
        return tuple(map(self._describe, paths))

    def _describe(self, path: str) -> ParquetFile:
        try:
            status = Path(path).stat()
            return _read_footer(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except (OSError, ValueError) as error:
            hint = "The file is truncated, corrupt or not Parquet: restore or remove it"
            if Path(path).suffix.lower() in _OTHER_FORMATS:
                hint = f"Views read Parquet. DuckDB writes it: COPY (FROM '{path}') TO 'file.parquet'"
            raise SourceError(
                f"{path} cannot be read as Parquet: {error}", where=self._where, hint=hint
            ) from error

    def changed(self, files: Iterable[ParquetFile]) -> str:
        """The first file that is not what it was; empty when all are."""
        return next((file.path for file in files if _is_another(file)), "")

    @staticmethod
    def literal(path: str) -> str:
        """The path as `read_parquet` takes it: DuckDB prefers a file of that very name to a pattern."""
        return quote_literal(path)


def _is_another(file: ParquetFile) -> bool:
    try:
        status = Path(file.path).stat()
        if (status.st_size, status.st_mtime_ns) != (file.size, file.modified_ns):
            return True
        if status.st_ctime_ns == file.changed_ns:
            return False
        # Linked, renamed, or replaced by one of the same size and time: what it says of itself decides.
        now = _read_footer(file.path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except (OSError, ValueError):
        return True
    return now.footer_hash != file.footer_hash


def parquet_paths(path: str) -> list[str]:
    """The files that a path, a folder (recursively) or a glob names, sorted; none when there are none.

    What writers leave below the folder, or below the part of a glob that is no pattern, is left out: files, and
    folders, whose names begin with `.` or `_`.
    """
    if Path(path).is_file():
        return [path]
    base = path if Path(path).is_dir() else _PATTERN.split(path, maxsplit=1)[0].rpartition("/")[0]
    pattern = f"{globbing.escape(path)}/**/*.parquet" if base == path else path
    found = sorted(name for name in globbing.glob(pattern, recursive=True) if Path(name).is_file())
    depth = len(Path(base).parts)
    return [
        name for name in found if not any(part.startswith((".", "_")) for part in Path(name).parts[depth:])
    ]


@lru_cache(maxsize=100_000)
def _read_footer(path: str, size: int, modified_ns: int, changed_ns: int) -> ParquetFile:
    with Path(path).open("rb") as file:
        file.seek(max(size - TAIL_BYTES, 0))
        length = footer_length(file.read(TAIL_BYTES), size)
        file.seek(size - length)
        found = parse_footer(path, size, modified_ns, file.read(length))
    return replace(found, changed_ns=changed_ns)


def _near(path: Path) -> str:
    """What is there in place of an absent path: a name like its own, or how much of the way to it; or nothing."""
    absent = next((one for one in reversed((path, *path.parents)) if not one.exists()), path)
    if absent != path:
        return f"There is no folder {absent}. "
    try:
        close = difflib.get_close_matches(path.name, [one.name for one in path.parent.iterdir()], n=2)
    except OSError:
        return ""
    return f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
