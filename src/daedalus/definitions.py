"""What Dagster loads: `dagster dev -m daedalus.definitions`, in the project's folder. Needs the extra `dagster`.

    from daedalus.definitions import defs

The project is the working directory, or the folder that `DAEDALUS_PROJECT` names. It is read when `defs` is first
asked for, so that the module imports anywhere.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg

    defs: dg.Definitions

__all__ = ["defs"]

PROJECT = "DAEDALUS_PROJECT"


def __getattr__(name: str) -> Any:
    if name != "defs":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from daedalus.defs import build_definitions

    globals()[name] = build_definitions(os.environ.get(PROJECT, "."))
    return globals()[name]


def __dir__() -> list[str]:
    # Dagster finds what to load by listing the module.
    return sorted({*globals(), "defs"})
