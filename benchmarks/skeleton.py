"""Whole skeleton days against writing their own finished output again.

    python benchmarks/skeleton.py --size 1M --days 7

The demo world with `--size` events a day: a week of history, then the target days; the service `dssm_ranking`
with all its lists, without the coverage filter. `one day`: the first day alone, nothing cached. `adjacent days`:
all of them in one run. The floor loads each finished day into DuckDB, which is not counted, and counts `COPY` of
it to Parquet: zstd, 65,536 rows to a group, with the run's own threads, memory and spill folder. The pipeline's
time is from the call to the last committed day: reading, joining, aggregating, hashing, writing, statistics.
"""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import ROOT, Bench, Clock, Job, Method, scratch

if TYPE_CHECKING:
    from collections.abc import Callable

START = dt.date(2026, 4, 24)
HISTORY_DAYS = 7
SERVICE = "dssm_ranking"


def make_project(folder: Path, per_day: int, days: int) -> None:
    """The demo project with its data."""
    example = ROOT / "examples" / "pixai"
    for part in ("config", "feature_views", "feature_services"):
        shutil.copytree(example / part, folder / part)
    total = HISTORY_DAYS + days
    command = [sys.executable, str(example / "seed.py"), "--out", str(folder / "data")]
    command += ["--events", str(per_day * total), "--days", str(total), "--vectors", "100"]
    subprocess.run(
        [*command, "--embedding-dim", "8", "--workers", "2"], check=True, stdout=subprocess.DEVNULL
    )


def days_of(job: Job) -> list[dt.date]:
    first = START + dt.timedelta(days=HISTORY_DAYS)
    return [first + dt.timedelta(days=number) for number in range(job["days"])]


def output_of(job: Job) -> Path:
    return job.folder / f"out-{job['days']}"


def settings_of(job: Job) -> dict[str, str]:
    spill = job.folder / "spill"
    spill.mkdir(exist_ok=True)
    return {
        "threads": "2",
        "memory_limit": job["memory_limit"],
        "temp_directory": str(spill),
        "preserve_insertion_order": "false",
    }


def pipeline(job: Job) -> Callable[[], Any]:
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.compiler import build_compile_request, compile_service_to_pipeline
    from daedalus.pipelines.executor import ExecutionRequest, run_pipeline
    from daedalus.pipelines.settings import load_training_config

    flags = {
        "output_root": str(output_of(job)),
        "embedding_coverage_filter": {"enabled": False},
        "compute": {"duckdb_config": settings_of(job)},
    }
    config = load_training_config(job.folder, overrides=flags)
    catalog = FeatureCatalog.from_yaml_dir(
        job.folder / "feature_views",
        services_dir=job.folder / "feature_services",
        constants=dict(config.constants),
        rolling={spec.name: "" for spec in config.aggregation_specs},
    )
    request = ExecutionRequest(
        pipeline=compile_service_to_pipeline(build_compile_request(SERVICE, catalog, config)),
        run_config=config,
        catalog=catalog,
        target_dates=tuple(days_of(job)),
        stages="skeleton",
    )

    def run() -> Any:
        shutil.rmtree(output_of(job), ignore_errors=True)
        result = run_pipeline(request)
        files = list(result.output_path.glob("dt=*/part-*.parquet"))
        return {
            "rows": sum(day.rows for day in result.days),
            "mb": round(sum(file.stat().st_size for file in files) / 1e6),
            "seconds per day": [day.seconds for day in result.days],
        }

    return run


def copy_floor(job: Job) -> Callable[[], Any]:
    import duckdb

    folder = output_of(job) / SERVICE / "skeleton"
    target = job.folder / "again.parquet"

    def run() -> Any:
        wall = cpu = 0.0
        for day in days_of(job):
            files = str(folder / f"dt={day.isoformat()}" / "part-*.parquet")
            with duckdb.connect(config=dict(settings_of(job))) as session:
                session.execute(f"CREATE TABLE day AS SELECT * FROM read_parquet('{files}')")
                clock = Clock()
                session.execute(
                    f"COPY day TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536)"
                )
                took = clock.stop()
            wall, cpu = wall + took[0], cpu + took[1]
            target.unlink()
        return {"wall": wall, "cpu": cpu}

    return run


METHODS = (
    Method(name="daedalus", prepare=pipeline),
    Method(name="copy of its output", prepare=copy_floor, floor=True),
)


def main() -> None:
    bench = Bench(__file__, METHODS, __doc__ or "")
    bench.parser.add_argument("--days", type=int, default=7, help="adjacent days of the second table")
    bench.parser.add_argument("--memory-limit", default="4GiB")
    options = bench.start()
    if options is None:
        return
    with scratch() as name:
        folder, sample = Path(name) / "world", Path(name) / "sample"
        make_project(folder, options.size, options.days)
        make_project(sample, 1_000, options.days)
        for days in sorted({1, options.days}):
            parameters = {"days": days, "memory_limit": options.memory_limit, "rows": options.size}
            title = "one day" if days == 1 else f"{days} adjacent days"
            title = f"{options.size:,} events a day, {title}"
            found = bench.measure(title, folder, sample, parameters, in_turns=True)
            print(f"daedalus: {found[0].extra or found[0].note}")
    bench.finish()


if __name__ == "__main__":
    main()
