"""What a person does with a project of their own, and what a careless or hostile one writes into it."""

from __future__ import annotations

import copy
import datetime as dt
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.cli.main import main
from daedalus.errors import DaedalusError, DefinitionError, SourceError
from daedalus.platform import PlatformRegistry
from support.project import ENGINES, Project, instants, write_project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = "2026-05-02"
NAN = math.nan
VISITS = pa.table(
    {
        "shopper": ["ann", "ann", "bob", "ann"],
        "item": [1, 2, 1, 3],
        "at": instants(f"{DAY} 10:00", f"{DAY} 11:00", f"{DAY} 12:00", f"{DAY} 13:00"),
        "event": ["view", "buy", "view", "view"],
        "session": ["s", "s", None, "t"],
        "score": [1.0, NAN, 2.0, 7.0],
    }
)
PROFILES = pa.table(
    {
        "shopper": ["ann", "bob"],
        "at": instants("2026-05-01", "2026-05-01"),
        "limit": pa.array([Decimal("1.10"), Decimal("2.25")], pa.decimal128(10, 2)),
        "weight": [1.5, NAN],
        "note": ["1.239", "2"],
    }
)
ENTITIES = {
    "entities": [
        {"name": "shopper", "keys": [{"name": "shopper", "dtype": "TEXT"}]},
        {"name": "item", "keys": [{"name": "item", "dtype": "BIGINT"}]},
    ]
}
COUNT = {
    "name": "r",
    "group_by": ["shopper"],
    "operation": "count",
    "timestamp_column": "at",
    "window_days": 1,
}


class Shop:
    """The parts of a small project, to be changed before it is written."""

    def __init__(self) -> None:
        self.visits: dict[str, Any] = {
            "name": "visits",
            "entity": ["shopper", "item"],
            "source": {"path": "visits", "timestamp_field": "at"},
            "fields": [
                {"name": "event", "dtype": "TEXT"},
                {"name": "session", "dtype": "TEXT"},
                {"name": "score", "dtype": "DOUBLE"},
            ],
        }
        self.profiles: dict[str, Any] = {
            "name": "profiles",
            "entity": "shopper",
            "source": {"path": "profiles", "timestamp_field": "at"},
            "fields": [{"name": "limit", "dtype": "DECIMAL(10,2)"}, {"name": "weight", "dtype": "DOUBLE"}],
        }
        self.service: dict[str, Any] = {
            "name": "s",
            "version": "2026-01-01",
            "spine": "visits",
            "views": [{"view": "profiles", "join": "asof"}],
            "columns": ["visits:shopper", "visits:at", "visits:event", "visits:score", "profiles:limit"],
        }
        self.specs: list[dict[str, Any]] = []
        self.data = {"visits/a.parquet": VISITS, "profiles/a.parquet": PROFILES}

    def spec(self, **changes: Any) -> None:
        """Add a rolling column `r`."""
        self.specs.append(copy.deepcopy(COUNT) | changes)
        self.service["columns"].append("rolling:r")

    def profile_field(self, name: str, dtype: str, values: pa.Array) -> None:
        """Give profiles another column, and the contract with it."""
        self.profiles["fields"].append({"name": name, "dtype": dtype})
        table = self.data["profiles/a.parquet"]
        if name in table.column_names:
            table = table.drop_columns([name])
        self.data["profiles/a.parquet"] = table.append_column(name, values)
        self.service["columns"].append(f"profiles:{name}")

    def write(self, root: Path) -> Project:
        """The project on disk."""
        return write_project(
            root,
            views=[self.visits, self.profiles],
            services=[self.service],
            data=self.data,
            aggregations={"aggregation_specs": self.specs},
            entities=ENTITIES,
        )

    def rows(self, root: Path, engine: str = "duckdb") -> list[dict[str, Any]]:
        """The trained day."""
        return self.write(root).run("s", [DAY], engine=engine).rows(DAY)


def test_text_keys_and_decimals_come_out_as_they_went_in(tmp_path: Path) -> None:
    rows = Shop().rows(tmp_path)
    assert [(row["shopper"], row["limit"]) for row in rows] == [
        ("ann", Decimal("1.10")),
        ("ann", Decimal("1.10")),
        ("bob", Decimal("2.25")),
        ("ann", Decimal("1.10")),
    ]


# ---------------------------------------------------------------------- NaN is larger than every number


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("condition", "counts"),
    [
        ("hist.score > 0", [0, 1, 0, 2]),
        ("hist.score > 100", [0, 0, 0, 1]),
        ("NOT hist.score < 100", [0, 0, 0, 1]),
    ],
)
@pytest.mark.parametrize("window", [1, None])
def test_conditions_see_nan_above_every_number(
    tmp_path: Path, engine: str, condition: str, counts: list[int], window: float | None
) -> None:
    shop = Shop()
    shop.spec(condition=condition, window_days=window)
    assert [row["r"] for row in shop.rows(tmp_path, engine)] == counts


@pytest.mark.parametrize("engine", ENGINES)
def test_filters_and_derived_columns_see_nan_above_every_number(tmp_path: Path, engine: str) -> None:
    shop = Shop()
    shop.spec()  # on the Arrow engines the filter then runs over an Arrow table
    shop.service["derived"] = [{"name": "heavy", "sql": "weight > 100"}]
    shop.service["columns"].append("derived:heavy")
    shop.service["content_filter"] = [{"name": "f", "sql": "score > 1"}]
    rows = shop.rows(tmp_path, engine)
    assert [(row["score"], row["heavy"]) for row in rows[1:]] == [(2.0, True), (7.0, False)]
    assert math.isnan(rows[0]["score"])
    assert len(rows) == 3


# ---------------------------------------------------------------------- times


def test_a_created_field_in_nanoseconds_is_not_known_since_1970(tmp_path: Path) -> None:
    shop = Shop()
    eleven = 1_777_719_600_000_000_000  # that day, 11:00
    shop.profiles["source"] |= {"created_field": "made", "timestamp_unit": "ns"}
    shop.profile_field("made", "BIGINT", pa.array([eleven, eleven - 1], pa.int64()))
    shop.service["columns"].remove("profiles:made")
    assert [row["limit"] is not None for row in shop.rows(tmp_path)] == [False, False, True, True]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("days", [401, 1e6, 1e12, 1e300])
def test_a_window_longer_than_any_history_is_the_whole_past(tmp_path: Path, engine: str, days: float) -> None:
    shop = Shop()
    shop.spec(window_days=days)
    assert [row["r"] for row in shop.rows(tmp_path, engine)] == [0, 1, 0, 2]
    assert not list(tmp_path.rglob("history-*.parquet"))


def test_times_that_no_calendar_has_are_only_late_ones(tmp_path: Path) -> None:
    shop = Shop()
    far = pa.array([2**63 - 2, 0], pa.int64()).cast(pa.timestamp("us"))
    shop.data["profiles/a.parquet"] = PROFILES.set_column(1, "at", far)
    assert [row["limit"] is None for row in shop.rows(tmp_path)] == [True, True, False, True]


# ---------------------------------------------------------------------- refusals


def _condition(text: str) -> Callable[[Shop], None]:
    return lambda shop: shop.spec(condition=text)


def _float_key(shop: Shop) -> None:
    shop.spec(group_by=["score"])


def _row_column(shop: Shop) -> None:
    shop.profile_field("__row", "BIGINT", pa.array([1, 2]))


def _tick_output(shop: Shop) -> None:
    shop.service["columns"].append({"name": "__T", "ref": "visits:item"})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_condition("hist.item"), "'hist.item' is BIGINT, not a condition"),
        (_condition("hist.event"), "'hist.event' is VARCHAR, not a condition"),
        (_float_key, "group_by 'score' is DOUBLE"),
        (_row_column, "the column name '__row' is reserved"),
        (_tick_output, "the column name '__T' is reserved"),
    ],
)
def test_refused_before_anything_runs(
    tmp_path: Path, engine: str, change: Callable[[Shop], None], message: str
) -> None:
    shop = Shop()
    change(shop)
    with pytest.raises(DefinitionError, match=message):
        shop.write(tmp_path).pipeline("s", engine=engine)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [("DECIMAL(4,2)", "1.239"), ("DATE", "2026-01-01 10:00:00"), ("TIMESTAMP_S", "2026-01-01 10:00:00.5")],
)
def test_a_text_that_would_be_rounded_is_shown(tmp_path: Path, dtype: str, text: str) -> None:
    shop = Shop()
    shop.profile_field("note", dtype, pa.array([text, None]))
    with pytest.raises(SourceError, match=f"column note: .* without loss.*{text}"):
        shop.rows(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        ("DECIMAL(4,2)", " 1.5", Decimal("1.50")),
        ("DATE", "2026-01-01", dt.date(2026, 1, 1)),
        ("DOUBLE", "0.1", 0.1),
    ],
)
def test_a_text_that_fits_is_read(tmp_path: Path, dtype: str, text: str, value: object) -> None:
    shop = Shop()
    shop.profile_field("note", dtype, pa.array([text, None]))
    assert shop.rows(tmp_path)[0]["note"] == value


# ---------------------------------------------------------------------- sessions


def test_a_session_filter_for_view_only_sessions_needs_no_likes(tmp_path: Path) -> None:
    shop = Shop()
    shop.service["session_filter"] = {
        "session_column": "session",
        "event_column": "event",
        "view_events": ["view"],
        "drop_view_only": True,
    }
    rows = shop.rows(tmp_path)
    assert [(row["shopper"], row["event"]) for row in rows] == [
        ("ann", "view"),
        ("ann", "buy"),
        ("bob", "view"),
    ]


# ---------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_says_that_it_was_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    Shop().write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(PlatformRegistry, "list_views", interrupted)
    assert main(["view", "list"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


# ---------------------------------------------------------------------- mistakes, one at a time

MISTAKES: list[tuple[Callable[[Shop], Any], str]] = [
    (lambda s: s.service["views"][0].update(view="profile"), "Did you mean 'profiles'"),
    (lambda s: s.service["views"][0].update(join="as_of"), "Did you mean 'asof'"),
    (lambda s: s.service["columns"].append("profiles:wieght"), "Did you mean 'profiles:weight'"),
    (lambda s: s.service.update(spine="visit"), "Did you mean 'visits'"),
    (lambda s: s.profiles["fields"][1].update(dtype="DOUBEL"), "unknown dtype 'DOUBEL'"),
    (lambda s: s.profiles["fields"][1].update(dtype="BIGINT"), "does not fit the declared BIGINT"),
    (lambda s: s.profiles["fields"].append({"name": "mass", "dtype": "DOUBLE"}), "no column 'mass'"),
    (lambda s: s.profiles["source"].update(path="profile"), "profile does not exist"),
    (lambda s: s.profiles.update(entity="shoper"), "Did you mean 'shopper'"),
    (lambda s: s.profiles.update(ttl="90"), "Write a number and a unit"),
    (lambda s: s.spec(window_days=0), "must be more than 0"),
    (lambda s: s.spec(max_items=0), "must be at least 1"),
    (lambda s: s.spec(operation="cnt"), "Did you mean 'count'"),
    (lambda s: s.spec(group_by=["shoper"]), "Did you mean 'shopper'"),
    (lambda s: s.spec(condition="event = 'buy'"), "Write hist.event"),
    (lambda s: (s.spec(), s.spec()), "used twice"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_one_of_ours_and_says_what_to_do(
    tmp_path: Path, change: Callable[[Shop], Any], message: str
) -> None:
    shop = Shop()
    shop.service["columns"].append("profiles:weight")
    change(shop)
    with pytest.raises(DaedalusError) as caught:
        shop.rows(tmp_path)
    assert message in str(caught.value)
    assert not list(tmp_path.rglob("dt=*"))
