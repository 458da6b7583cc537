"""Dagster definitions of a project; `daedalus.definitions:defs` is what Dagster loads. Needs the extra `dagster`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.errors import MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

__all__ = ["build_definitions"]


def build_definitions(root: Path | str = ".") -> dg.Definitions:
    """The assets, checks, jobs and schedules of the project in this folder.

    Raises:
        DefinitionError: the folder holds no project, or one that does not load.
        CompileError: a service does not make a pipeline.
        MissingExtraError: the extra `dagster` is not installed.
    """
    try:
        import dagster
    except ImportError:
        raise MissingExtraError(
            "Dagster is not installed", where="daedalus.definitions", hint='pip install "daedalus[dagster]"'
        ) from None
    del dagster
    from daedalus.defs.build import definitions_of
    from daedalus.defs.project import DagsterProject

    return definitions_of(DagsterProject.open(root))
