"""How a recorded run is made again: a training run over its days, a materialization at its instant."""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError
from daedalus.metadata.store import MetadataStore
from daedalus.pipelines.records import TrainingRunRecord, lake_pins
from daedalus.platform.causes import Cause, CauseKind
from daedalus.platform.materialization import (
    entities_digest,
    materialize_recorded,
    parse_instant,
    read_entities,
)
from daedalus.platform.records import STAGE_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daedalus.pipelines.executor import RunProgress
    from daedalus.pipelines.instants.materialize_run import MaterializeRequest
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.causes import Inputs
    from daedalus.platform.project import RunOptions, Stages
    from daedalus.platform.registry import PlatformRegistry

DAY_STAGES = tuple(STAGE_FOLDERS)
INSTANT_STAGE = "materialize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remake:
    """A training run to be made again.

    Attributes:
        record: the run.
        pipeline: what would run now.
        config: with the folder of the new days as `output_root`.
        options: the run's own, with the same folder.
    """

    registry: PlatformRegistry
    record: TrainingRunRecord
    pipeline: OperatorPipeline
    config: TrainingRunConfig
    options: RunOptions
    progress: Callable[[RunProgress], None] | None = None

    @contextlib.contextmanager
    def inputs(self) -> Iterator[Inputs]:
        """What it would be made from now."""
        from daedalus.pipelines.planning.run_inputs import RunInputs

        catalog = self.registry.facade(self.config).catalog
        pins = lake_pins(self.record.sources)
        found = RunInputs(self.pipeline, catalog, self.config, self._dates(), pins=pins)
        with contextlib.closing(found) as inputs:
            yield inputs

    def causes(self) -> list[Cause]:
        """What differs beside the inputs."""
        return []

    def run(self) -> TrainingRunRecord:
        """Make it again; the record of the new run."""
        from daedalus.pipelines.executor import ExecutionRequest

        days = self._dates()
        stages: Stages = "all" if any(day.stage == "enrich" for day in self.record.days) else "skeleton"
        result = self.registry.run_recorded(
            ExecutionRequest(
                pipeline=self.pipeline,
                run_config=self.config,
                catalog=self.registry.facade(self.config).catalog,
                target_dates=days,
                stages=stages,
                progress=self.progress,
                pins=lake_pins(self.record.sources),
            ),
            kind="reproduce",
            asked={
                "target_dates": [day.isoformat() for day in days],
                "stages": stages,
                **self.options.to_dict(),
            },
            facts={"reproduces": self.record.run_id},
        )
        return self._recorded(result.run_id)

    def _recorded(self, run_id: str) -> TrainingRunRecord:
        store = MetadataStore(self.config.output_path)
        return TrainingRunRecord.of(store.find(run_id), store)

    def _dates(self) -> tuple[dt.date, ...]:
        days = {day.day for day in self.record.days if day.stage in DAY_STAGES and day.content_hash}
        return tuple(dt.date.fromisoformat(day) for day in sorted(days))


@dataclass(frozen=True, slots=True, kw_only=True)
class InstantRemake(Remake):
    """A materialization to be made again, into Parquet: the content hash is that of the rows, whatever the format."""

    @contextlib.contextmanager
    def inputs(self) -> Iterator[Inputs]:
        """What it would be made from now."""
        yield _InstantInputs(self._request())

    def causes(self) -> list[Cause]:
        """The file of keys, where there was one, if it holds others now."""
        asked = self.record.request.get("entities")
        if asked is None or entities_digest(self._entities()) == asked["digest"]:
            return []
        return [Cause(kind=CauseKind.SOURCES, what=f"{asked['file']} holds other entities")]

    def run(self) -> TrainingRunRecord:
        """Make it again; the record of the new run."""
        asked = {
            **{key: value for key, value in self.record.request.items() if key in ("as_of", "entities")},
            **self.options.to_dict(),
        }
        result = materialize_recorded(
            self.registry,
            replace(self._request(), entities=self._entities()),
            kind="reproduce",
            asked=asked,
            facts={"reproduces": self.record.run_id},
        )
        return self._recorded(result.run_id)

    def _request(self) -> MaterializeRequest:
        from daedalus.pipelines.instants.materialize_run import MaterializeRequest

        return MaterializeRequest(
            pipeline=self.pipeline,
            run_config=self.config,
            catalog=self.registry.facade(self.config).catalog,
            as_of=parse_instant(self.record.request["as_of"]),
            progress=self.progress,
            pins=lake_pins(self.record.sources),
        )

    def _entities(self) -> Any:
        asked = self.record.request.get("entities")
        if asked is None:
            return None
        if "file" not in asked:
            raise DefinitionError(
                f"its {asked['rows']} entities were given by a program, and are not recorded",
                where=f"run {self.record.run_id}",
                hint="Give entities as a file to have it reproducible",
            )
        return read_entities(self.registry, asked["file"])


@dataclass(slots=True)
class _InstantInputs:
    """What the rows of an instant would be made from; looked at once."""

    request: MaterializeRequest
    _found: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self, _day: dt.date) -> dict[str, Any]:
        from daedalus.pipelines.instants.materialize_run import materialization_inputs

        if not self._found:
            self._found = materialization_inputs(self.request)
        return self._found

    def store_scans(self) -> frozenset[str]:
        from daedalus.pipelines.operators import Scan

        scans = (one for one in self.request.pipeline if isinstance(one, Scan))
        return frozenset(scan.name for scan in scans if scan.source_ref.startswith("store:"))

    def stores(self) -> dict[str, str]:
        found: dict[str, str] = self.fingerprint(self.request.as_of).get("stores", {})
        return found


def remake_of(record: TrainingRunRecord, **given: Any) -> Remake:
    """How this run is made again, by what it recorded."""
    of_instant = any(day.stage == INSTANT_STAGE for day in record.days)
    return (InstantRemake if of_instant else Remake)(record=record, **given)
