"""The files behind the functions that a pipeline names: a changed function makes other values."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.metadata.provenance import digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daedalus.pipelines.operators import AnyOperator


def named_functions(operators: Iterable[AnyOperator]) -> tuple[str, ...]:
    """The dotted paths `package.module:function` that operators name, sorted; registered names are not among them."""
    named = (getattr(one, "function", "") or getattr(one, "udf_name", "") for one in operators)
    return tuple(sorted({name for name in named if ":" in name}))


def look_in_project() -> None:
    """Have modules found in the working directory, too, where an installed program does not look."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def function_file(name: str) -> Path | None:
    """The file that holds the function of a dotted path; None when there is none to be found."""
    look_in_project()
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except Exception:  # noqa: BLE001 - the packages around the module are run, and are the user's
        return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin and Path(origin).is_file() else None


def code_digests(names: Iterable[str]) -> dict[str, str]:
    """By function the digest of its file; functions without one are left out."""
    files = {name: function_file(name) for name in names}
    return {name: digest(file.read_bytes()) for name, file in sorted(files.items()) if file is not None}
