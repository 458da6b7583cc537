"""Run the training of a service and report it as plain data; shared by `pipeline train` and `demo`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.cli import crash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import date

    from daedalus.pipelines.executor import RunProgress
    from daedalus.platform import RunOptions, Stages


def run_training(
    service: str, *, options: RunOptions, stages: Stages = "all", target_dates: Sequence[date] = ()
) -> dict[str, Any]:
    """Train a service of the project in the working directory; what was done, as plain data."""
    from daedalus.platform import PlatformRegistry, describe

    platform = PlatformRegistry.open()
    crash.log_under(Path(platform.config(options).output_root))
    with progress_bar() as progress:
        result = platform.train(
            service, target_dates=target_dates, stages=stages, options=options, progress=progress
        )
    report: dict[str, Any] = describe(result)
    return report | {"output_path": str(result.output_path)}


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[RunProgress], None] | None]:
    """Draws a bar per stage on standard error; None when that is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from daedalus.cli.render import console

    columns = (
        TextColumn("{task.fields[stage]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(step: RunProgress) -> None:
            if step.stage not in tasks:
                tasks[step.stage] = bar.add_task("", total=None, stage=step.stage)
            text = f"{step.day} {step.message}".strip()
            bar.update(tasks[step.stage], completed=step.done, total=step.total, description=text)

        yield show


def sample_rows(report: dict[str, Any], count: int = 3) -> tuple[list[str], list[list[Any]]]:
    """The columns of the last day that has rows, and a few rows from its middle, cut to a readable length."""
    import pyarrow.parquet as pq

    for day in reversed(report["days"]):
        folder = Path(report["output_path"]) / f"dt={day['day']}"
        files = sorted(folder.glob("part-*.parquet"))
        if not day["rows"] or not files:
            continue
        with pq.ParquetFile(files[0]) as file:
            batch = next(file.iter_batches(batch_size=4_096))
        start = max(batch.num_rows // 2 - count // 2, 0)
        rows = batch.slice(start, count).to_pylist()
        return batch.schema.names, [[_short(row[name]) for name in batch.schema.names] for row in rows]
    return [], []


def _short(value: object, items: int = 4, width: int = 44) -> str:
    """A value as one short text.

    >>> _short([1, 2, 3, 4, 5, 6]), _short(None)
    ('[1, 2, 3, 4, ... 6 items]', 'NULL')
    """
    if value is None:
        return "NULL"
    if isinstance(value, list):
        shown = ", ".join(_short(item, width=12) for item in value[:items])
        return f"[{shown}, ... {len(value)} items]" if len(value) > items else f"[{shown}]"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= width else text[: width - 1] + "…"
