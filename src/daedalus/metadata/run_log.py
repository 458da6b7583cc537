"""A run's log: one JSON object per line, appended as things happen."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from typing import TYPE_CHECKING, Any

from daedalus.metadata.plain import cleaned

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = 1 << 16


class RunLog:
    """The log of one run.

    Args:
        path: its file; made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """Append a line: time, level, event and fields, secrets masked. A log that cannot be written stops no run."""
        at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        # ASCII: no character that ends a line for whoever reads it.
        line = json.dumps({"at": at, "level": level, "event": event, **cleaned(fields)}, default=str)
        with contextlib.suppress(OSError):
            # One write to a file opened for appending: lines of several threads stay whole.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, line.encode() + b"\n")
            finally:
                os.close(descriptor)

    def touch(self) -> None:
        """Show that the run is alive."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def last_written(self) -> float | None:
        """When the log was last written or touched, in seconds since 1970; None without a log."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return None

    def lines(self, tail: int | None = None) -> list[dict[str, Any]]:
        """The lines, oldest first, the last `tail` of them; a line that a crash cut off is left out."""
        try:
            raw = self.path.read_bytes() if tail is None else self._last(tail)
        except FileNotFoundError:
            return []
        found = []
        for line in raw.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found if tail is None else found[-tail:] if tail else []

    def _last(self, count: int) -> bytes:
        """The end of the file that holds the last `count` lines."""
        with self.path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            data = b""
            while position and data.count(b"\n") <= count + 1:
                step = min(_BLOCK, position)
                position = file.seek(position - step)
                data = file.read(step) + data
            return data
