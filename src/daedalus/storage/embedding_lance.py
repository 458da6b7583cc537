"""The few things Daedalus asks of Lance, with its log lines and its wording kept from the user."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

BUILD_KEY = "daedalus.build"


def import_lance() -> Any:
    """The module, its warnings off unless `LANCE_LOG` asks for them; it reads that once."""
    os.environ.setdefault("LANCE_LOG", "error")
    import lance
    import lance.fragment

    return lance


def open_dataset(path: Path | str, version: int | None = None) -> Any:
    """The Lance dataset at `path`, pinned to a version (the newest by default); None when there is none."""
    try:
        return import_lance().dataset(str(path), version=version)
    except ValueError as problem:
        if "not found" not in str(problem):
            raise
        return None


def build_record(dataset: Any) -> dict[str, Any]:
    """What the build that made this version noted in it; empty for a foreign or absent dataset."""
    metadata = (dataset.schema.metadata or {}) if dataset is not None else {}
    text = metadata.get(BUILD_KEY.encode())
    return json.loads(text) if text else {}


def is_indexed(dataset: Any, column: str) -> bool:
    """Whether this version has an index on `column`."""
    return any(column in index.field_names for index in dataset.describe_indices())
