"""Where files are: paths and URLs as definitions and settings write them."""

from __future__ import annotations

import re
from pathlib import Path

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")


def scheme_of(path: str) -> str:
    """How a URL begins, `s3://`; empty for a path of this machine."""
    match = _SCHEME.match(path)
    return match[0] if match else ""


def below(root: str, path: str) -> str:
    """A path as it is when it is absolute or a URL, else under `root`, a folder or a URL.

    >>> below("s3://bucket/infra/", "feed"), below("/data", "/other/feed"), below("/data", "s3://b/x")
    ('s3://bucket/infra/feed', '/other/feed', 's3://b/x')
    """
    if scheme_of(path) or Path(path).is_absolute():
        return path
    return f"{root.rstrip('/')}/{path}" if scheme_of(root) else str(Path(root) / path)
