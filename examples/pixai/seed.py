"""Write a PixAI-like world as Parquet: a feed of events, tables of users and artworks, and vectors.

    python seed.py --events 100k --days 10 --out data

The same arguments give the same bytes. A user's or an artwork's attributes are a hash of (seed, name, id), so
each table can ask for them without holding another; the feed is drawn in blocks, each from a generator of its
own. At most one block or one chunk of entities is held at a time: memory does not grow with the feed.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from seeder.entities import ENTITY_TABLES, siglip2_vectors, vector_ids
from seeder.feed import feed_blocks, feed_days
from seeder.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

MARKER = "_seed.json"
MARKER_FORMAT = 1  # raise it with every change of what a plan makes, so that older seeds are replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """One table that was written."""

    name: str
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedReport:
    """What was written, how long it took and the most memory the process held."""

    out: Path
    tables: tuple[TableReport, ...]
    seconds: float
    peak_rss_bytes: int
    reused: bool = False

    def rows(self, table: str) -> int:
        """The rows of one table; KeyError when there is none."""
        return {report.name: report.rows for report in self.tables}[table]


class SeedError(ValueError):
    """The arguments or the output folder do not allow a seed."""


def write_parquet(
    path: Path, tables: Iterator[pa.Table], row_group_rows: int, *, dictionaries: bool
) -> tuple[int, int]:
    """(rows, bytes) of the file; nothing is written when there are no tables."""
    writer: pq.ParquetWriter | None = None
    rows = 0
    for table in tables:
        if writer is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=dictionaries)
        writer.write_table(table, row_group_size=row_group_rows)
        rows += table.num_rows
    if writer is None:
        return 0, 0
    writer.close()
    return rows, path.stat().st_size


VECTORS = "siglip2_vectors"
TABLES = ("feed_events", *ENTITY_TABLES, VECTORS)
VECTOR_CHUNK = 1_024


def write_table(plan: Plan, out: Path, table: str, day: tuple[date, int, int] | None) -> tuple[str, int, int]:
    """Write one file, the unit of work: (table, rows, bytes)."""
    if day is not None:
        path = out / table / f"dt={day[0].isoformat()}" / "part-0.parquet"
        tables = feed_blocks(plan, *day)
    elif table == VECTORS:
        path, ids = out / table / "part-0.parquet", vector_ids(plan)
        tables = (siglip2_vectors(plan, ids[i : i + VECTOR_CHUNK]) for i in range(0, len(ids), VECTOR_CHUNK))
    else:
        path, (build, counted) = out / table / "part-0.parquet", ENTITY_TABLES[table]
        total, step = getattr(plan, counted), plan.chunk_rows
        tables = (build(plan, np.arange(i, min(i + step, total))) for i in range(0, total, step))
    # The numbers of a vector do not repeat.
    rows, size = write_parquet(path, tables, plan.chunk_rows, dictionaries=table != VECTORS)
    return table, rows, size


def prepare(plan: Plan, out: Path) -> dict[str, Any] | None:
    """The marker of an equal, finished seed; or None, once the folders of an earlier one are gone."""
    marker = out / MARKER
    present = [out / table for table in TABLES if (out / table).exists()]
    if marker.exists():
        found: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        written = sum(table["bytes"] for table in found.get("tables", ()))
        on_disk = sum(path.stat().st_size for folder in present for path in folder.rglob("*.parquet"))
        if found["plan"] == describe(plan) and written and written == on_disk:
            return found
    elif present:
        raise SeedError(f"{present[0]} was not written by a seed; choose another folder or move it away")
    for folder in present:
        shutil.rmtree(folder)
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"plan": describe(plan)}), encoding="utf-8")
    return None


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    return {"format": MARKER_FORMAT, **asdict(plan), "start": plan.start.isoformat()}


def seed(
    out: Path,
    *,
    events: int,
    days: int,
    start: date = date(2026, 4, 24),
    seed: int = 7,
    users: int | None = None,
    artworks: int | None = None,
    vectors: int = 20_000,
    embedding_dim: int = 1152,
    super_user_share: float = 0.02,
    chunk_rows: int = 131_072,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> SeedReport:
    """Write the tables under `out` in place of an earlier seed's; an equal seed that is there is kept.

    Args:
        out: the data root; each table is a folder in it.
        events: rows of the feed in `[start, start + days)`; old dislikes come on top.
        days: days of feed, which share the events evenly.
        start: the first of them; by default May has a week of history before it.
        seed: another number, another world.
        users: None takes one per 40 events, within bounds.
        artworks: None takes one per 25 events, within bounds.
        vectors: at most so many artworks have an embedding.
        embedding_dim: values per embedding.
        super_user_share: the share of sessions that one user has.
        chunk_rows: rows per row group and entities per chunk; changes the files, never the values.
        workers: files written at a time, by threads; changes nothing in them.
        progress: called with a line for each file.

    Raises:
        SeedError: an argument is out of range, or `out` holds tables that no seed wrote.
    """
    plan = Plan(
        events=events,
        days=days,
        start=start,
        seed=seed,
        vectors=vectors,
        embedding_dim=embedding_dim,
        users=min(max(events // 40, 500), 2_500_000) if users is None else users,
        artworks=min(max(events // 25, 2_000), 2_000_000) if artworks is None else artworks,
        super_user_share=super_user_share,
        chunk_rows=chunk_rows,
    )
    for name in ("events", "days", "users", "artworks", "embedding_dim", "chunk_rows"):
        if getattr(plan, name) < 1:
            raise SeedError(f"{name} must be at least 1, not {getattr(plan, name)}")
    if not 0.0 <= super_user_share <= 1.0 or vectors < 0 or seed < 0:
        raise SeedError("super_user_share must be in [0, 1], vectors and seed at least 0")
    began, say = time.perf_counter(), progress or (lambda line: None)
    found = prepare(plan, out)
    if found is not None:
        reports = tuple(TableReport(**report) for report in found["tables"])
        return finish(out, reports, began, reused=True)
    jobs: list[tuple[str, tuple[date, int, int] | None]] = [("feed_events", day) for day in feed_days(plan)]
    jobs += [(table, None) for table in TABLES[1:]]

    def work(job: tuple[str, tuple[date, int, int] | None]) -> tuple[str, int, int]:
        table, rows, size = write_table(plan, out, *job)
        place = f"{table}/dt={job[1][0]}" if job[1] else table
        say(f"{place:<30} {rows:>12,} rows {size / 1e6:>9.1f} MB")
        return table, rows, size

    with ThreadPoolExecutor(max_workers=workers) as pool:
        done = [*pool.map(work, jobs)]
    written = {name: [(rows, size) for table, rows, size in done if table == name] for name in TABLES}
    reports = tuple(
        TableReport(
            name=name, rows=sum(r for r, _ in w), files=sum(r > 0 for r, _ in w), bytes=sum(b for _, b in w)
        )
        for name, w in written.items()
    )
    marker = {"plan": describe(plan), "tables": [asdict(report) for report in reports]}
    (out / MARKER).write_text(json.dumps(marker, indent=1), encoding="utf-8")
    return finish(out, reports, began, reused=False)


def finish(out: Path, reports: tuple[TableReport, ...], began: float, *, reused: bool) -> SeedReport:
    """The report, with the process's own figures."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1_024)
    seconds = time.perf_counter() - began
    return SeedReport(out=out, tables=reports, seconds=seconds, peak_rss_bytes=peak, reused=reused)


def parse_count(text: str) -> int:
    """A count with an optional `k` or `M`.

    >>> parse_count("10k"), parse_count("1.5M")
    (10000, 1500000)
    """
    scale = {"k": 1_000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    number = text if scale == 1 else text[:-1]
    try:
        value = float(number.replace("_", "")) * scale
    except ValueError:
        value = -1.0
    if not (0 <= value <= 1e9 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"expected a count such as 10k or 2M, at most 1000M, not {text!r}")
    return int(value)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write a PixAI-like world as Parquet.")
    add = parser.add_argument
    add("--events", type=parse_count, default=100_000, help="feed rows, 10k to 100M (default 100k)")
    add("--days", type=int, default=10, help="days of feed (default 10)")
    add(
        "--start",
        type=date.fromisoformat,
        default=date(2026, 4, 24),
        help="first day (default 2026-04-24, so that May has a week of history)",
    )
    add("--out", type=Path, default=Path("data"), help="the data root (default data)")
    add("--seed", type=int, default=7, help="another number, another world (default 7)")
    add("--users", type=parse_count, help="users (default: events / 40, within 500 and 2.5M)")
    add("--artworks", type=parse_count, help="artworks (default: events / 25, within 2k and 2M)")
    add("--vectors", type=parse_count, default=20_000, help="at most so many embeddings (default 20k)")
    add("--embedding-dim", type=int, default=1152, help="values per embedding (default 1152)")
    add("--super-user-share", type=float, default=0.02, help="share of sessions of one user (default 0.02)")
    add("--workers", type=int, default=1, help="files written at a time (default 1)")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Seed, with a line per file; exit code 2 when the arguments or the folder do not allow it."""
    options = vars(parse_arguments(arguments))
    try:
        report = seed(options.pop("out"), **options, progress=lambda line: print(line, flush=True))
    except (SeedError, OSError) as error:
        print(f"seed: {error}", file=sys.stderr)
        return 2
    size = sum(table.bytes for table in report.tables)
    verb = "already there" if report.reused else f"in {report.seconds:.1f} s"
    print(
        f"{report.out}: {report.rows('feed_events'):,} events, {size / 1e6:.1f} MB, {verb}, "
        f"peak memory {report.peak_rss_bytes / 1e6:.0f} MB"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
