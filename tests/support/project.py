"""A tiny project from literals, and its runs: definitions to YAML, tables to Parquet, days back as Arrow.

project = write_project(tmp_path, views=[EVENTS], services=[SERVICE], data={"events/part-0.parquet": events})
table = project.run("s", days=["2026-05-02"]).table("2026-05-02")
"""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import signal
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from daedalus.catalog.registry import FeatureCatalog
from daedalus.pipelines.compiler import build_compile_request, compile_service_to_pipeline
from daedalus.pipelines.executor import ExecutionRequest, ExecutionResult, run_pipeline
from daedalus.pipelines.pipeline_files import load_hand_edited
from daedalus.pipelines.settings import load_training_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig

ENGINES = ("kernel", "polars", "duckdb")
Definition = str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run did, and what stands on disk after it."""

    result: ExecutionResult

    @property
    def states(self) -> dict[str, str]:
        """Day to `written` or `up to date`."""
        return {day.day: day.state for day in self.result.days}

    @property
    def reasons(self) -> dict[str, str]:
        """Day to why it was written, or not."""
        return {day.day: day.reason for day in self.result.days}

    @property
    def hashes(self) -> dict[str, str]:
        """Day to the content hash of its manifest."""
        return {day.day: day.content_hash for day in self.result.days}

    def folder(self, day: str) -> Path:
        """The day's folder."""
        return self.result.output_path / f"dt={day}"

    def files(self, day: str) -> dict[str, bytes]:
        """The day's Parquet files, by name, as bytes."""
        return {path.name: path.read_bytes() for path in sorted(self.folder(day).glob("*.parquet"))}

    def table(self, day: str) -> pa.Table:
        """The day's rows, in order."""
        count = len(list(self.folder(day).glob("part-*-0.parquet")))
        parts = [pq.ParquetFile(self.folder(day) / f"part-{n}-0.parquet").read() for n in range(count)]
        return pa.concat_tables(parts)

    def rows(self, day: str) -> list[dict[str, Any]]:
        """The day's rows as mappings."""
        return self.table(day).to_pylist()


@dataclass(frozen=True, slots=True)
class Project:
    """A project's folder."""

    root: Path
    overrides: dict[str, Any] = field(default_factory=dict)

    def config(self, **overrides: Any) -> TrainingRunConfig:
        """The configuration; `engine` and `threads` are short for the keys of `compute`."""
        flags: dict[str, Any] = {"output_root": str(self.root / "out"), **self.overrides, **overrides}
        compute: dict[str, Any] = {}
        if "engine" in flags:
            compute["engine"] = flags.pop("engine")
        if "threads" in flags:
            compute["duckdb_config"] = {"threads": flags.pop("threads")}
        return load_training_config(self.root, overrides=flags | ({"compute": compute} if compute else {}))

    def catalog(self, config: TrainingRunConfig) -> FeatureCatalog:
        """The definitions."""
        return FeatureCatalog.from_yaml_dir(
            self.root / "feature_views",
            services_dir=self.root / "feature_services",
            constants=dict(config.constants),
            rolling={spec.name: "" for spec in config.aggregation_specs},
        )

    def pipeline(self, service: str, **overrides: Any) -> OperatorPipeline:
        """The compiled DAG."""
        config = self.config(**overrides)
        return compile_service_to_pipeline(build_compile_request(service, self.catalog(config), config))

    def request(
        self,
        service: str,
        days: Iterable[str] = (),
        *,
        pipeline: OperatorPipeline | None = None,
        progress: Any = None,
        refresh: bool = False,
        pins: Mapping[str, Mapping[str, Any]] | None = None,
        **overrides: Any,
    ) -> ExecutionRequest:
        """A skeleton run of `pipeline`, else of the hand-edited file, else of the service compiled now."""
        config = self.config(**overrides)
        catalog = self.catalog(config)
        if pipeline is None:
            pipeline = load_hand_edited(service, self.root / "config" / "pipelines")
        if pipeline is None:
            pipeline = compile_service_to_pipeline(build_compile_request(service, catalog, config))
        return ExecutionRequest(
            pipeline=pipeline,
            run_config=config,
            catalog=catalog,
            target_dates=tuple(dt.date.fromisoformat(day) for day in days),
            stages="skeleton",
            progress=progress,
            refresh=refresh,
            pins=pins or {},
        )

    def run(self, service: str, days: Iterable[str] = (), **options: Any) -> Run:
        """Run the skeleton stage."""
        return Run(run_pipeline(self.request(service, days, **options)))

    def write(self, path: str, data: pa.Table | Sequence[dict[str, Any]]) -> Path:
        """A Parquet file under `data`."""
        table = data if isinstance(data, pa.Table) else pa.Table.from_pylist(list(data))
        target = self.root / "data" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target)
        return target

    def define(self, folder: str, definition: Definition) -> Path:
        """One view or service as a YAML file, named by its `name`."""
        target = self.root / folder / f"{_file_name(_body(definition)['name'])}.yaml"
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(definition, str):
            target.write_text(textwrap.dedent(definition))
        else:
            target.write_text(yaml.safe_dump(definition, sort_keys=False, allow_unicode=True))
        return target


def write_project(
    root: Path,
    *,
    views: Iterable[Definition],
    services: Iterable[Definition],
    data: Mapping[str, pa.Table | Sequence[dict[str, Any]]],
    aggregations: Definition | None = None,
    runtime: Definition | None = None,
    entities: Definition | None = None,
    **overrides: Any,
) -> Project:
    """A project on disk. Unless `runtime` says otherwise: May 2026, no coverage filter."""
    project = Project(root, overrides)
    for view in views:
        project.define("feature_views", view)
    for service in services:
        project.define("feature_services", service)
    settings: dict[str, Any] = {
        "data_root": "data",
        "feed_start": "202605",
        "feed_end": "202605",
        "embedding_coverage_filter": {"enabled": False},
    }
    _write_yaml(root / "config" / "training" / "runtime.yaml", settings | _body(runtime or {}))
    if aggregations is not None:
        _write_yaml(root / "config" / "training" / "aggregations.yaml", _body(aggregations))
    if entities is not None:
        _write_yaml(root / "feature_views" / "entities.yaml", _body(entities))
    for path, table in data.items():
        project.write(path, table)
    return project


def instants(*texts: str, unit: str = "us", tz: str | None = None) -> pa.Array:
    """Timestamps of ISO texts, read as UTC; an empty text is NULL."""
    kind = pa.timestamp(unit, tz)
    whole = pa.array([text or None for text in texts], pa.string())
    return (
        whole.cast(pa.timestamp(unit)).cast(kind)
        if tz is None
        else whole.cast(pa.timestamp(unit)).cast(pa.int64()).cast(kind)
    )


def _body(definition: Definition) -> dict[str, Any]:
    if isinstance(definition, str):
        return dict(yaml.safe_load(textwrap.dedent(definition)))
    return definition


def _file_name(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name)


def _write_yaml(path: Path, body: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(body, sort_keys=False, allow_unicode=True))


def run_and_die(project: Project, service: str, days: Sequence[str], moment: str) -> int:
    """Run in a process of its own that is killed (SIGKILL) at a moment; returns its exit code.

    Args:
        moment: `DAY MESSAGE` of the run's progress, or `rename N`: before the Nth move of a folder.
    """
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=_run_until, args=(project, service, list(days), moment))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _run_until(project: Project, service: str, days: list[str], moment: str) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment.startswith("rename "):
        left = int(moment.split()[1])
        move = Path.rename

        def counted(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left == 0:
                die()
            return move(self, target)

        Path.rename = counted  # type: ignore[method-assign]  # only in this process, which dies

    def tell(progress: Any) -> None:
        if f"{progress.day} {progress.message}" == moment:
            die()

    project.run(service, days, progress=tell)
