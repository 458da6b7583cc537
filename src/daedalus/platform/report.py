"""The data report of a service."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.errors import DefinitionError, ExecutionError

if TYPE_CHECKING:
    from daedalus.platform.project import Project, RunOptions
    from daedalus.trust.report_data import ReportData


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReport:
    """A report on disk.

    Attributes:
        remarks: (column, sentence) pairs: what stands out.
    """

    service: str
    path: str
    stage: str
    days: tuple[str, ...]
    rows: int
    columns: int
    remarks: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]


def report_data(
    project: Project,
    service: str,
    *,
    last_days: int | None = None,
    options: RunOptions | None = None,
) -> ReportData:
    """What a report shows, gathered from definitions and manifests.

    Raises:
        DefinitionError: no such service.
        ExecutionError: it has no day yet.
    """
    from daedalus.metadata.days import DayStore
    from daedalus.platform.lineage import project_lineage
    from daedalus.trust.report_data import collect_report

    if last_days is not None and last_days < 1:
        raise DefinitionError(f"last_days is {last_days}, but must be at least 1", where="report")
    config = project.config(options)
    root = config.output_path / project.facade(config).catalog.service(service).name
    return collect_report(
        project.facade(config),
        service,
        project_lineage(project, service=service, options=options),
        skeleton=DayStore(root / "skeleton"),
        enriched=DayStore(root / "enriched"),
        last_days=last_days,
    )


def write_report(
    project: Project,
    service: str,
    *,
    output: Path | None = None,
    last_days: int | None = None,
    options: RunOptions | None = None,
) -> WrittenReport:
    """Write the report of a service as one HTML file; by default `SERVICE-report.html` in the working directory.

    Raises:
        MissingExtraError: the extra `report` is not installed.
        ExecutionError: there is no day yet, or the file cannot be written.
    """
    from daedalus.trust.report import render_report

    data = report_data(project, service, last_days=last_days, options=options)
    path = Path(output if output is not None else f"{service}-report.html").absolute()
    _write(path, render_report(data))
    return WrittenReport(
        service=service,
        path=str(path),
        stage=data.stage,
        days=tuple(day.day for day in data.days),
        rows=sum(day.rows for day in data.days),
        columns=len(data.columns),
        remarks=tuple((column.name, remark) for column in data.flagged for remark in column.remarks),
        notices=data.notices,
    )


def _write(path: Path, text: str) -> None:
    """Whole or not at all; what is no file, such as /dev/stdout, is written to and not replaced."""
    temporary = ""
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise ExecutionError(
            f"the report cannot be written: {error.strerror or error}",
            where=str(path),
            hint="Name another file with --output",
        ) from error
