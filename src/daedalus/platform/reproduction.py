"""Make a recorded run again and compare: the same content, day by day, or what differs and may be why."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DaedalusError, DefinitionError
from daedalus.pipelines.operators import OperatorPipeline, Sink, SinkFormat
from daedalus.pipelines.records import TrainingRunRecord
from daedalus.platform.causes import Cause, CauseKind, input_causes, project_causes, without_repeats
from daedalus.platform.records import metadata_store
from daedalus.platform.remaking import DAY_STAGES, INSTANT_STAGE, remake_of
from daedalus.platform.run_diff import compare_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daedalus.pipelines.executor import RunProgress
    from daedalus.platform.project import RunOptions
    from daedalus.platform.registry import PlatformRegistry
    from daedalus.platform.remaking import Remake
    from daedalus.platform.run_diff import RunDiff

_STAGES = (*DAY_STAGES, INSTANT_STAGE)
#: Flags that say where and how fast, not what.
_NOT_REPEATED = ("output_root", "day_workers", "ray_address", "ray_num_cpus", "sink")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproducedDay:
    """One recorded day, made again.

    Attributes:
        found: the content hash of the new day; empty when it was not made.
    """

    stage: str
    day: str
    recorded: str
    found: str

    @property
    def same(self) -> bool:
        """Whether its content is what was recorded."""
        return self.recorded == self.found

    @property
    def result(self) -> str:
        """`same`, `differs` or `not made`."""
        return "same" if self.same else "differs" if self.found else "not made"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """How making a run again went.

    Attributes:
        ran: whether it was made again; False when it could only be verified.
        days: every recorded day of every stage.
        causes: what is different now. Of a run that reproduced they are notes.
        difference: days, columns and rows that differ; None when nothing does or it did not run.
        error: why it could not run; empty when it did.
        kept: the folder of the new days, when it was asked for.
    """

    run_id: str
    service: str
    ran: bool
    days: tuple[ReproducedDay, ...]
    causes: tuple[Cause, ...]
    difference: RunDiff | None = None
    error: str = ""
    kept: str = ""

    @property
    def same(self) -> bool:
        """Whether every recorded day came out the same."""
        return self.ran and not self.error and all(day.same for day in self.days)

    @property
    def verified(self) -> bool:
        """Whether nothing that the days are made from is known to differ."""
        return not any(cause.decides for cause in self.causes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "run_id": self.run_id,
            "service": self.service,
            "same": self.same,
            "verified": self.verified,
            "ran": self.ran,
            "days": [dataclasses.asdict(day) | {"same": day.same} for day in self.days],
            "causes": [cause.to_dict() for cause in self.causes],
            "difference": None if self.difference is None else self.difference.to_dict(),
            "error": self.error,
            "kept": self.kept,
        }


def reproduce_run(
    registry: PlatformRegistry,
    run_id: str,
    *,
    output_root: Path | str | None = None,
    scratch: Path | None = None,
    verify_only: bool = False,
    progress: Callable[[RunProgress], None] | None = None,
) -> Reproduction:
    """Verify what a recorded run was made from, make it again in a folder of its own, and compare the days.

    Nothing is checked out: the project is taken as it is. Tables that the service's days are copied into are not
    touched.

    Args:
        registry: the project.
        run_id: the run.
        output_root: the run root that holds its record; None takes the configured one.
        scratch: keep the new days here; None makes them in a temporary folder.
        verify_only: compare what it is made from, run nothing.
        progress: told how far the new run is.

    Raises:
        DefinitionError: there is no such run, it recorded no finished day, or the service is gone.
            A materialization for keys that no file holds.
    """
    store = metadata_store(registry, output_root)
    run = store.find(run_id)
    record = TrainingRunRecord.of(run, store)
    recorded = [day for day in record.days if day.stage in _STAGES and day.content_hash]
    if not recorded:
        raise DefinitionError(
            f"run {run.run_id} recorded no finished day, so there is nothing to compare",
            where=str(store.path),
            hint=f"It is a {run.kind} run that {run.status.value}",
        )
    with _folder(scratch) as folder:
        options = _options(registry, record, folder)
        config = registry.config(options)
        remake = remake_of(
            record,
            registry=registry,
            pipeline=_into_parquet(registry.pipeline(record.service, config)),
            config=config,
            options=options,
            progress=progress,
        )
        causes = without_repeats(
            [
                *_verified(remake),
                *project_causes(registry, record, run.facts.get("git"), config),
            ]
        )
        again: TrainingRunRecord | None = None
        error = ""
        if not verify_only:
            try:
                again = remake.run()
            except DaedalusError as problem:
                error = str(problem)
        result = _compared(registry, record, again, causes, (store.root, folder))
        result = dataclasses.replace(result, error=error, kept=str(folder) if scratch is not None else "")
    with contextlib.suppress(DaedalusError):  # a record on a read-only disk is reproduced all the same
        store.attach(run.run_id, "reproduce", {"same": result.same, "ran": result.ran, "error": result.error})
    return result


@contextlib.contextmanager
def _folder(scratch: Path | None) -> Iterator[Path]:
    if scratch is not None:
        yield scratch.absolute()
        return
    made = Path(tempfile.mkdtemp(prefix="daeda-reproduce-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _options(registry: PlatformRegistry, record: TrainingRunRecord, folder: Path) -> RunOptions:
    """The options of the recorded run, with the output elsewhere."""
    from daedalus.platform.project import RunOptions

    def path(name: str) -> Path | None:
        text = record.request.get(name)
        return None if not text else registry.project_root / text

    overrides = {
        key: value for key, value in record.request.get("overrides", {}).items() if key not in _NOT_REPEATED
    }
    return RunOptions(
        runtime_path=path("runtime_path"),
        aggregation_path=path("aggregation_path"),
        overrides=overrides | {"output_root": str(folder)},
    )


def _into_parquet(pipeline: OperatorPipeline) -> OperatorPipeline:
    """The pipeline with its days in folders alone."""
    *before, sink = pipeline.operators
    if not isinstance(sink, Sink):
        return pipeline
    plain = dataclasses.replace(sink, format=SinkFormat.PARQUET, path="", data_path="")
    return dataclasses.replace(pipeline, operators=(*before, plain))


def _verified(remake: Remake) -> list[Cause]:
    record, config = remake.record, remake.config
    found: list[Cause] = []
    version = remake.registry.facade(config).catalog.service(record.service).version
    if version != record.version:
        what = f"service {record.service} was version {record.version}, is {version}"
        found.append(Cause(kind=CauseKind.DEFINITIONS, what=what, decides=False))
    with remake.inputs() as inputs:
        return [*found, *remake.causes(), *input_causes(record, inputs, config)]


def _compared(
    registry: PlatformRegistry,
    record: TrainingRunRecord,
    again: TrainingRunRecord | None,
    causes: list[Cause],
    roots: tuple[Path, Path],
) -> Reproduction:
    days = []
    for day in record.days:
        if day.stage in _STAGES and day.content_hash:
            made = None if again is None else again.day(day.stage, day.day)
            found = "" if made is None else made.content_hash
            days.append(ReproducedDay(stage=day.stage, day=day.day, recorded=day.content_hash, found=found))
    difference = None
    if again is not None and not all(day.same for day in days):
        places = [root / record.service for root in roots]
        difference = compare_records(record, again, places, registry.config().duckdb_settings())
    return Reproduction(
        run_id=record.run_id,
        service=record.service,
        ran=again is not None,
        days=tuple(days),
        causes=tuple(causes),
        difference=difference,
    )
