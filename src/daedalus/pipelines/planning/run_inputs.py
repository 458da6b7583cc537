"""What a run would read and make anew, without computing anything: for plans, and to verify a past run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from daedalus.errors import DaedalusError
from daedalus.metadata.days import DayStore
from daedalus.pipelines.enrich.days import day_input, stale_reason
from daedalus.pipelines.enrich.plan import configured_stores, plan_enrichment
from daedalus.pipelines.execution import ExecutionRequest
from daedalus.pipelines.fingerprints import why_stale
from daedalus.pipelines.operators import ArrowUdfTransform, RayUdfTransform, Scan
from daedalus.pipelines.pipeline_files import pipeline_from_yaml
from daedalus.pipelines.planning.column_recipes import columns_reading, output_recipes, recipe_change
from daedalus.pipelines.run_sources import RunSources
from daedalus.pipelines.skeleton_run import SkeletonRun

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping, Sequence

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.metadata.days import DayManifest
    from daedalus.pipelines.enrich.plan import EnrichPlan
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DayState:
    """One day of one stage against what is on disk.

    Attributes:
        reason: why it would be written; empty when it is up to date.
        columns: the columns because of which; empty where it is all of them, or none is made differently.
        rows: of the day on disk; None when it is not there.
    """

    stage: str
    day: str
    reason: str
    columns: tuple[str, ...] = ()
    rows: int | None = None


class RunInputs:
    """The inputs of a run, as they are now; sources are looked at when they are asked for.

    Args:
        pipeline: what would run.
        catalog: the definitions.
        config: its `output_root` is where days are looked for.
        target_dates: the days; empty is every day of the configured months that has events.
        pins: by view, what an earlier run recorded of its source: a lake is looked at as of that snapshot.
    """

    def __init__(
        self,
        pipeline: OperatorPipeline,
        catalog: FeatureCatalog,
        config: TrainingRunConfig,
        target_dates: Iterable[dt.date] = (),
        *,
        pins: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._config = config
        self._target_dates = sorted(set(target_dates))
        request = ExecutionRequest(
            pipeline=pipeline, run_config=config, catalog=catalog, target_dates=tuple(self._target_dates)
        )
        root = config.output_path / pipeline.service
        self._skeleton, self._enriched = DayStore(root / "skeleton"), DayStore(root / "enriched")
        self._sources = RunSources(catalog, config, pins)
        self._run = SkeletonRun(
            request, catalog, self._sources, self._skeleton, connect=_nothing, notify=_unheard
        )
        self._transforms = [one for one in pipeline if isinstance(one, RayUdfTransform)]

    def close(self) -> None:
        """Let go of the sources."""
        self._sources.close()

    def target_days(self, *, stages: str = "all") -> list[dt.date]:
        """The days that a run of these stages would look at, ascending."""
        if stages == "enrich":
            return self._target_dates or self._skeleton.days()
        return self._run.target_days()

    def fingerprint(self, day: dt.date) -> dict[str, Any]:
        """What a skeleton day would be made from."""
        return self._run.fingerprint(day)

    def store_scans(self) -> frozenset[str]:
        """The scans of embedding stores' ids."""
        scans = (one for one in self._pipeline if isinstance(one, Scan))
        return frozenset(scan.name for scan in scans if scan.source_ref.startswith("store:"))

    def stores(self) -> dict[str, str]:
        """The snapshot of each embedding store that enrichment would read."""
        plan = self._enrich_plan()
        return {} if plan is None else {pinned.definition.name: pinned.snapshot for pinned in plan.stores}

    def states(self, days: Sequence[dt.date], *, stages: str = "all") -> list[DayState]:
        """Each day of each stage, whether a run would write it, and why."""
        found = [self._skeleton_state(day) for day in days] if stages != "enrich" else []
        stale = {state.day for state in found if state.reason}
        if stages == "skeleton" or not self._transforms:
            return found
        plan = self._enrich_plan()
        return [
            *found,
            *(self._enriched_state(day, plan, anew=day.isoformat() in stale) for day in days),
        ]

    def _skeleton_state(self, day: dt.date) -> DayState:
        fingerprint, manifest = self._run.fingerprint(day), self._skeleton.manifest(day)
        reason = why_stale(manifest, fingerprint)
        return DayState(
            stage="skeleton",
            day=day.isoformat(),
            reason=reason,
            columns=self._causes(manifest, fingerprint) if reason and manifest is not None else (),
            rows=None if manifest is None else manifest.row_count,
        )

    def _causes(self, manifest: DayManifest, fingerprint: dict[str, Any]) -> tuple[str, ...]:
        """The columns that are made differently, or read what changed."""
        old = manifest.fingerprint
        changed = {
            scan
            for scan, identity in fingerprint["sources"].items()
            if old.get("sources", {}).get(scan) != identity
        }
        views = {
            view for view, text in fingerprint["views"].items() if old.get("views", {}).get(view) != text
        }
        scans = [one for one in self._pipeline if isinstance(one, Scan)]
        changed |= {scan.name for scan in scans if scan.source_ref in views}
        columns = set(columns_reading(self._pipeline, changed)) if changed else set()
        if old.get("pipeline") != fingerprint["pipeline"]:
            try:
                before = pipeline_from_yaml(old.get("pipeline", ""))
            except DaedalusError:  # another version wrote it
                return ()
            columns |= set(recipe_change(before, self._pipeline).columns)
        columns |= self._columns_of_functions(old.get("functions", {}), fingerprint.get("functions", {}))
        filled = {transform.column for transform in self._transforms}
        return tuple(
            name for name in output_recipes(self._pipeline).columns if name in columns and name not in filled
        )

    def _columns_of_functions(self, before: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
        """The columns that functions with other code make."""
        changed = {name for name in now if name in before and before[name] != now[name]}
        if not changed:
            return set()
        operators = tuple(
            replace(one, function=f"{one.function} as it was")
            if isinstance(one, ArrowUdfTransform) and one.function in changed
            else one
            for one in self._pipeline
        )
        return set(recipe_change(replace(self._pipeline, operators=operators), self._pipeline).columns)

    def _enrich_plan(self) -> EnrichPlan | None:
        if not self._transforms:
            return None
        return plan_enrichment(self._transforms, configured_stores(self._transforms, self._config))

    def _enriched_state(self, day: dt.date, plan: EnrichPlan | None, *, anew: bool) -> DayState:
        made = self._enriched.manifest(day)
        rows = None if made is None else made.row_count
        if anew:
            reason = "its skeleton runs" if made is not None else "not there yet"
            return DayState(stage="enrich", day=day.isoformat(), reason=reason, rows=rows)
        if plan is None or self._skeleton.manifest(day) is None:
            return DayState(stage="enrich", day=day.isoformat(), reason="there is no skeleton", rows=rows)
        fingerprint = day_input(self._skeleton, day, plan).fingerprint
        reason = stale_reason(made, fingerprint)
        columns: tuple[str, ...] = ()
        if reason and made is not None:
            old = made.fingerprint
            columns = tuple(
                transform.column
                for transform in plan.transforms
                if old.get("transforms", {}).get(transform.column)
                != fingerprint["transforms"][transform.column]
                or old.get("stores", {}).get(transform.store_name)
                != fingerprint["stores"].get(transform.store_name)
            )
        return DayState(stage="enrich", day=day.isoformat(), reason=reason, columns=columns, rows=rows)


def _nothing() -> None:
    """Planning joins no cluster."""


def _unheard(_line: str) -> None:
    """Nor does it run anything to tell of."""
