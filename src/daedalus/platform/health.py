"""`daeda doctor`: what would stand in a run's way here, each finding with its mend beside it.

Nothing is changed and no data row is read; sources are opened as a run opens them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.errors import DaedalusError
from daedalus.platform.registry import PlatformRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daedalus.pipelines.settings import TrainingRunConfig

_GIB = 2**30
#: Below the first nothing sensible fits; below the second a few days fill the disk.
_DISK_FULL, _DISK_LOW = 1 * _GIB, 10 * _GIB

#: By extra: the modules that show whether it is installed, and what needs it.
EXTRAS = {
    "api": (("fastapi", "uvicorn"), "daeda serve-api"),
    "mcp": (("mcp.server",), "daeda mcp"),
    "dagster": (("dagster",), "Dagster definitions"),
    "mlflow": (("mlflow", "sqlalchemy"), "tracking: mlflow"),
    "snowflake": (("snowflake.connector",), "Snowflake sources"),
    "openlineage": (("openlineage.client",), "OpenLineage events"),
    "report": (("jinja2", "plotly"), "daeda report"),
}


class State(StrEnum):
    """How a finding stands: fine, worth knowing, or in the way of a run."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: `environment`, `extension`, `extra`, `project`, `disk`, `memory`, `source`, `store`, `lock` or `records`.
        mend: what to do about it; empty when there is nothing to do.
    """

    area: str
    subject: str
    state: State
    detail: str
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Every finding, in the order in which a run meets them."""

    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing stands in a run's way."""
        return all(finding.state is not State.PROBLEM for finding in self.findings)


def diagnose(project_root: Path | str = ".") -> Diagnosis:
    """Look at this machine and, where there is one, at the project in the folder."""
    findings = [*_environment(), *_extensions(), *_extras()]
    try:
        registry = PlatformRegistry.open(project_root)
    except DaedalusError as error:
        findings.append(
            Finding(
                area="project",
                subject=str(project_root),
                state=State.NOTE,
                detail=error.what,
                mend=error.hint,
            )
        )
        return Diagnosis(findings=tuple(findings))
    return Diagnosis(findings=(*findings, *_project(registry)))


def _environment() -> Iterator[Finding]:
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info < (3, 14)
    yield Finding(
        area="environment",
        subject="python",
        state=State.OK if fits else State.PROBLEM,
        detail=version,
        mend="" if fits else "Use Python 3.11, 3.12 or 3.13",
    )
    for name in ("duckdb", "polars", "pyarrow", "numba", "ray", "pylance", "redis"):
        yield _distribution(name)


def _distribution(name: str) -> Finding:
    required = next(
        (text for text in importlib.metadata.requires("daedalus") or () if _required_name(text) == name), name
    )
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            area="environment",
            subject=name,
            state=State.PROBLEM,
            detail="not installed",
            mend=f'pip install "{required}"',
        )
    _, pinned, exact = required.partition("==")
    fits = not pinned or version == exact
    return Finding(
        area="environment",
        subject=name,
        state=State.OK if fits else State.PROBLEM,
        detail=version if fits else f"{version}, but Daedalus is proved on {exact}",
        mend="" if fits else f'pip install "{required}"',
    )


def _required_name(requirement: str) -> str:
    """The distribution that a requirement names.

    >>> _required_name("ray[data]>=2.60"), _required_name("duckdb==1.5.5"), _required_name('mcp<3; extra == "mcp"')
    ('ray', 'duckdb', 'mcp')
    """
    end = next((index for index, mark in enumerate(requirement) if mark in "[<>=!~; ("), len(requirement))
    return requirement[:end]


def _extensions() -> Iterator[Finding]:
    from daedalus.storage.duckdb_extensions import extension_status

    for status in extension_status():
        yield Finding(
            area="extension",
            subject=status.name,
            state=State.OK if status.usable else State.PROBLEM,
            detail=status.needed_for
            if status.usable
            else f"{status.problem}; needed for {status.needed_for}",
            mend="" if status.usable else status.install,
        )


def _extras() -> Iterator[Finding]:
    for extra, (modules, needed_for) in EXTRAS.items():
        absent = [name for name in modules if not _is_installed(name)]
        yield Finding(
            area="extra",
            subject=extra,
            state=State.NOTE if absent else State.OK,
            detail=f"not installed; needed for {needed_for}" if absent else needed_for,
            mend=f'pip install "daedalus[{extra}]"' if absent else "",
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _project(registry: PlatformRegistry) -> Iterator[Finding]:
    try:
        config = registry.config()
        catalog = registry.catalog
    except DaedalusError as error:
        yield _failed("project", str(registry.project_root), error)
        return
    yield Finding(
        area="project",
        subject=str(registry.project_root),
        state=State.OK,
        detail=f"{len(catalog.views)} views, {len(catalog.services)} services",
    )
    for notice in config.notices:
        yield Finding(area="project", subject="configuration", state=State.NOTE, detail=notice)
    yield from _pipelines(registry, config)
    yield from _guarded("disk", "output_root", lambda: _disk(config))
    yield from _guarded("memory", "memory_limit", lambda: _memory(config))
    yield from _sources(registry, config)
    yield from _stores(config)
    yield from _guarded("lock", "output_root", lambda: _locks(config))
    yield from _guarded("records", "output_root", lambda: _records(config))


def _failed(area: str, subject: str, error: DaedalusError) -> Finding:
    # An error that gathers several problems names them, with their places, in its text.
    place = f" ({error.where})" if error.where and subject not in error.where else ""
    detail = str(error) if getattr(error, "problems", ()) else f"{error.what}{place}"
    return Finding(area=area, subject=subject, state=State.PROBLEM, detail=detail, mend=error.hint)


def _guarded(area: str, subject: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except DaedalusError as error:
        yield _failed(area, subject, error)


def _pipelines(registry: PlatformRegistry, config: TrainingRunConfig) -> Iterator[Finding]:
    from daedalus.pipelines.notices import edited_notices

    for name in sorted(registry.catalog.services):
        try:
            pipeline = registry.pipeline(name, config)
        except DaedalusError as error:
            yield _failed("project", f"service {name}", error)
        else:
            edited = edited_notices(pipeline)
            yield Finding(
                area="project",
                subject=f"service {name}",
                state=State.NOTE if edited else State.OK,
                detail=edited[0] if edited else f"compiles to {len(pipeline.operators)} operators",
                mend="Once it is no longer needed, remove the file" if edited else "",
            )


def _disk(config: TrainingRunConfig) -> Iterator[Finding]:
    places = {"output_root": config.output_path}
    temp = config.duckdb_settings().get("temp_directory")
    if temp:
        places["temp_directory"] = Path(temp)
    for subject, path in places.items():
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        state = State.PROBLEM if free < _DISK_FULL else State.NOTE if free < _DISK_LOW else State.OK
        yield Finding(
            area="disk",
            subject=subject,
            state=state,
            detail=f"{free / _GIB:.1f} GiB free at {existing}",
            mend="" if state is State.OK else f"Free space, or move {subject} to a larger disk",
        )
        if not _is_writable(existing):
            yield Finding(
                area="disk",
                subject=subject,
                state=State.PROBLEM,
                detail=f"{existing} cannot be written to",
                mend=f"Allow this user to write there, or set another {subject}",
            )


def _is_writable(folder: Path) -> bool:
    import os

    return os.access(folder, os.W_OK | os.X_OK)


def _memory(config: TrainingRunConfig) -> Iterator[Finding]:
    import psutil

    from daedalus.pipelines.duckdb_session import duckdb_session

    with duckdb_session(config.duckdb_settings()) as connection:
        limit, threads = connection.execute(
            "SELECT current_setting('memory_limit'), current_setting('threads')"
        ).fetchall()[0]
        total = psutil.virtual_memory().total
        wanted = _bytes_of(str(limit)) * (config.day_workers or 1)
    fits = wanted <= total
    yield Finding(
        area="memory",
        subject="memory_limit",
        state=State.OK if fits else State.PROBLEM,
        detail=f"{limit} for each of {config.day_workers or 1} day(s) at a time, "
        f"{threads} threads; the machine has {total / _GIB:.1f} GiB",
        mend="" if fits else "Lower day_workers or compute.duckdb_config.memory_limit",
    )


def _bytes_of(text: str) -> float:
    """A size as DuckDB prints it, in bytes.

    >>> _bytes_of("4.0 GiB") == 4 * 2**30, _bytes_of("512 bytes")
    (True, 512.0)
    """
    number, _, unit = text.strip().partition(" ")
    powers = {"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
    return float(number) * float(2 ** powers.get(unit, 0))


def _sources(registry: PlatformRegistry, config: TrainingRunConfig) -> Iterator[Finding]:
    from daedalus.pipelines.run_sources import RunSources
    from daedalus.pipelines.source_times import source_times

    catalog = registry.catalog
    sources = RunSources(catalog, config)
    try:
        for name in sorted(catalog.views):
            try:
                source = sources.source(name)
                columns = len(source.snapshot().columns)
                times = source_times(catalog.view(name), source)
            except DaedalusError as error:
                yield _failed("source", f"view {name}", error)
            else:
                detail = f"{columns} columns" + ("" if times is None else f", rows of {times.span}")
                doubt = "" if times is None else times.doubt
                yield Finding(
                    area="source",
                    subject=f"view {name}",
                    state=State.NOTE if doubt else State.OK,
                    detail=doubt or detail,
                    mend=times.mend if times is not None else "",
                )
    finally:
        sources.close()


def _stores(config: TrainingRunConfig) -> Iterator[Finding]:
    from daedalus.pipelines.days.embedding_ids import store_definition
    from daedalus.storage.embedding_store import open_store

    for definition in config.embedding_stores:
        try:
            store = open_store(store_definition(config, definition.name))
        except DaedalusError as error:
            yield _failed("store", definition.name, error)
        else:
            yield Finding(
                area="store",
                subject=definition.name,
                state=State.OK,
                detail=f"version {store.version}, {store.count} vectors",
            )


def _locks(config: TrainingRunConfig) -> Iterator[Finding]:
    found = False
    for owner in sorted(config.output_path.glob("*/*/.locks/*.owner")):
        found = True
        held = _is_held(owner.with_suffix(".lock"))
        stage = owner.parent.parent
        yield Finding(
            area="lock",
            subject=f"{stage.parent.name}/{stage.name} {owner.stem}",
            state=State.NOTE,
            detail=f"held by {_text(owner)}" if held else f"left behind by {_text(owner)}",
            mend="Wait for that run, or stop it"
            if held
            else "Nothing to do: the next run of the day takes it",
        )
    for leftover in sorted(config.output_path.glob("*/*/.*-dt=*")):
        found = True
        yield Finding(
            area="lock",
            subject=f"{leftover.parent.parent.name}/{leftover.parent.name}",
            state=State.NOTE,
            detail=f"a run is at, or was killed at, {leftover.name.partition('-')[2]}",
            mend="If no run is at it: train the day again, which mends it",
        )
    if not found:
        yield Finding(area="lock", subject="output_root", state=State.OK, detail="no day is held")


def _text(path: Path) -> str:
    try:
        return path.read_text().strip() or "a run"
    except OSError:
        return "a run"


def _is_held(path: Path) -> bool:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _records(config: TrainingRunConfig) -> Iterator[Finding]:
    from daedalus.metadata.store import MetadataStore

    if not config.output_path.exists():
        yield Finding(area="records", subject="runs", state=State.OK, detail="no run yet")
        return
    runs = MetadataStore(config.output_path).runs(limit=50)
    broken = [run.run_id for run in runs if run.status == "interrupted"]
    yield Finding(
        area="records",
        subject="runs",
        state=State.NOTE if broken else State.OK,
        detail=f"{len(runs)} runs" + (f", interrupted: {', '.join(broken[:3])}" if broken else ""),
        mend="Train again: finished days are kept" if broken else "",
    )
