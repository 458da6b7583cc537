"""Run the training of a service and report it as plain data; shared by `pipeline train` and `demo`."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.cli import crash
from daedalus.cli.render import cut, progress_bars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import date

    from daedalus.pipelines.executor import RunProgress
    from daedalus.platform import RunOptions, Stages


def run_training(
    service: str,
    *,
    options: RunOptions,
    stages: Stages = "all",
    target_dates: Sequence[date] = (),
    refresh: bool = False,
    profile: bool = False,
) -> dict[str, Any]:
    """Train a service of the project in the working directory; what was done, as plain data."""
    from daedalus.platform import PlatformRegistry, describe

    platform = PlatformRegistry.open()
    crash.log_under(Path(platform.config(options).output_root))
    with progress_bar() as progress:
        result = platform.train(
            service,
            target_dates=target_dates,
            stages=stages,
            options=options,
            progress=progress,
            refresh=refresh,
            profile=profile,
        )
    report: dict[str, Any] = describe(replace(result, profile=None))
    del report["profile"]
    measured = {} if result.profile is None else {"profile": result.profile.to_dict()}
    return report | {"output_path": str(result.output_path)} | measured


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[RunProgress], None] | None]:
    """Draws a bar per stage of a run; None when nobody watches."""
    with progress_bars() as update:
        if update is None:
            yield None
            return
        yield lambda step: update(step.stage, step.done, step.total, f"{step.day} {step.message}".strip())


def sample_rows(report: dict[str, Any], count: int = 2) -> tuple[list[str], list[list[Any]]]:
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
        return batch.schema.names, [[short(row[name]) for name in batch.schema.names] for row in rows]
    return [], []


def short(value: object, items: int = 3, width: int = 32) -> str:
    """A value as one short text.

    >>> short([1, 2, 3, 4, 5, 6]), short(None)
    ('[1, 2, 3, ... 6 items]', 'NULL')
    """
    if value is None:
        return "NULL"
    if isinstance(value, list):
        shown = ", ".join(short(item, width=12) for item in value[:items])
        return f"[{shown}, ... {len(value)} items]" if len(value) > items else f"[{shown}]"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return cut(text, width)
