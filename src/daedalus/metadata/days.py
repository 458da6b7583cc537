"""Days on disk: a day is complete under its final name, or absent.

A stage's folder holds `dt=YYYY-MM-DD/` folders. A day is written under a temporary name and moved in as the
last step; replacing one moves the old aside first, and a crash between the two moves is mended by the next
writer of that day. A file lock per day keeps two runs apart and says who holds it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import json
import os
import shutil
import socket
import uuid
import warnings
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, SoftFileLock, Timeout

from daedalus.errors import BusyError, ExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from filelock import BaseFileLock

#: A day, or an instant, which is a day to Python.
Key = TypeVar("Key", bound=dt.date)
MANIFEST_NAME = "_manifest.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DayManifest:
    """What a finished day holds and what it was made from.

    Attributes:
        schema: (column, Arrow type) pairs in file order.
        ts_min: smallest event time, ISO text in UTC; empty for a day without rows.
        content_hash: hash of the ordered content, operational ids excluded.
        fingerprint: the inputs as plain data (pipeline text, source snapshots, store versions ...); a day whose
            fingerprint equals the current one is up to date.
        files: (file name, bytes) pairs.
        counters: rows seen and dropped on the way, by step.
        columns: the statistics of each column by name, as `ColumnStats.to_mapping` writes them.
    """

    day: str
    schema: tuple[tuple[str, str], ...]
    row_count: int
    ts_min: str
    ts_max: str
    content_hash: str
    fingerprint: dict[str, Any]
    files: tuple[tuple[str, int], ...]
    counters: dict[str, int] = field(default_factory=dict)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    written_at: str = ""
    format: int = _FORMAT

    def to_json(self) -> str:
        """Readable JSON, keys sorted: one line for each of them, and for each column."""
        # All is plain data: copying it, as `asdict` does, takes longer than a small day. So does `indent`.
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        columns = {"columns": _object(_texts(plain.pop("columns")), "  ")}
        return _object(_texts(plain) | columns, " ")

    @classmethod
    def from_json(cls, text: str) -> DayManifest:
        """Parse what `to_json` wrote; ValueError or KeyError when it is something else."""
        data = json.loads(text)
        found = data.get("format") if isinstance(data, dict) else None
        if found != _FORMAT:
            raise ValueError(f"manifest format {found!r}, this version reads {_FORMAT}")
        data["schema"] = tuple((name, kind) for name, kind in data["schema"])
        data["files"] = tuple((name, size) for name, size in data["files"])
        return cls(**data)


def _texts(plain: dict[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, sort_keys=True) for key, value in plain.items()}


def _object(texts: dict[str, str], indent: str) -> str:
    """A JSON object with a line for each key, whose value is JSON already."""
    lines = ",\n".join(f"{indent}{json.dumps(key)}: {texts[key]}" for key in sorted(texts))
    return f"{{\n{lines}\n{indent[1:]}}}"


class DayStore:
    """The days of one stage of one service under one folder.

    Args:
        root: for example `<output_root>/<service>/skeleton`; made when the first day is written.
        lock_seconds: how long to wait for a day that another run holds.
    """

    #: The key of the folders' names.
    partition = "dt"

    def __init__(self, root: Path, *, lock_seconds: float = 0.0) -> None:
        self.root = root
        self._lock_seconds = lock_seconds

    def path(self, day: dt.date) -> Path:
        """The final folder of `day`, present or not."""
        return self.root / f"{self.partition}={day.isoformat()}"

    def days(self) -> list[dt.date]:
        """The complete days, ascending."""
        return self._complete(dt.date.fromisoformat)

    def _complete(self, parse: Callable[[str], Key]) -> list[Key]:
        """The keys of the complete folders, ascending."""
        found = []
        for folder in self.root.glob(f"{self.partition}=*"):
            try:
                key = parse(folder.name.removeprefix(f"{self.partition}="))
            except ValueError:
                continue
            if self.manifest(key) is not None:
                found.append(key)
        return sorted(found)

    def manifest(self, day: dt.date) -> DayManifest | None:
        """The day's manifest; None when the day is absent, or its files are not the ones it names."""
        folder = self.path(day)
        try:
            manifest = DayManifest.from_json((folder / MANIFEST_NAME).read_text())
            whole = all((folder / name).stat().st_size == size for name, size in manifest.files)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return manifest if whole else None

    @contextlib.contextmanager
    def locked(self, day: dt.date) -> Iterator[None]:
        """Hold the day against other runs, on any host, and mend what a crashed one left.

        The lock is the system's (`flock`): it ends with the process that holds it, and on a network file system
        with the host, when the server gives up on it. Where there is no `flock`, the lock is a file, which a host
        that is gone leaves behind.

        Raises:
            BusyError: another run holds the day; the message says which process on which host.
            ExecutionError: the disk refuses.
        """
        locks = self.root / ".locks"
        owner_file = locks / f"{day.isoformat()}.owner"
        with self._writing(day):
            locks.mkdir(parents=True, exist_ok=True)
            # A day may be finished by another thread than began it.
            lock = FileLock(locks / f"{day.isoformat()}.lock", thread_local=False)
            self._acquire(lock, day, owner_file)
        try:
            with self._writing(day):
                owner_file.write_text(f"process {os.getpid()} of {_user()} on {socket.gethostname()}")
                self._mend(day)
            yield
        finally:
            with contextlib.suppress(OSError):
                owner_file.unlink(missing_ok=True)
            lock.release()

    def _acquire(self, lock: BaseFileLock, day: dt.date, owner_file: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there is no flock
                lock.acquire(timeout=self._lock_seconds)
        except Timeout:
            owner = _read_text(owner_file) or "another run"
            left = f"if its host is gone, remove {lock.lock_file}"
            raise BusyError(
                f"this day is being written by {owner}",
                where=str(self.path(day)),
                hint="Wait for it, or stop it; "
                + (left if isinstance(lock, SoftFileLock) else "a run that died holds nothing"),
                day=day.isoformat(),
            ) from None

    @contextlib.contextmanager
    def _writing(self, day: dt.date) -> Iterator[None]:
        """What the disk refuses is an error of ours."""
        try:
            yield
        except OSError as error:
            raise ExecutionError(
                f"the day cannot be written: {error.strerror or error}",
                where=str(self.path(day)),
                hint="Free space or fix the permissions, then run again; finished days are kept",
                day=day.isoformat(),
            ) from error

    def begin(self, day: dt.date) -> Path:
        """An empty temporary folder for the day's files; the caller holds `locked(day)`."""
        folder = self.root / f".new-{self.partition}={day.isoformat()}-{uuid.uuid4().hex[:8]}"
        with self._writing(day):
            folder.mkdir(parents=True)
        return folder

    def commit(self, day: dt.date, folder: Path, manifest: DayManifest) -> None:
        """Make `folder` the day: manifest last, everything flushed, then the move.

        A previous version of the day is replaced; readers see the old one, for an instant none, then the new one.

        Raises:
            ExecutionError: the disk refuses; the previous version stands.
        """
        # Sinks tell two writings of the same rows apart by the manifest, and both may fall into one second.
        now = dt.datetime.now(dt.UTC)
        stamped = replace(manifest, written_at=now.isoformat(timespec="microseconds"))
        with self._writing(day):
            (folder / MANIFEST_NAME).write_text(stamped.to_json())
            for file in folder.iterdir():
                flush(file)
            flush(folder)
            self._move_in(day, folder)

    def _move_in(self, day: dt.date, folder: Path) -> None:
        final = self.path(day)
        aside = self.root / f".old-{self.partition}={day.isoformat()}-{uuid.uuid4().hex[:8]}"
        try:
            if final.exists():
                final.rename(aside)
            folder.rename(final)
        except BaseException:  # also Ctrl-C between the two
            if aside.exists() and not final.exists():
                aside.rename(final)
            raise
        flush(self.root)
        shutil.rmtree(aside, ignore_errors=True)

    def discard(self, folder: Path) -> None:
        """Remove a temporary folder that will not be committed."""
        shutil.rmtree(folder, ignore_errors=True)

    def mend(self, day: dt.date) -> None:
        """Undo what a killed run left of the day, unless another run is at it now."""
        if any(self.root.glob(f".*-{self.partition}={day.isoformat()}-*")):
            with contextlib.suppress(ExecutionError), self.locked(day):
                pass  # `locked` mends

    def _mend(self, day: dt.date) -> None:
        """Undo what a killed writer of the day left: its temporary folder, or a half-done replacement."""
        final = self.path(day)
        for aside in sorted(self.root.glob(f".old-{self.partition}={day.isoformat()}-*")):
            if final.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(final)
        for leftover in self.root.glob(f".new-{self.partition}={day.isoformat()}-*"):
            shutil.rmtree(leftover, ignore_errors=True)


class InstantStore(DayStore):
    """The same for instants: folders `as_of=YYYY-MM-DDTHH:MM:SS`, in UTC. Its keys are naive datetimes."""

    partition = "as_of"

    def instants(self) -> list[dt.datetime]:
        """The complete instants, ascending."""
        return self._complete(dt.datetime.fromisoformat)


def flush(path: Path) -> None:
    """Have a file's content, or a folder's entries, on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
