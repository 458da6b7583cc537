"""What can be done with a project: the one in-process API that every surface calls.

`PlatformRegistry` is the project itself; each module beside it holds the operations of one area, functions that
take the registry first. A surface parses its input, calls one of them and renders the result.
"""

from __future__ import annotations

from daedalus.catalog.facade import describe
from daedalus.platform.registry import (
    PIPELINES_DIR,
    CompiledService,
    PlatformRegistry,
    RunOptions,
    Stages,
)

__all__ = ["PIPELINES_DIR", "CompiledService", "PlatformRegistry", "RunOptions", "Stages", "describe"]
