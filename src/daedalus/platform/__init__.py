"""What can be done with a project: the one in-process API that every surface calls.

`PlatformRegistry` is the project itself; each module beside it holds the operations of one area, functions that
take the registry first. (What a run itself needs of a project, such as its records, takes a `Project`, of which the
registry is one.) A surface parses its input, calls one of them and renders the result.
"""

from __future__ import annotations

from daedalus.catalog.facade import describe
from daedalus.platform.project import CompiledService, RunOptions, Stages
from daedalus.platform.registry import PlatformRegistry

__all__ = ["CompiledService", "PlatformRegistry", "RunOptions", "Stages", "describe"]
