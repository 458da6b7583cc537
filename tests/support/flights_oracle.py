"""What `examples/flights` must output, by brute force: per flight a filter over whole source tables.

Imports nothing of `daedalus` and reads no YAML: every column is written out a second time, from the README's
words. `mismatches` compares trained rows with it; `poison` alters everything that lies in a row's future.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

PROJECT = Path(__file__).parents[2] / "examples" / "flights"
WEATHER_DELAY = timedelta(hours=1)
WEATHER_TTL = timedelta(hours=6)
ROUTE_DELAY = timedelta(minutes=15)
MEANS = {"plane_mean_arrival_delay_7d", "route_mean_arrival_delay_7d"}
COLUMNS = """
    flight_seq scheduled_departure carrier flight tailnum origin dest distance scheduled_minutes local_hour
    plane_destinations_1d plane_destinations_3d plane_destinations_7d
    origin_late_arrivals_1d origin_late_arrivals_3d origin_late_arrivals_7d
    dest_late_arrivals_1d dest_late_arrivals_3d dest_late_arrivals_7d
    plane_mean_arrival_delay_7d plane_last_arrival_delay_7d route_mean_arrival_delay_7d
    plane_seconds_since_landing origin_departures_1h carrier_destinations_1d
    origin_temp origin_wind_speed origin_precip origin_visib origin_pressure
    dest_temp dest_wind_speed dest_visib year_built manufacturer seats dest_latitude dest_longitude
    is_long_haul plane_age_years plane_hours_since_landing origin_windy
""".split()  # noqa: SIM905


def load_prepare() -> ModuleType:
    """The example's `prepare.py`, which lies in no package."""
    spec = importlib.util.spec_from_file_location("flights_prepare", PROJECT / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_project(target: Path) -> Path:
    """The example's definitions and configuration without data or output."""
    return Path(
        shutil.copytree(PROJECT, target, ignore=shutil.ignore_patterns("data", "output", "pipelines"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The prepared tables, histories in their total order."""

    flights: pl.DataFrame
    arrivals: pl.DataFrame
    weather: pl.DataFrame
    planes: pl.DataFrame
    airports: pl.DataFrame

    @classmethod
    def load(cls, folder: Path) -> Sources:
        """Read what `prepare.py` wrote."""
        read = {name: pl.read_parquet(folder / f"{name}.parquet") for name in cls.__slots__}
        read["flights"] = read["flights"].sort("scheduled_departure", "flight_seq")
        read["arrivals"] = read["arrivals"].sort("landed_at", "flight_seq")
        return cls(**read)

    def flight(self, flight_seq: int) -> dict[str, Any]:
        """The spine row of that number."""
        return self.flights.row(by_predicate=pl.col("flight_seq") == flight_seq, named=True)


def expected(sources: Sources, flight_seq: int) -> dict[str, Any]:
    """Every output column of one flight."""
    row = sources.flight(flight_seq)
    out = {name: row[name] for name in COLUMNS if name in row}
    out |= _plane_past(sources, row) | _airport_past(sources, row) | _schedule(sources, row)
    out |= _weather(sources, row) | _attributes(sources, row)
    out["is_long_haul"] = row["distance"] > 1500
    built, seconds = out["year_built"], out["plane_seconds_since_landing"]
    out["plane_age_years"] = None if built is None else row["scheduled_departure"].year - built
    out["plane_hours_since_landing"] = None if seconds is None else seconds / 3600
    out["origin_windy"] = (out["origin_wind_speed"] or 0) >= 20
    return out


def mismatches(
    trained: Mapping[int, Mapping[str, Any]], sources: Sources, chosen: Iterable[int]
) -> list[str]:
    """One line per value that differs; `trained` maps flight_seq to its row."""
    found = []
    for flight_seq in chosen:
        actual = trained[flight_seq]
        for name, value in expected(sources, flight_seq).items():
            if not _same(name, _utc(actual[name]), _utc(value)):
                found.append(f"flight {flight_seq}, {name}: trained {actual[name]!r}, expected {value!r}")
    return found


def poison(folder: Path, target: Path, at: datetime) -> None:
    """A copy of the sources in which all that a flight scheduled at or before `at` may not see is changed.

    Flights after `at`, landings from `at` on, weather from an hour before `at` on: values altered, rows
    removed, rows added. Rows up to `at` keep their numbers and stay as they are.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in ("planes", "airports"):
        shutil.copy(folder / f"{name}.parquet", target)
    flights = pl.read_parquet(folder / "flights.parquet")
    after = pl.col("scheduled_departure") > at
    changed = flights.filter(after).with_columns(
        origin=pl.lit("JFK"), carrier=pl.lit("ZZ"), dest=pl.lit("LAX")
    )
    extra = changed.head(500).with_columns(pl.col("flight_seq") + 10_000_000)
    pl.concat([flights.filter(~after), changed, extra]).write_parquet(target / "flights.parquet")

    arrivals = pl.read_parquet(folder / "arrivals.parquet")
    after = pl.col("landed_at") >= at
    late = arrivals.filter(after & (pl.col("flight_seq") % 3 != 0)).with_columns(
        late=~pl.col("late").fill_null(False), arr_delay=pl.lit(9999, pl.Int64), dest=pl.lit("ZZZ")
    )
    # Every plane of the past lands once more at exactly `at`, late, after every route's flights.
    recent = arrivals.filter(~after & (pl.col("landed_at") >= at - timedelta(days=7)))
    at_once = recent.with_columns(
        pl.col("flight_seq") + 20_000_000,
        landed_at=pl.lit(at).cast(arrivals.schema["landed_at"]),
        late=pl.lit(True),
        arr_delay=pl.lit(8888, pl.Int64),
    )
    pl.concat([arrivals.filter(~after), at_once, late]).write_parquet(target / "arrivals.parquet")

    weather = pl.read_parquet(folder / "weather.parquet")
    after = pl.col("time_hour") >= at - WEATHER_DELAY
    bad = weather.filter(after).with_columns(temp=pl.lit(-99.0), wind_speed=pl.lit(300.0), visib=pl.lit(-1.0))
    pl.concat([weather.filter(~after), bad]).write_parquet(target / "weather.parquet")


def _plane_past(sources: Sources, row: Mapping[str, Any]) -> dict[str, Any]:
    at = row["scheduled_departure"]
    # `==` with a NULL tail number keeps nothing: unknown planes share no past.
    mine = sources.arrivals.filter(
        pl.col("tailnum") == pl.lit(row["tailnum"], pl.String), pl.col("landed_at") < at
    )
    out: dict[str, Any] = {}
    for days in (1, 3, 7):
        window = mine.filter(pl.col("landed_at") >= at - timedelta(days=days))
        out[f"plane_destinations_{days}d"] = window["dest"].to_list()[-32:]
    delays = mine.filter(pl.col("landed_at") >= at - timedelta(days=7))["arr_delay"].drop_nulls().to_list()
    out["plane_mean_arrival_delay_7d"] = math.fsum(delays) / len(delays) if delays else None
    out["plane_last_arrival_delay_7d"] = delays[-1] if delays else None
    last = mine["landed_at"].max()
    out["plane_seconds_since_landing"] = None if last is None else (at - last).total_seconds()
    return out


def _airport_past(sources: Sources, row: Mapping[str, Any]) -> dict[str, Any]:
    at = row["scheduled_departure"]
    out: dict[str, Any] = {}
    week = sources.arrivals.filter(pl.col("landed_at") < at, pl.col("landed_at") >= at - timedelta(days=8))
    for days in (1, 3, 7):
        late = week.filter(pl.col("late"), pl.col("landed_at") >= at - timedelta(days=days))
        out[f"origin_late_arrivals_{days}d"] = late.filter(pl.col("origin") == row["origin"]).height
        out[f"dest_late_arrivals_{days}d"] = late.filter(pl.col("dest") == row["dest"]).height
    read_at = at - ROUTE_DELAY
    route = week.filter(
        pl.col("origin") == row["origin"],
        pl.col("dest") == row["dest"],
        pl.col("landed_at") < read_at,
        pl.col("landed_at") >= read_at - timedelta(days=7),
    )["arr_delay"].drop_nulls()
    out["route_mean_arrival_delay_7d"] = math.fsum(route) / len(route) if len(route) else None
    return out


def _schedule(sources: Sources, row: Mapping[str, Any]) -> dict[str, Any]:
    at, start = row["scheduled_departure"], pl.col("scheduled_departure")
    here = sources.flights.filter(pl.col("origin") == row["origin"])
    carrier = here.filter(pl.col("carrier") == row["carrier"], start < at, start >= at - timedelta(days=1))
    return {
        "origin_departures_1h": here.filter(start <= at, start >= at - timedelta(hours=1)).height,
        "carrier_destinations_1d": carrier["dest"].n_unique(),
    }


def _weather(sources: Sources, row: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    wanted = {
        "origin": ("temp", "wind_speed", "precip", "visib", "pressure"),
        "dest": ("temp", "wind_speed", "visib"),
    }
    for end, names in wanted.items():
        at = row["scheduled_departure"]
        known = sources.weather.filter(
            pl.col("origin") == row[end], pl.col("time_hour") < at - WEATHER_DELAY
        ).sort("time_hour")
        newest = known.tail(1).filter(pl.col("time_hour") >= at - WEATHER_TTL)
        for name in names:
            out[f"{end}_{name}"] = newest[name].item() if newest.height else None
    return out


def _attributes(sources: Sources, row: Mapping[str, Any]) -> dict[str, Any]:
    plane = sources.planes.filter(pl.col("tailnum") == pl.lit(row["tailnum"], pl.String))
    airport = sources.airports.filter(pl.col("faa") == row["dest"])
    known = plane.row(0, named=True) if plane.height else {}
    place = airport.row(0, named=True) if airport.height else {}
    return {
        "year_built": known.get("year"),
        "manufacturer": known.get("manufacturer"),
        "seats": known.get("seats") or 0,
        "dest_latitude": place.get("lat"),
        "dest_longitude": place.get("lon"),
    }


def _utc(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _same(name: str, actual: Any, wanted: Any) -> bool:
    if name in MEANS and actual is not None and wanted is not None:
        # All delays are whole minutes below 2000, so their sum is exact and only the division rounds.
        return math.isclose(actual, wanted, rel_tol=1e-12, abs_tol=1e-9)
    return type(actual) is type(wanted) and actual == wanted
