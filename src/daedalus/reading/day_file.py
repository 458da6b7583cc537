"""One Parquet file of a finished day, and whether it is still the one that was looked at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.errors import ExecutionError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DayFile:
    """One Parquet file of a day.

    Attributes:
        mark: inode, bytes and time of change when the day was looked at: a day written anew has others.
    """

    day: str
    path: str
    mark: tuple[int, int, int]

    @classmethod
    def of(cls, day: str, path: Path) -> DayFile:
        """The file as it is now.

        Raises:
            ExecutionError: it cannot be found.
        """
        try:
            return cls(day=day, path=str(path.absolute()), mark=_mark(path))
        except OSError as error:
            raise ExecutionError(
                f"the day cannot be read: {error.strerror or error}", where=str(path), day=day
            ) from error

    def open(self) -> pq.ParquetFile:
        """The file, if it is the one that was looked at.

        Raises:
            ExecutionError: the day was written anew, or removed, since then; or the file is broken.
        """
        try:
            if _mark(self.path) == self.mark:
                return pq.ParquetFile(self.path)
        except FileNotFoundError:
            pass
        except (OSError, pa.ArrowException) as error:
            raise self.broken(error) from error
        raise ExecutionError(
            "the day was written anew or removed since it was loaded",
            where=self.path,
            hint="Load it again",
            day=self.day,
        )

    def broken(self, error: Exception) -> ExecutionError:
        """What to raise where Arrow cannot read it."""
        return ExecutionError(
            f"the file cannot be read: {str(error).splitlines()[0]}",
            where=self.path,
            hint="Remove the day's folder and train the day again",
            day=self.day,
        )


def _mark(path: Path | str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns
