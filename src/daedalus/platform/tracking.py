"""Finished runs in an experiment tracker, where the setting `tracking` asks for one."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DaedalusError
from daedalus.secrets import mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.project import Project

NOTE = "tracking"


@dataclass(slots=True)
class TrackingTeller:
    """Tells the tracker of one run once it is over.

    Attributes:
        run_id: of the recorded run; empty while there is none.
        notices: what went wrong on the way.
    """

    run_id: str = ""
    notices: list[str] = field(default_factory=list)


@contextlib.contextmanager
def tracked_run(
    project: Project, kind: str, config: TrainingRunConfig, asked: Mapping[str, Any]
) -> Iterator[TrackingTeller]:
    """Tell the tracker of the training run that the block records, once it is over, done or failed.

    Enclose `recorded_run` in it. A tracker that fails leaves a notice. An interrupted run is not told of: whoever
    interrupts a process wants it to end.
    """
    teller = TrackingTeller()
    if config.tracking == "none" or kind != "train":
        yield teller
        return
    try:
        yield teller
    except Exception:
        _tell(project, config, asked, teller)
        raise
    _tell(project, config, asked, teller)


def _tell(
    project: Project, config: TrainingRunConfig, asked: Mapping[str, Any], teller: TrackingTeller
) -> None:
    if not teller.run_id:  # it ended before it was recorded
        return
    from daedalus.platform.records import metadata_store

    store = metadata_store(project, config.output_path)
    try:
        link = _send(project, config, asked, teller.run_id)
        store.attach(teller.run_id, NOTE, {"tracker": config.tracking, **link})
    except Exception as error:  # noqa: BLE001 - a tracker that fails never fails a run
        said = str(error) if isinstance(error, DaedalusError) else f"{type(error).__name__}: {error}"
        teller.notices.append(f"the run was not sent to {config.tracking}: {mask(said)}")
        store.log(teller.run_id).write("notice", level="warning", message=teller.notices[-1])


def _send(
    project: Project, config: TrainingRunConfig, asked: Mapping[str, Any], run_id: str
) -> Mapping[str, str]:
    from daedalus.platform.records import get_run
    from daedalus.tracking import MLflowTracker, TrackedRun, get_tracker
    from daedalus.tracking.sending import send

    tracker = get_tracker(config)
    record = get_run(project, run_id, output_root=config.output_path)
    with tempfile.TemporaryDirectory(prefix="daedalus-") as folder:
        files = (
            _report(project, config, asked, record.service, Path(folder))
            if record.status == "succeeded"
            else ()
        )
        run = TrackedRun.of(record, config.to_dict(), files)
        return send(tracker, run) if isinstance(tracker, MLflowTracker) else tracker.log_run(run)


def _report(
    project: Project,
    config: TrainingRunConfig,
    asked: Mapping[str, Any],
    service: str,
    folder: Path,
) -> tuple[str, ...]:
    """The service's report as it stands after the run; nothing without the extra `report`."""
    from daedalus.platform.project import RunOptions
    from daedalus.platform.report import write_report

    given = {key: asked.get(key) for key in ("runtime_path", "aggregation_path")}
    options = RunOptions(
        overrides={**asked.get("overrides", {}), "output_root": str(config.output_path)},
        **{key: None if path is None else Path(path) for key, path in given.items()},
    )
    with contextlib.suppress(DaedalusError):
        return (write_report(project, service, output=folder / "report.html", options=options).path,)
    return ()
