"""Where the traceback of an unexpected error goes: a file, never the screen."""

from __future__ import annotations

import os
import tempfile
import traceback
from typing import TYPE_CHECKING

from daedalus.secrets import mask

if TYPE_CHECKING:
    from pathlib import Path

#: The folder of the run under way; set by commands that know one.
_folder: Path | None = None


def log_under(folder: Path) -> None:
    """Write logs of this process to `folder`, when it exists by then."""
    global _folder  # noqa: PLW0603 - one process runs one command
    _folder = folder


def write_log(error: BaseException) -> str:
    """Write the traceback, secrets masked; returns the file's path."""
    text = mask("".join(traceback.format_exception(error)))
    for folder in (_folder, None):
        if folder is not None and not folder.is_dir():
            continue
        try:
            handle, name = tempfile.mkstemp(prefix="daeda-error-", suffix=".log", dir=folder, text=True)
        except OSError:
            continue
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        return name
    return "(no folder for it could be written)"
