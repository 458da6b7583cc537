"""A small demo world whose training takes every road, and what stands on disk after a run of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import traceback
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from _harness import ROOT

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

SERVICE = "dssm_ranking"
_DIMENSION = 16
#: What a killed run may leave, and the next one has to remove.
LEFTOVERS = (".new-", ".old-", ".qid_map.parquet.", ".metadata.sqlite.", ".staging-", ".parts-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run root, with everything that belongs to it beside it.

    Attributes:
        folder: holds `out`, `spill`, `tmp` and the log.
        workers: days at a time.
        service: what is trained.
    """

    folder: Path
    workers: int = 1
    service: str = SERVICE

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"


def make_world(folder: Path, events: int) -> None:
    """The demo project: two days of May after three of history, narrow vectors, its store built."""
    example = ROOT / "examples" / "pixai"
    for part in ("config", "feature_views", "feature_services"):
        shutil.copytree(example / part, folder / part)
    for file in folder.rglob("*.yaml"):
        file.write_text(file.read_text().replace("1152", str(_DIMENSION)))
    command = [sys.executable, str(example / "seed.py"), "--out", str(folder / "data")]
    command += ["--events", str(events), "--days", "5", "--start", "2026-04-28", "--vectors", "2000"]
    subprocess.run([*command, "--embedding-dim", str(_DIMENSION)], check=True, stdout=subprocess.DEVNULL)
    build = "from daedalus.platform import PlatformRegistry as P; P.open().build_store('artwork_embeddings')"
    subprocess.run([sys.executable, "-c", build], check=True, cwd=folder)


def preload() -> None:
    """Import here what every child needs, as far as it can be forked: Polars says that it cannot."""
    import numba

    import daedalus.pipelines.days.lookup_kernels
    import daedalus.pipelines.dynamic_feature
    import daedalus.pipelines.executor
    import daedalus.pipelines.publish
    import daedalus.pipelines.settings.loading
    import daedalus.platform.openlineage
    import daedalus.platform.records
    import daedalus.platform.tracking
    import daedalus.storage.sinks.duckdb_file  # noqa: F401

    numba.njit(lambda number: number + 1)(1)  # which loads the compiler


def train(
    world: Path, case: Case, *, days: tuple[dt.date, ...] = (), skeleton_only: bool = False, **overrides: Any
) -> list[dict[str, Any]]:
    """Train in this process, in a part of its own of the disk, aggregation divided into buckets; the days."""
    import tempfile

    from daedalus.pipelines.days import resources as day_resources
    from daedalus.platform import PlatformRegistry, RunOptions

    for name in ("spill", "tmp"):
        (case.folder / name).mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(case.folder / "tmp")
    os.chdir(world)
    day_resources.BUCKETS = 3
    flags = {
        "output_root": str(case.out),
        "enrich_runtime": "in_process",
        "day_workers": case.workers,
        "sink": {"format": "parquet" if skeleton_only else "duckdb"},
        "compute": {"duckdb_config": {"threads": "2", "temp_directory": str(case.folder / "spill")}},
    }
    result = PlatformRegistry.open(world).train(
        case.service,
        target_dates=days,
        stages="skeleton" if skeleton_only else "all",
        options=RunOptions(overrides=flags | overrides),
    )
    return [
        {"day": day.day, "stage": day.stage, "state": day.state, "hash": day.content_hash}
        for day in result.days
    ]


def attempt(world: Path, case: Case, **options: Any) -> dict[str, Any]:
    """`train`, an error as an answer: its class, whether it is one of Daedalus', and its text."""
    from daedalus.errors import DaedalusError

    try:
        return {"days": train(world, case, **options), "error": ""}
    except Exception as error:
        traceback.print_exc()
        return {"error": type(error).__name__, "ours": isinstance(error, DaedalusError), "text": str(error)}


def earlier(world: Path, case: Case) -> list[dict[str, Any]]:
    """The same days as another definition made them: every one has to be replaced."""
    return train(world, case, embedding_coverage_filter={"enabled": False})


# ---------------------------------------------------------------------- what stands on disk


def day_states(case: Case) -> dict[str, str]:
    """By `stage/day` a digest of its content hash and its files; `torn` where the two do not go together."""
    found = {}
    for folder in sorted((case.out / case.service).glob("*/dt=*")):
        found[f"{folder.parent.name}/{folder.name}"] = _day_state(folder)
    return found


def _day_state(folder: Path) -> str:
    digest = hashlib.sha256()
    try:
        manifest = json.loads((folder / "_manifest.json").read_text())
        digest.update(manifest["content_hash"].encode())
        names = [name for name, _ in manifest["files"]]
        if sorted(names) != sorted(file.name for file in folder.glob("*.parquet")):
            return "torn"
        for name, size in manifest["files"]:
            data = (folder / name).read_bytes()
            if len(data) != size:
                return "torn"
            digest.update(data)
    except (OSError, ValueError, KeyError):
        return "torn"
    return digest.hexdigest()


def map_state(case: Case) -> list[Any]:
    """The session map's rows, in a child."""
    import pyarrow.parquet as pq

    path = case.out / "qid_map.parquet"
    return (
        []
        if not path.exists()
        else sorted(map(list, zip(*pq.read_table(path).to_pydict().values(), strict=True)))
    )


def table_states(case: Case) -> dict[str, str]:
    """By `table/day` a digest of its rows in the DuckDB file, in a child."""
    import duckdb

    path = case.out / f"{case.service}.duckdb"
    if not path.exists():
        return {}
    with duckdb.connect(str(path)) as connection:
        if not connection.execute(
            "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = 'training'", [case.service]
        ).fetchall():
            return {}
        by_day = defaultdict(list)
        found = connection.execute(f"SELECT * FROM {case.service}.{case.service}.training")
        columns = [column[0] for column in found.description]
        for row in found.fetchall():
            # A column that a later definition added is NULL in the rows before it.
            known = {name: value for name, value in zip(columns, row, strict=True) if value is not None}
            by_day[str(known["dt"])].append(json.dumps(known, sort_keys=True, default=str))
    return {f"table/dt={day}": _digest(sorted(rows)) for day, rows in sorted(by_day.items())}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def disk_state(case: Case) -> dict[str, Any]:
    """Everything that stands, in a child: days, table, map, records."""
    return {
        "days": day_states(case) | table_states(case),
        "map": _digest(map_state(case)),
        "mapped": len(map_state(case)),
        **record_state(case),
    }


def record_state(case: Case) -> dict[str, Any]:
    """The recorded runs, newest first, whether their file is whole, and the days whose statistics are known."""
    from daedalus.metadata.store import MetadataStore

    store = MetadataStore(case.out)
    if not store.path.exists():
        return {"runs": [], "whole": True, "recorded": []}
    with sqlite3.connect(store.path) as connection:
        whole = connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    runs = store.runs()
    recorded = {
        f"{stage}/{day}"
        for run in runs
        for (stage, day), payload in store.days(run.run_id).items()
        if payload.get("columns")
    }
    return {
        "runs": [run.status.value for run in runs],
        "whole": whole,
        "recorded": sorted(recorded),
    }


def leftovers(case: Case) -> list[str]:
    """What killed runs left in the run root and in the places for what does not last."""
    found = [path for path in case.out.rglob("*") if path.name.startswith(LEFTOVERS)]
    found += [path for name in ("spill", "tmp") for path in (case.folder / name).iterdir()]
    # An empty folder that had no name yet is removed when it is ten minutes old.
    found = [path for path in found if not path.name.startswith(".making-")]
    return sorted(str(path.relative_to(case.folder)) for path in found if not path.name.endswith(".lock"))
