"""Folders for what does not outlive its process; those of processes that were killed are removed by the next one.

The owner holds a lock of the system's on a file in the folder. It ends with the process, on whichever host or in
whichever container that shares the disk, so whoever gets the lock may remove the folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK = ".lock"
#: A folder without a name yet takes microseconds to get it.
_MAKING_SECONDS = 600.0


@contextlib.contextmanager
def scratch_folder(base: Path, prefix: str) -> Iterator[Path]:
    """A new folder under `base`, which is made; removed at the end, as are those that nobody owns any more.

    Args:
        base: shared by processes.
        prefix: tells the folders from others that lie there.

    Raises:
        OSError: it cannot be made.
    """
    base.mkdir(parents=True, exist_ok=True)
    sweep(base, prefix)
    folder, lock = _make(base, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(base: Path, prefix: str) -> None:
    """Remove the folders of this prefix whose owner is gone."""
    for half in base.glob(f".making-{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - half.stat().st_mtime > _MAKING_SECONDS:
                shutil.rmtree(half, ignore_errors=True)
    for left in base.glob(f"{prefix}*/{_LOCK}"):
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDWR)
            try:
                if _taken(lock):
                    shutil.rmtree(left.parent, ignore_errors=True)
            finally:
                os.close(lock)


def _make(base: Path, prefix: str) -> tuple[Path, int]:
    """A folder that is locked before it gets the name by which it can be found."""
    name = f"{prefix}{uuid.uuid4().hex[:8]}"
    making = base / f".making-{name}"
    making.mkdir(mode=0o700)  # in a folder that all share, what is spilled is nobody else's business
    lock = os.open(making / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _taken(lock)
        making.rename(base / name)
    except OSError:
        os.close(lock)
        shutil.rmtree(making, ignore_errors=True)
        raise
    return base / name, lock


def _taken(descriptor: int) -> bool:
    """Take the lock of an open file; False when another process has it, or nobody can tell."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
