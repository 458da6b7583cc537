"""What a run's outcome depends on outside its data: the code's commit, the engines, the files that were read."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: What computes, reads and writes values, and Daedalus itself.
PACKAGES = ("daedalus", "duckdb", "polars", "numba", "numpy", "pyarrow", "pylance", "ray")
_GIT_SECONDS = 20
_LARGE_FILE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GitState:
    """Where a project's repository stands.

    Attributes:
        sha: the commit.
        dirty: whether files of the project differ from it, or are not in it, or git could not say so in time.
        changes: digest of these differences; empty when there are none, or nobody knows them.
    """

    sha: str
    dirty: bool
    changes: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def git_state(folder: Path, *, without: Iterable[Path] = ()) -> GitState | None:
    """The state of the repository that `folder` lies in; None outside one, or without git.

    Args:
        folder: the project; what lies beside it in the repository does not count.
        without: folders of it that do not count either: data and outputs.
    """
    sha = _git(folder, "rev-parse", "HEAD")
    if sha is None:
        return None
    inside = [path.relative_to(folder) for path in without if path.is_relative_to(folder) and path != folder]
    places = [".", *(f":(exclude){path.as_posix()}" for path in inside)]
    status = _git(folder, "status", "--porcelain", "--", *places)
    if status is None:
        return GitState(sha=sha.decode().strip(), dirty=True)
    if not status.strip():
        return GitState(sha=sha.decode().strip(), dirty=False)
    difference = _git(folder, "diff", "HEAD", "--", *places) or b""
    found = hashlib.sha256(status + difference)
    new = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *places) or b""
    for name in sorted(new.split(b"\0")[:-1]):
        found.update(name + b"\0" + _content(folder / os.fsdecode(name)))
    return GitState(sha=sha.decode().strip(), dirty=True, changes=found.hexdigest()[:32])


def _content(path: Path) -> bytes:
    """What tells a file's content from another one: its digest; of a large one its size and time."""
    try:
        about = path.stat()
        if about.st_size > _LARGE_FILE:
            return f"{about.st_size} {about.st_mtime_ns}".encode()
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the git of the user's PATH
            capture_output=True,
            check=True,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def versions() -> dict[str, str]:
    """The installed versions of `PACKAGES`, and Python's; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def file_digests(root: Path, files: Iterable[Path | str]) -> dict[str, str]:
    """Digest of each file's bytes, by its path, relative to `root` where it lies under it; absent ones are left out."""
    found: dict[str, str] = {}
    for file in files:
        path = root / file
        try:
            content = path.read_bytes()
        except OSError:
            continue
        absolute = path.absolute()
        inside = absolute.is_relative_to(root.absolute())
        name = absolute.relative_to(root.absolute()).as_posix() if inside else str(absolute)
        found[name] = digest(content)
    return dict(sorted(found.items()))


def digest(content: bytes | str) -> str:
    """32 hexadecimal digits of SHA-256."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:32]
