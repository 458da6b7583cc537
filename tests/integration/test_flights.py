"""The flights example as a user runs it, and every output value of sampled flights against brute force."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.flights_oracle import (
    COLUMNS,
    MEANS,
    Sources,
    copy_project,
    load_prepare,
    mismatches,
    poison,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SERVICE = "flight_delay"
JANUARY_FLIGHTS = 26_865  # scheduled from 1 January 00:00 UTC to 1 February 00:00 UTC
#: Clocks go forward; a flight between two of the airports with weather; clocks go back.
DAYS = (date(2013, 3, 10), date(2013, 7, 27), date(2013, 11, 3))
POISONED_AT = datetime(2013, 3, 10, 16, 0, tzinfo=UTC)  # 14 flights are scheduled at this very minute


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as shipped, with its sources prepared."""
    folder = copy_project(tmp_path_factory.mktemp("shipped") / "flights")
    load_prepare().prepare(folder / "data")
    return folder


@pytest.fixture(scope="module")
def january(project: Path) -> Path:
    """The month that the configuration names."""
    return train(project, project / "output")


@pytest.fixture(scope="module")
def year_project(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for any day of 2013, with made-up weather at one destination so that this role has values."""
    folder = copy_project(tmp_path_factory.mktemp("year") / "flights")
    write_runtime(folder)
    (folder / "data").mkdir()
    for source in (project / "data").iterdir():
        (folder / "data" / source.name).write_bytes(source.read_bytes())
    weather = pl.read_parquet(project / "data" / "weather.parquet")
    # None from 08:00 to 17:59 UTC: at 13:00 the last is exactly as old as allowed, later too old.
    elsewhere = weather.filter(
        pl.col("origin") == "JFK", ~pl.col("time_hour").dt.hour().is_between(8, 17)
    ).with_columns(origin=pl.lit("ATL"), temp=pl.col("temp") + 20, wind_speed=pl.col("wind_speed") + 1)
    pl.concat([weather, elsewhere]).write_parquet(folder / "data" / "weather.parquet")
    return folder


@pytest.fixture(scope="module")
def year(year_project: Path) -> Path:
    """Three days of the year."""
    wanted = [word for day in DAYS for word in ("--target-date", day.isoformat())]
    return train(year_project, year_project / "output", *wanted)


def write_runtime(project: Path, *, engine: str = "duckdb") -> None:
    path = project / "config" / "training" / "runtime.yaml"
    text = path.read_text()
    changed = text.replace('feed_end: "201301"', 'feed_end: "201312"').replace(
        "engine: duckdb", f"engine: {engine}"
    )
    assert changed != text
    path.write_text(changed)


def train(project: Path, output: Path, *flags: str) -> Path:
    """Run the command of the README in the project's folder; the folder with the days."""
    command = [str(Path(sys.executable).with_name("daeda")), "pipeline", "train", SERVICE]
    done = subprocess.run(
        [*command, "--output-root", str(output), *flags],
        cwd=project,
        env={**os.environ, "DAEDALUS_CONFIG": str(project / "no-such-config.toml")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output / SERVICE / "skeleton"


def read_day(folder: Path, day: date) -> pa.Table:
    """The parts of a day, in order."""
    parts = sorted((folder / f"dt={day.isoformat()}").glob("part-*.parquet"))
    assert parts, f"{day}: no output"
    return pa.concat_tables(pq.ParquetFile(part).read() for part in parts)


def by_number(tables: Iterable[pa.Table]) -> dict[int, dict[str, Any]]:
    return {row["flight_seq"]: row for table in tables for row in table.to_pylist()}


def of_day(sources: Sources, day: date) -> pl.DataFrame:
    """The spine's rows of a UTC day, in total order."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    at = pl.col("scheduled_departure")
    return sources.flights.filter(at >= start, at < start + timedelta(days=1))


def days_of_january() -> list[date]:
    return [date(2013, 1, day) for day in range(1, 32)]


def test_a_month_holds_every_scheduled_flight_in_order(project: Path, january: Path) -> None:
    sources = Sources.load(project / "data")
    written = sorted(path.name for path in january.iterdir() if path.name.startswith("dt="))
    assert written == [f"dt={day.isoformat()}" for day in days_of_january()]
    total = 0
    for day in days_of_january():
        numbers = read_day(january, day)["flight_seq"].to_pylist()
        assert numbers == of_day(sources, day)["flight_seq"].to_list(), day
        total += len(numbers)
    assert total == JANUARY_FLIGHTS


def test_the_columns_are_the_contract(january: Path) -> None:
    schema = read_day(january, date(2013, 1, 15)).schema
    assert schema.names == COLUMNS
    types = {name: schema.field(name).type for name in schema.names}
    for days in (1, 3, 7):
        destinations = types[f"plane_destinations_{days}d"]
        assert pa.types.is_list(destinations)
        assert destinations.value_type == pa.string()
    assert types["origin_late_arrivals_7d"] == types["carrier_destinations_1d"] == pa.int64()
    assert types["plane_last_arrival_delay_7d"] == types["seats"] == pa.int64()
    assert types["plane_mean_arrival_delay_7d"] == types["plane_seconds_since_landing"] == pa.float64()
    assert types["scheduled_departure"] == pa.timestamp("us")
    assert types["is_long_haul"] == pa.bool_()


def test_a_sample_of_the_month_equals_brute_force(project: Path, january: Path) -> None:
    sources = Sources.load(project / "data")
    trained = by_number(read_day(january, day) for day in days_of_january())
    chooser = random.Random(2013)
    chosen = chooser.sample(sorted(trained), 150)
    unknown = [number for number, row in trained.items() if row["tailnum"] is None]
    cancelled = sorted(set(trained) - set(sources.arrivals["flight_seq"]) - set(unknown))
    assert len(unknown) > 100
    assert len(cancelled) > 100
    chosen += chooser.sample(unknown, 20) + chooser.sample(cancelled, 20)
    assert mismatches(trained, sources, chosen) == []


def test_unknown_planes_have_no_past(january: Path) -> None:
    rows = by_number(read_day(january, day) for day in days_of_january()).values()
    unknown = [row for row in rows if row["tailnum"] is None]
    assert unknown
    assert all(row["plane_destinations_7d"] == [] for row in unknown)
    assert all(row["plane_seconds_since_landing"] is None and row["seats"] == 0 for row in unknown)
    assert any(row["origin_late_arrivals_7d"] > 0 for row in unknown)


def test_days_of_the_year_equal_brute_force(year_project: Path, year: Path) -> None:
    sources = Sources.load(year_project / "data")
    chooser = random.Random(310)
    for day in DAYS:
        trained = by_number([read_day(year, day)])
        assert list(trained) == of_day(sources, day)["flight_seq"].to_list()
        chosen = chooser.sample(sorted(trained), 50)
        to_atlanta = [number for number, row in trained.items() if row["dest"] == "ATL"]
        chosen += to_atlanta
        assert mismatches(trained, sources, chosen) == [], day
        # Both the values and the time limit of the second role were at work.
        assert {trained[number]["dest_temp"] is None for number in to_atlanta} == {True, False}


def test_both_weather_roles_on_one_flight(year_project: Path, year: Path) -> None:
    """01:06 EDT, Newark to LaGuardia; weather of 04:00 UTC, since that of 05:00 is not yet an hour old."""
    (row,) = [row for row in read_day(year, date(2013, 7, 27)).to_pylist() if row["dest"] == "LGA"]
    weather = pl.read_parquet(year_project / "data" / "weather.parquet").filter(
        pl.col("time_hour") == datetime(2013, 7, 27, 4, tzinfo=UTC)
    )
    temp = dict(weather.select("origin", "temp").iter_rows())
    assert (row["origin"], row["origin_temp"], row["dest_temp"]) == ("EWR", temp["EWR"], temp["LGA"])
    assert temp["EWR"] != temp["LGA"]


def test_the_future_does_not_reach_back(year_project: Path, year: Path, tmp_path: Path) -> None:
    poisoned = copy_project(tmp_path / "flights")
    write_runtime(poisoned)
    poison(year_project / "data", poisoned / "data", POISONED_AT)
    day = POISONED_AT.date()
    clean = by_number([read_day(year, day)])
    output = train(poisoned, tmp_path / "output", "--target-date", day.isoformat())
    changed = by_number([read_day(output, day)])
    cutoff = POISONED_AT.replace(tzinfo=None)

    def before(rows: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        return {number: row for number, row in rows.items() if row["scheduled_departure"] <= cutoff}

    assert len(before(clean)) > 200
    assert any(row["scheduled_departure"] == cutoff for row in clean.values())
    assert before(changed) == before(clean)
    after = set(clean) - set(before(clean))
    differ = {name for number in after for name in COLUMNS if changed[number][name] != clean[number][name]}
    # The poison was strong enough: every kind of value after the instant tells of it.
    rolling = {"plane_destinations_1d", "origin_late_arrivals_1d", "dest_late_arrivals_1d"}
    assert rolling | MEANS | {"plane_seconds_since_landing", "origin_temp", "origin_departures_1h"} <= differ


def test_polars_gives_the_same_day(year_project: Path, year: Path, tmp_path: Path) -> None:
    day = DAYS[0]
    project = copy_project(tmp_path / "flights")
    write_runtime(project, engine="polars")
    (project / "data").symlink_to(year_project / "data")
    other = read_day(train(project, tmp_path / "output", "--target-date", day.isoformat()), day)
    mine = read_day(year, day)
    exact = [name for name in COLUMNS if name not in MEANS]
    assert other.schema == mine.schema
    assert other.select(exact).equals(mine.select(exact))
    for name in MEANS:
        assert other[name].is_null().equals(mine[name].is_null())
        there, here = (table[name].drop_null().to_pylist() for table in (other, mine))
        assert there == pytest.approx(here, rel=1e-12)
