"""What a run is asked and what it answers, shared by the stages and by whoever starts one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.enrich.runtime import RayEnvelope
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.profiling import RunProfile
    from daedalus.pipelines.settings import TrainingRunConfig

Stages = Literal["all", "skeleton", "enrich"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a run is.

    Attributes:
        stage: `skeleton`, `enrich`, `sink` or `materialize`.
        day: the day that was just worked on, ISO; of a materialization its instant.
        done: what is finished: days (skeleton, sink), rows (enrich) or steps (materialize).
        total: how many there are.
    """

    stage: str
    day: str
    message: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DayResult:
    """One day after one stage.

    Attributes:
        stage: `skeleton`, `enrich`, or `sink` for the copy into a table.
        state: `written`, or `up to date`.
        reason: why it was written, or why not.
        snapshot: of a lake sink: the snapshot that the day's commit made.
    """

    day: str
    stage: str
    state: str
    rows: int
    content_hash: str
    reason: str
    seconds: float = 0.0
    snapshot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRequest:
    """What to run.

    Attributes:
        catalog: None loads the project's definitions.
        target_dates: the days; empty is every day of `feed_start..feed_end` that has events, and for `enrich` alone
            every day of the skeleton that is there.
        stages: `skeleton`, `enrich`, or `all`.
        progress: told how far the run is.
        envelope: what enrichment workers may take.
        profile: whether to measure where the time goes.
        run_id: names the run in a sink's commit messages; empty makes one.
        refresh: whether databases are looked at again; else days that were read from them stand.
        pins: by view, what an earlier run recorded of its source: a lake is read at that snapshot again.
    """

    pipeline: OperatorPipeline
    run_config: TrainingRunConfig
    catalog: FeatureCatalog | None = None
    target_dates: tuple[dt.date, ...] = ()
    stages: Stages = "all"
    progress: Callable[[RunProgress], None] | None = None
    envelope: RayEnvelope | None = None
    profile: bool = False
    run_id: str = ""
    refresh: bool = False
    pins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """What a run did.

    Attributes:
        output_path: the final stage's folder, with one `dt=YYYY-MM-DD` folder per day.
        days: per stage and day, ascending.
        notices: what a person should know, and no error.
        run_id: of the run's record; empty when nobody recorded it.
        profile: where the time went; None unless the request asks for it.
    """

    service: str
    output_path: Path
    days: tuple[DayResult, ...]
    notices: tuple[str, ...] = field(default=())
    run_id: str = ""
    profile: RunProfile | None = None
