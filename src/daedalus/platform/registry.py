"""`PlatformRegistry`: a project that runs: training, recorded as a run, and its embedding stores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from daedalus.catalog.facade import describe
from daedalus.platform.project import Project, RunOptions, Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date

    from daedalus.pipelines.executor import ExecutionRequest, ExecutionResult


def train_request(
    days: Sequence[date], stages: Stages, options: RunOptions, *, refresh: bool = False
) -> dict[str, Any]:
    """What was asked of `train`, as its record keeps it."""
    return {
        "target_dates": [day.isoformat() for day in days],
        "stages": stages,
        **({"refresh": True} if refresh else {}),
        **options.to_dict(),
    }


class PlatformRegistry(Project):
    """One project: its catalog, its configuration and what can be done with them."""

    def train(
        self,
        service: str,
        *,
        target_dates: Sequence[date] = (),
        stages: Stages = "all",
        options: RunOptions | None = None,
        progress: Callable[..., None] | None = None,
        refresh: bool = False,
        profile: bool = False,
        queued: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> ExecutionResult:
        """Compile, then run skeleton and enrich; no `target_dates` is every day of the configured months.

        The run is recorded under the run root; one that cannot be recorded does not begin. Days that were read from
        a database stand as they are unless `refresh` has it read again. `profile` measures where the time goes.
        `queued` is the id of the recorded run that waited for this, `facts` what else to record of it.
        """
        from daedalus.pipelines.executor import ExecutionRequest

        config = self.config(options)
        pipeline = self.pipeline(service, config)
        return self.run_recorded(
            ExecutionRequest(
                pipeline=pipeline,
                run_config=config,
                catalog=self._catalog(config),
                target_dates=tuple(target_dates),
                stages=stages,
                progress=progress,
                refresh=refresh,
                profile=profile,
            ),
            kind="train",
            asked=train_request(target_dates, stages, options or RunOptions(), refresh=refresh),
            facts=facts,
            queued=queued,
        )

    def run_recorded(
        self,
        request: ExecutionRequest,
        *,
        kind: str,
        asked: Mapping[str, Any],
        facts: Mapping[str, Any] | None = None,
        queued: str = "",
    ) -> ExecutionResult:
        """Run the stages of a pipeline, recorded as one run; `asked` is what was asked for, as plain data."""
        from daedalus.pipelines.executor import run_pipeline
        from daedalus.platform.openlineage import lineage_events
        from daedalus.platform.records import recorded_run
        from daedalus.platform.tracking import tracked_run

        service, config = request.pipeline.service, request.run_config
        with (
            tracked_run(self, kind, config, asked) as tracking,
            recorded_run(
                self, kind=kind, service=service, config=config, request=asked, facts=facts, queued=queued
            ) as run,
            lineage_events(self, service, config, run.run_id, kind) as lineage,
        ):
            tracking.run_id = run.run_id
            result = run_pipeline(
                replace(request, progress=run.watching(request.progress), run_id=run.run_id)
            )
            run.record_days(result)
            lineage.finished(result)
        return replace(
            result, run_id=run.run_id, notices=(*result.notices, *lineage.notices, *tracking.notices)
        )

    def list_stores(self) -> list[dict[str, Any]]:
        """Every configured embedding store, as configured; nothing is opened."""
        return [dict(describe(store)) for store in self.config().embedding_stores]

    def build_store(self, name: str, *, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Build an embedding store from its `source_parquet`; resumes what was interrupted."""
        from daedalus.pipelines.days.embedding_ids import store_definition
        from daedalus.storage.embedding_store import build_store

        return dict(describe(build_store(store_definition(self.config(), name), progress=progress)))

    def show_store(self, name: str) -> dict[str, Any]:
        """What an embedding store holds."""
        from daedalus.pipelines.days.embedding_ids import store_definition
        from daedalus.storage.embedding_store import show_store

        return dict(describe(show_store(store_definition(self.config(), name))))
