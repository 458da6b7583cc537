from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from support.flights_oracle import load_prepare

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # a year of flights is made for all

prepare = load_prepare()

FLIGHTS = 336_776
CANCELLED = 8_255  # no dep_time
NEVER_ARRIVED = 458  # departed, no arr_time
DIVERTED = 717  # an arr_time, no arr_delay


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    return prepare.tables()


@pytest.fixture(scope="module")
def flown(tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Every flight with its landing, when it has one."""
    outcome = tables["arrivals"].select(
        "flight_seq", "landed_at", "departed_at", "dep_delay", "arr_delay", "air_time", "late", "diverted"
    )
    return tables["flights"].join(outcome, on="flight_seq", how="left")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def find(flown: pl.DataFrame, carrier: str, flight: int, origin: str, scheduled: str) -> dict[str, Any]:
    return flown.row(
        by_predicate=(pl.col("carrier") == carrier)
        & (pl.col("flight") == flight)
        & (pl.col("origin") == origin)
        & (pl.col("scheduled_departure") == instant(scheduled)),
        named=True,
    )


def test_no_row_of_the_package_is_lost_or_invented(tables: dict[str, pl.DataFrame]) -> None:
    with zipfile.ZipFile(prepare.package_data() / "flights.csv.zip") as archive:
        rows = list(csv.reader(io.TextIOWrapper(archive.open("flights.csv"), encoding="utf-8")))
    index = {name: at for at, name in enumerate(rows[0])}

    def key(row: list[str]) -> tuple[str, ...]:
        return tuple(
            row[index[name]] for name in ("carrier", "flight", "tailnum", "origin", "dest", "distance")
        )

    written = tables["flights"].select("carrier", "flight", "tailnum", "origin", "dest", "distance")
    as_text = Counter(
        tuple("NA" if cell is None else str(cell) for cell in row) for row in written.iter_rows()
    )
    assert len(rows) - 1 == FLIGHTS
    assert as_text == Counter(key(row) for row in rows[1:])
    assert tables["arrivals"].height == sum(row[index["arr_time"]] not in {"NA", ""} for row in rows[1:])
    sizes = {name: table.height for name, table in tables.items() if name not in {"flights", "arrivals"}}
    assert sizes == {"weather": 26_115, "planes": 3_322, "airports": 1_458}


def test_flights_are_numbered_by_schedule_and_tell_no_outcome(tables: dict[str, pl.DataFrame]) -> None:
    flights = tables["flights"]
    assert flights["flight_seq"].to_list() == list(range(FLIGHTS))
    assert flights["scheduled_departure"].is_sorted()
    assert flights.select("scheduled_departure", "carrier", "flight", "origin").is_unique().all()
    outcome = {
        "dep_time",
        "dep_delay",
        "arr_time",
        "arr_delay",
        "air_time",
        "late",
        "diverted",
        "departed_at",
    }
    assert not outcome & set(flights.columns)


def test_cancelled_flights_and_unknown_planes_stay_in_the_spine(flown: pl.DataFrame) -> None:
    assert flown["landed_at"].null_count() == CANCELLED + NEVER_ARRIVED
    assert flown["tailnum"].null_count() == 2_512
    # In this package only cancelled flights lack a tail number.
    assert flown.filter(pl.col("tailnum").is_null())["landed_at"].null_count() == 2_512
    hop = find(flown, "US", 1632, "EWR", "2013-07-27T05:06Z")  # 01:06 EDT, 17 miles, never flown
    assert (hop["dest"], hop["tailnum"], hop["landed_at"], hop["late"]) == ("LGA", None, None, None)


def test_diverted_flights_land_with_unknown_delay(tables: dict[str, pl.DataFrame]) -> None:
    diverted = tables["arrivals"].filter(pl.col("diverted"))
    assert diverted.height == DIVERTED
    for name in ("arr_delay", "air_time", "late"):
        assert diverted[name].null_count() == DIVERTED
        assert tables["arrivals"][name].null_count() == DIVERTED
    assert tables["arrivals"]["landed_at"].null_count() == 0


def test_late_is_fifteen_minutes(tables: dict[str, pl.DataFrame]) -> None:
    by_delay = (
        tables["arrivals"].filter(pl.col("arr_delay").is_in([14, 15])).group_by("arr_delay", "late").len()
    )
    assert sorted(by_delay.select("arr_delay", "late").iter_rows()) == [(14, False), (15, True)]


def test_every_landing_is_after_departure_and_schedule(flown: pl.DataFrame) -> None:
    landed = flown.filter(pl.col("landed_at").is_not_null())
    assert landed.filter(pl.col("landed_at") <= pl.col("departed_at")).is_empty()
    # So no flight is ever in its own past.
    assert landed.filter(pl.col("landed_at") <= pl.col("scheduled_departure")).is_empty()


def test_speed_in_the_air_fits_the_time_between_departure_and_landing(flown: pl.DataFrame) -> None:
    minutes = (pl.col("landed_at") - pl.col("departed_at")).dt.total_minutes()
    ground = flown.filter(pl.col("air_time").is_not_null()).with_columns(ground=minutes - pl.col("air_time"))
    assert ground["ground"].min() == 5
    assert ground["ground"].max() == 235
    # A destination in a wrong zone would stand out by an hour.
    usual = ground.group_by("dest").agg(pl.col("ground").median(), pl.len()).filter(pl.col("len") >= 10)
    assert usual["ground"].is_between(18, 40).all()


# (carrier, flight, origin, scheduled departure, actual departure, landing), from the package's wall clocks to
# UTC by hand.
HAND_CHECKED = {
    # 05:15 EST left 05:17, landed 08:30 CST
    "EST to CST": ("UA", 1545, "EWR", "2013-01-01T10:15Z", "2013-01-01T10:17Z", "2013-01-01T14:30Z"),
    # 09:00 EST left 1301 minutes late at 06:41 the next day, landed 12:42 HST
    "a day late": ("HA", 51, "JFK", "2013-01-09T14:00Z", "2013-01-10T11:41Z", "2013-01-10T22:42Z"),
    # 21:55 EST left 22:09, landed 2400 EST
    "landed at 2400": ("B6", 1109, "JFK", "2013-01-02T02:55Z", "2013-01-02T03:09Z", "2013-01-02T05:00Z"),
    # 21:45 EST left 23:06, landed 02:03 by a clock not yet turned (at 02:00 EST it became 03:00 EDT)
    "skipped hour": ("B6", 35, "JFK", "2013-03-10T02:45Z", "2013-03-10T04:06Z", "2013-03-10T07:03Z"),
    # 23:59 EST left 00:53, landed 05:04 AST: New York turned its clock on the way, Puerto Rico never does
    "midnight, change": ("B6", 727, "JFK", "2013-03-10T04:59Z", "2013-03-10T05:53Z", "2013-03-10T09:04Z"),
    # 05:00 EDT, first flight of summer time, left 6 minutes early, landed 06:28 EDT
    "summer time": ("US", 1113, "EWR", "2013-03-10T09:00Z", "2013-03-10T08:54Z", "2013-03-10T10:28Z"),
    # 23:59 EDT left 2400, landed 03:27 AST
    "left at 2400": ("B6", 839, "JFK", "2013-10-31T03:59Z", "2013-10-31T04:00Z", "2013-10-31T07:27Z"),
    # 16:55 EDT left 22:17, landed 01:14 PDT, an hour that came twice in Los Angeles that night
    "repeated hour": ("VX", 413, "JFK", "2013-11-02T20:55Z", "2013-11-03T02:17Z", "2013-11-03T08:14Z"),
}  # fmt: skip


@pytest.mark.parametrize("case", HAND_CHECKED)
def test_hand_checked_instants(flown: pl.DataFrame, case: str) -> None:
    carrier, flight, origin, scheduled, departed, landed = HAND_CHECKED[case]
    row = find(flown, carrier, flight, origin, scheduled)
    assert (row["departed_at"], row["landed_at"]) == (instant(departed), instant(landed))


def test_data_that_contradict_themselves_stop_the_run() -> None:
    flights = prepare.scheduled_flights().head(5_000)
    shifted = flights.with_columns(arr_delay=pl.col("arr_delay") + (pl.col("flight_seq") == 0).cast(pl.Int64))
    with pytest.raises(SystemExit, match="arr_time and arr_delay disagree: 1 flights"):
        prepare.landings(shifted)
    wrong_zone = flights.with_columns(dest_zone=pl.lit("Asia/Tokyo"))
    with pytest.raises(SystemExit, match="not as expected"):
        prepare.landings(wrong_zone)


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    rows = prepare.prepare(tmp_path / "one")
    assert prepare.prepare(tmp_path / "two") == rows
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(f"{name}.parquet" for name in rows)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert pl.read_parquet(tmp_path / "one" / "flights.parquet").height == FLIGHTS
