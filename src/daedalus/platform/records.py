"""Runs and their records: recording one while it happens, and reading what was recorded.

    with recorded_run(project, kind="train", service=name, config=config, request={...}) as run:
        result = run_pipeline(..., progress=run.watching(progress), run_id=run.run_id)
        run.record_days(result)

A run that cannot be recorded does not begin. However the block ends, the record says so; a process that is
killed leaves a run that reads as `interrupted`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import BusyError, DaedalusError
from daedalus.metadata.days import DayStore
from daedalus.metadata.process import HEARTBEAT_SECONDS
from daedalus.metadata.provenance import file_digests, git_state, versions
from daedalus.metadata.store import MetadataStore, RunStatus
from daedalus.pipelines.function_code import function_file, named_functions
from daedalus.pipelines.records import TrainingRunRecord, day_payload, source_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daedalus.metadata.store import StoredRun
    from daedalus.pipelines.executor import ExecutionResult, RunProgress
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.project import Project

#: The stages of a training run, and the folders of their days.
STAGE_FOLDERS = {"skeleton": "skeleton", "enrich": "enriched"}
_PROGRESS_SECONDS = 1.0
_RUNS_LOOKED_AT = 200
#: Runs that write days, or rows of an instant, where they are recorded. A proof asks for a day, too, and writes none.
_WRITING_KINDS = frozenset({"train", "materialize"})


class RunRecorder:
    """A run that is being recorded.

    Attributes:
        run_id: its id.
        store: where it is recorded.
        log: its log file.
    """

    def __init__(self, store: MetadataStore, run_id: str, service: str, config: TrainingRunConfig) -> None:
        self.store = store
        self.run_id = run_id
        self.log = store.log(run_id)
        self._service = service
        self._root = config.output_path / service
        self._roots = (config.source_root, str(config.project_root))
        self._told = 0.0
        self._stage_since = time.monotonic()
        self._fingerprints: dict[tuple[str, str], dict[str, Any]] = {}
        self._recorded: frozenset[tuple[str, str, str]] | None = None

    def facts(self, **facts: Any) -> None:
        """Record what is known of the run only now; said twice, the later value wins."""
        self.store.append(self.run_id, "facts", facts)

    def attach(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Keep a note with the run."""
        self.store.attach(self.run_id, kind, payload)

    def notice(self, text: str) -> None:
        """Something to know, and no error: a line of the log."""
        self.log.write("notice", level="warning", message=text)

    def watching(self, progress: Callable[[RunProgress], None] | None) -> Callable[[RunProgress], None]:
        """A progress callback that logs, records each day when it is written, and passes on."""

        def tell(step: RunProgress) -> None:
            written = step.stage == "skeleton" and step.message == "written"
            # A line per second is enough of what only counts up.
            if written or step.done == step.total or time.monotonic() - self._told > _PROGRESS_SECONDS:
                self._told = time.monotonic()
                self.log.write(
                    "progress",
                    stage=step.stage,
                    day=step.day,
                    message=step.message,
                    done=step.done,
                    total=step.total,
                )
            if written:
                self._stage_since = time.monotonic()
                self.record_day(step.stage, step.day, state="written")
            if progress is not None:
                progress(step)

        return tell

    def record_day(self, stage: str, day: str, **known: Any) -> None:
        """Record a day from its manifest, and what else is known of it."""
        folder = STAGE_FOLDERS.get(stage)
        manifest = (
            None if folder is None else DayStore(self._root / folder).manifest(dt.date.fromisoformat(day))
        )
        payload = dict(known)
        if manifest is not None and (stage, day) not in self._fingerprints:
            payload |= day_payload(
                manifest,
                self._roots,
                columns=known.get("state") == "written"
                or self._is_unrecorded(stage, day, manifest.content_hash),
            )
            self._fingerprints[stage, day] = manifest.fingerprint
        self.store.append_day(self.run_id, stage, day, payload)

    def _is_unrecorded(self, stage: str, day: str, content_hash: str) -> bool:
        """Whether the run that wrote a day did not come to record it."""
        if self._recorded is None:
            self._recorded = self.store.recorded_days(self._service)
        return (stage, day, content_hash) not in self._recorded

    def record_days(self, result: ExecutionResult) -> None:
        """Record every day of a finished run, what the days were made from, and their sums."""
        enriched = [day for day in result.days if day.stage == "enrich" and day.state == "written"]
        # Enrichment makes all days' shards in one pool: each day gets its share of the stage's time.
        share = (time.monotonic() - self._stage_since) / max(len(enriched), 1)
        for day in result.days:
            self.record_day(
                day.stage,
                day.day,
                state=day.state,
                reason=day.reason,
                seconds=round(day.seconds or (share if day in enriched else 0.0), 3),
                rows=day.rows,
                content_hash=day.content_hash,
                **({} if day.snapshot is None else {"snapshot": day.snapshot}),
            )
        for text in result.notices:
            self.notice(text)
        record = TrainingRunRecord.of(self.store.find(self.run_id), self.store)
        self.facts(
            output_path=str(result.output_path),
            notices=list(result.notices),
            sources=source_items(self._fingerprints.values(), self._roots),
            summary={
                "days": len({day.day for day in result.days}),
                "days_written": len({day.day for day in result.days if day.state == "written"}),
                "rows": record.row_count,
                "ts_min": record.ts_min,
                "ts_max": record.ts_max,
            },
        )

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Touch the log now and then, so that other hosts see that the run lives."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                self.log.touch()

        thread = threading.Thread(target=beat, name="daedalus-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def metadata_store(project: Project, output_root: Path | str | None = None) -> MetadataStore:
    """The records of a run root; None takes the configured `output_root`."""
    root = project.config().output_path if output_root is None else Path(output_root).absolute()
    return MetadataStore(root)


@contextlib.contextmanager
def recorded_run(
    project: Project,
    *,
    kind: str,
    service: str,
    config: TrainingRunConfig,
    request: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    queued: str = "",
) -> Iterator[RunRecorder]:
    """Record what happens inside the block as one run.

    Args:
        project: whose.
        kind: `train`, `materialize`, ...
        service: what it is for.
        config: its configuration; `output_root` is the run root.
        request: what was asked for, as plain data: what `reproduce` asks for again.
        facts: what else is known already.
        queued: the run that waited for this; empty begins a new one.

    Raises:
        ExecutionError: it cannot be recorded, or somebody stopped it while it waited; nothing was done.
    """
    definition = project.facade(config).catalog.services.get(service)
    store = MetadataStore(config.output_path)
    known = {
        "request": dict(request or {}),
        "grain": list(definition.grain) if definition is not None else [],
        "output_root": str(config.output_path),
        **project_facts(project, config, service),
        **(facts or {}),
    }
    version = definition.version if definition is not None else ""
    if queued:
        run_id = store.start(queued, facts=known).run_id
    else:
        run_id = store.begin(kind, service=service, version=version, facts=known, request=request)
    run = RunRecorder(store, run_id, service, config)
    with run._alive():
        try:
            yield run
        except BaseException as error:
            if isinstance(error, BusyError):
                _name_holder(error, run, service)
            _end_badly(run, error)
            raise
        store.finish(run_id, RunStatus.SUCCEEDED)


def _end_badly(run: RunRecorder, error: BaseException) -> None:
    interrupted = not isinstance(error, Exception)  # Ctrl-C, an exit, or what Dagster ends a step with
    told = (
        error.to_dict()
        if isinstance(error, DaedalusError)
        else {
            "error": type(error).__name__,
            "what": str(error),
            "message": f"{type(error).__name__}: {error}",
        }
    )
    run.log.write("error", level="error", **{key: value for key, value in told.items() if key != "problems"})
    # The error that ended the run is the one to see, also when the disk is full for its record, too.
    with contextlib.suppress(DaedalusError):
        run.store.finish(run.run_id, RunStatus.INTERRUPTED if interrupted else RunStatus.FAILED, error=told)


def run_holding(store: MetadataStore, service: str, day: str, *, but: str = "") -> StoredRun | None:
    """The run under way that makes this day, or this instant, of a service; None when there is none here."""
    for run in store.runs(service=service, limit=_RUNS_LOOKED_AT):
        if run.kind not in _WRITING_KINDS:
            continue
        request = run.facts.get("request", {})
        days, instant = request.get("target_dates"), str(request.get("as_of", ""))
        holds = (days is not None and (not days or day in days)) or instant.removesuffix("+00:00") == day
        if run.run_id != but and not run.status.is_over and holds:
            return run
    return None


def _name_holder(error: BusyError, run: RunRecorder, service: str) -> None:
    holder = run_holding(run.store, service, error.day, but=run.run_id)
    if holder is not None and not error.run_id:
        error.run_id = holder.run_id
        error.hint = f"Run {holder.run_id} is at it. {error.hint}"


def project_facts(project: Project, config: TrainingRunConfig, service: str) -> dict[str, Any]:
    """The state of the code, the definitions and the configuration: what `reproduce` compares."""
    root = project.project_root
    outside = [config.output_path, Path(config.source_root)]
    git = git_state(root, without=outside)
    catalog = project.facade(config).catalog
    definition = catalog.services.get(service)
    named = [] if definition is None else [definition.file]
    named += [view.file for view in catalog.views.values()]
    files = [project.definition_file(file) for file in named]
    files += [project.views_dir / "entities.yaml", project.edited_file(service)]
    code = [] if definition is None else _function_files(project, config, service)
    return {
        "git": None if git is None else git.to_dict(),
        "versions": versions(),
        "config_files": file_digests(root, config.config_files),
        "definition_files": file_digests(root, [*files, *code]),
    }


def _function_files(project: Project, config: TrainingRunConfig, service: str) -> list[Path]:
    """The files of the functions that the pipeline names, `package.module:function`."""
    try:
        names = named_functions(project.pipeline(service, config))
    except DaedalusError:
        return []
    return [file for file in map(function_file, names) if file is not None]


# ------------------------------------------------------------------ reading


def list_runs(
    project: Project,
    *,
    service: str = "",
    kind: str = "",
    limit: int | None = None,
    output_root: Path | str | None = None,
) -> list[dict[str, Any]]:
    """The recorded runs in short, newest first."""
    runs = metadata_store(project, output_root).runs(service=service, kind=kind, limit=limit)
    return [_run_line(run) for run in runs]


def get_run(project: Project, run_id: str, *, output_root: Path | str | None = None) -> TrainingRunRecord:
    """One run's record; `run_id` may be its beginning, or `latest`."""
    store = metadata_store(project, output_root)
    return TrainingRunRecord.of(store.find(run_id), store)


def show_run(project: Project, run_id: str, *, output_root: Path | str | None = None) -> dict[str, Any]:
    """One run as plain data: its record, and the notes that others left."""
    store = metadata_store(project, output_root)
    return stored_run(store, store.find(run_id))


def stored_run(store: MetadataStore, run: StoredRun) -> dict[str, Any]:
    """A run of the store as plain data: its record, and the notes that others left."""
    record = TrainingRunRecord.of(run, store)
    notes = [{"at": note.at, "kind": note.name, **note.payload} for note in store.notes(run.run_id)]
    return record.to_dict() | {"seconds": run.seconds, "notes": notes, "log": str(store.log(run.run_id).path)}


def run_log(
    project: Project, run_id: str, *, tail: int | None = None, output_root: Path | str | None = None
) -> list[dict[str, Any]]:
    """The lines of a run's log, oldest first; the last `tail` of them."""
    store = metadata_store(project, output_root)
    return store.log(store.find(run_id).run_id).lines(tail)


def attach_note(
    project: Project,
    run_id: str,
    kind: str,
    payload: Mapping[str, Any],
    *,
    output_root: Path | str | None = None,
) -> None:
    """Keep a note with a run: the verdict of a check, a tracker's link."""
    metadata_store(project, output_root).attach(run_id, kind, payload)


def day_records(
    project: Project, service: str, *, output_root: Path | str | None = None
) -> list[dict[str, Any]]:
    """The newest record of each (stage, day) of a service, ascending, a day's skeleton before its enrichment.

    Of the runs that came by a day that is the one that wrote it: its record has the columns' statistics.
    """
    store = metadata_store(project, output_root)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in store.runs(service=service):
        for (stage, day), payload in store.days(run.run_id).items():
            if stage in STAGE_FOLDERS and payload.get("columns") and (stage, day) not in found:
                found[stage, day] = {"run_id": run.run_id, "stage": stage, "day": day, **payload}
    return [found[key] for key in sorted(found, key=lambda key: (key[1], key[0] != "skeleton"))]


def _run_line(run: StoredRun) -> dict[str, Any]:
    summary = run.facts.get("summary", {})
    git = run.facts.get("git") or {}
    return {
        "run_id": run.run_id,
        "kind": run.kind,
        "service": run.service,
        "version": run.version,
        "status": run.status.value,
        "attempt": run.attempt,
        "started_at": run.started_at,
        "seconds": run.seconds,
        "days": summary.get("days"),
        "days_written": summary.get("days_written"),
        "rows": summary.get("rows"),
        "git": git.get("sha", "")[:10] + ("+" if git.get("dirty") else ""),
        "error": "" if run.error is None else str(run.error.get("what", "")),
    }
