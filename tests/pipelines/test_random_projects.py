"""Small random projects against the semantics written out row by row: lookups, lookbacks, ages, rolling lists.

Times collide on purpose, lie around 1969, leap days and clock changes, and come as every kind of time column.
"""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.pipelines.days import lookups as day_lookups
from daedalus.pipelines.days import resources as day_resources
from daedalus.pipelines.days import stream as day_stream
from support.project import ENGINES, Project, write_project

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
DAY_US = 86_400_000_000
DAYS = ("1969-12-31", "1970-01-01", "2024-02-29", "2026-03-08", "2025-11-02")
UNITS_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
#: How a time column is stored, and what the view declares for it: dtype and unit.
STORED = {
    "timestamp": ("TIMESTAMP", None),
    "zoned": ("TIMESTAMPTZ", None),
    "nanos": ("TIMESTAMP_NS", None),
    **{f"count {unit}": ("BIGINT", unit) for unit in UNITS_NS},
    **{f"read {unit}": ("TIMESTAMP", unit) for unit in UNITS_NS},
}
SEEDS = range(12)
SLOW_SEEDS = range(12, 40)


def _times(instants: list[int | None], stored: str) -> pa.Array:
    unit = STORED[stored][1]
    if unit is not None:
        values = [None if us is None else us * 1000 // UNITS_NS[unit] for us in instants]
        return pa.array(values, pa.int64())
    if stored == "nanos":
        return pa.array([None if us is None else us * 1000 for us in instants], pa.timestamp("ns"))
    return pa.array(instants, pa.timestamp("us", "America/New_York" if stored == "zoned" else None))


def _sortable(value: Any) -> tuple[Any, ...]:
    return () if value is None else (value,)


@dataclass
class View:
    """A random view: its rows as Python values, its definition and its file.

    Rows have `t` and `made` in microseconds, `seq`, their keys and `x`, a number of their own.
    """

    name: str
    keys: list[str]
    rows: list[Row]
    stored: str
    created: str = ""
    sequence: bool = False
    ttl: tuple[str, int] | None = None
    delay: float = 0
    others: dict[str, pa.DataType] = field(default_factory=dict)

    def ordered(self) -> list[Row]:
        """The rows in the view's total order."""
        names = ["t", *(["made"] if self.created else []), *(["seq"] if self.sequence else [])]
        names += [*self.keys, *sorted(self.others)]
        return sorted(self.rows, key=lambda row: [_sortable(row[name]) for name in names])

    def definition(self) -> Row:
        """As YAML."""
        dtype, unit = STORED[self.stored]
        source: Row = {"path": self.name, "timestamp_field": "t"}
        source |= {"timestamp_unit": unit} if unit else {}
        fields: list[Row] = [{"name": "t", "dtype": dtype}]
        if self.created:
            source["created_field"] = "made"
            fields.append({"name": "made", "dtype": STORED[self.created][0]})
        if self.sequence:
            source["sequence_field"] = "seq"
            fields.append({"name": "seq", "dtype": "BIGINT"})
        names = {pa.int64(): "BIGINT", pa.string(): "TEXT", pa.timestamp("us"): "TIMESTAMP"}
        fields += [{"name": name, "dtype": names[kind]} for name, kind in self.others.items()]
        entity = [{"who": "person", "what": "thing"}[key] for key in self.keys]
        body = {"name": self.name, "entity": entity, "source": source, "fields": fields}
        return body | ({"ttl": self.ttl[0]} if self.ttl else {}) | {"delay_seconds": self.delay}

    def table(self) -> pa.Table:
        """Its file."""
        columns = {"t": _times([row["t"] for row in self.rows], self.stored)}
        if self.created:
            columns["made"] = _times([row["made"] for row in self.rows], self.created)
        kinds = {"who": pa.string(), "what": pa.int64(), "seq": pa.int64()}
        wanted = {
            name: kinds[name] for name in [*self.keys, *(["seq"] if self.sequence else [])]
        } | self.others
        for name, kind in wanted.items():
            columns[name] = pa.array([row[name] for row in self.rows], kind)
        return pa.table(columns)

    def found(self, row: Row, on: list[str], join: str) -> Row:
        """The version that `row` sees; empty when none."""
        asked = [row[name] for name in on]
        best: Row = {}
        for version in self.ordered() if None not in asked else []:
            if [version[key] for key in self.keys] != asked:
                continue
            if join == "latest" or self._known(version, row["t"]):
                best = version
        if best and self.ttl and (best["t"] is None or best["t"] < row["t"] - self.ttl[1] * 1_000_000):
            return {}
        return best

    def _known(self, version: Row, now: int) -> bool:
        if version["t"] is None or not version["t"] < now - round(self.delay * 1_000_000):
            return False
        return not self.created or (version["made"] is not None and version["made"] < now)


class World:
    """One random project and what training it must give."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.day = self.random.choice(DAYS)
        self.start = (dt.date.fromisoformat(self.day) - dt.date(1970, 1, 1)).days * DAY_US
        self.grain = self.random.choice([3_600_000_000, 60_000_000, 1_000_000])
        self.shared = [self._instant() for _ in range(10)]
        pick = self.random.choice
        spine_time = pick(list(STORED))
        number, text = pa.int64(), pa.string()
        self.spine = self._view("events", ["who", "what"], 60, spine_time, {"kind": text, "other": number})
        self.spine.sequence, self.spine.ttl, self.spine.delay, self.spine.created = True, None, 0, ""
        for count, row in enumerate(self.spine.rows):
            row["seq"] = count
        self.people = self._view(
            "people", ["who"], 40, pick(list(STORED)), {"x": number, "born": pa.timestamp("us")}
        )
        self.things = self._view("things", ["what"], 25, pick(list(STORED)), {"x": number})
        self.pairs = self._view("pairs", ["who", "what"], 50, pick(list(STORED)), {"x": number})
        self.arrivals = self._view("arrivals", ["who"], 50, spine_time, {"item": number, "x": number})
        self.joins = {
            name: pick(["asof", "latest"]) for name in ("people", "things", "pairs", "other_things")
        }
        self.window = pick([None, 0.04, 0.5, 1, 2])
        self.newest = pick([None, 1, 3])
        self.late = pick([0, 3600, 86_400])

    def _instant(self, low: int = -3, high: int = 2) -> int:
        steps = (high - low) * DAY_US // self.grain
        return self.start + low * DAY_US + self.random.randrange(steps) * self.grain

    def _maybe(self, values: list[Any], missing: float = 0.1) -> Any:
        return None if self.random.random() < missing else self.random.choice(values)

    def _row(self, number: int) -> Row:
        moment = self._maybe([self.random.choice(self.shared), self._instant()], 0.05)
        known = (moment or self.start) + self.random.choice([0, 0, self.grain, -self.grain, DAY_US])
        return {
            "t": moment,
            "made": self._maybe([known]),
            "seq": self.random.choice([0, 1, 2]),
            "who": self._maybe(["a", "b'", "ü"]),
            "what": self._maybe([1, 2, -3]),
            "x": number,
            "kind": self._maybe(["view", "like"]),
            "other": self._maybe([1, 2, -3]),
            "item": self._maybe([1, 2, 3, 4]),
            "born": self._maybe([self._instant(-9, 3)]),
        }

    def _view(
        self, name: str, keys: list[str], size: int, stored: str, others: dict[str, pa.DataType]
    ) -> View:
        unit = STORED[stored][1]
        created = ["", "timestamp", "zoned", *([f"count {unit}", f"read {unit}"] if unit else [])]
        return View(
            name=name,
            keys=keys,
            rows=[self._row(number) for number in range(size)],
            stored=stored,
            created=self.random.choice(created),
            sequence=self.random.random() < 0.5,
            ttl=self.random.choice([None, ("1.5d", 129_600), ("0.5h", 1800)]),
            delay=self.random.choice([0, 0, 0.5, 3600]),
            others=others,
        )

    def write(self, root: Path) -> Project:
        """The project on disk."""
        views = [self.spine, self.people, self.things, self.pairs, self.arrivals]
        unit = STORED[self.spine.stored][1] or "ms"
        spec: Row = {
            "timestamp_column": "t",
            "timestamp_unit": unit,
            "group_by": ["who"],
            "operation": "list",
        }
        spec |= {} if self.window is None else {"window_days": self.window}
        spec |= {} if self.newest is None else {"max_items": self.newest}
        liked = {
            "name": "liked",
            "value_column": "what",
            "condition": "hist.kind = 'like'",
            "exclude_self": True,
        }
        arrived = {"name": "arrived", "value_column": "item", "history_view": "arrivals"}
        lookback = {"name": "recent", "view": "arrivals", "on": {"who": "who"}, "value_column": "item"}
        lookback |= {key: spec[key] for key in ("window_days", "max_items") if key in spec}
        joins: list[Row] = [
            {"view": name, "join": self.joins[name]} for name in ("people", "things", "pairs")
        ]
        joins.append(
            {
                "view": "things",
                "alias": "other_things",
                "join": self.joins["other_things"],
                "on": {"other": "what"},
            }
        )
        columns: list[Any] = ["events:seq"]
        columns += [{"ref": f"{name}:x", "name": name} for name in self.joins]
        columns += ["age:age", "lookback:recent", "rolling:liked", "rolling:arrived"]
        service = {
            "name": "s",
            "version": "2026-01-01",
            "spine": "events",
            "views": joins,
            "age_columns": [{"name": "age", "created": "people:born"}],
            "lookbacks": [lookback],
            "columns": columns,
        }
        month = self.day[:7].replace("-", "")
        keys = {"person": ("who", "TEXT"), "thing": ("what", "BIGINT")}
        return write_project(
            root,
            views=[view.definition() for view in views],
            services=[service],
            data={f"{view.name}/a.parquet": view.table() for view in views},
            aggregations={
                "aggregation_specs": [spec | liked, spec | arrived | {"delay_seconds": self.late}],
            },
            runtime={"feed_start": month, "feed_end": month},
            entities={
                "entities": [
                    {"name": name, "keys": [{"name": key, "dtype": dtype}]}
                    for name, (key, dtype) in keys.items()
                ]
            },
        )

    def expected(self) -> list[Row]:
        """What the day must hold."""
        ordered = self.spine.ordered()
        inside = [row for row in ordered if row["t"] is not None and 0 <= row["t"] - self.start < DAY_US]
        return [self._trained(row, ordered) for row in inside]

    def _trained(self, row: Row, history: list[Row]) -> Row:
        person = self.people.found(row, ["who"], self.joins["people"])
        liked = [h for h in history if h["kind"] == "like" and h["what"] != row["what"]]
        arrivals = self.arrivals.ordered()
        return {
            "seq": row["seq"],
            "people": person.get("x"),
            "things": self.things.found(row, ["what"], self.joins["things"]).get("x"),
            "pairs": self.pairs.found(row, ["who", "what"], self.joins["pairs"]).get("x"),
            "other_things": self.things.found(row, ["other"], self.joins["other_things"]).get("x"),
            "age": _age(row["t"], person.get("born")),
            "recent": self._listed(row, _first_of_each(arrivals), "item", 0),
            "liked": self._listed(row, liked, "what", 0),
            "arrived": self._listed(row, arrivals, "item", self.late),
        }

    def _listed(self, row: Row, history: list[Row], column: str, late: int) -> list[Any]:
        now = row["t"] - late * 1_000_000
        tick = UNITS_NS[STORED[self.spine.stored][1] or "us"] // 1000 or 1
        oldest = None if self.window is None else now - round(self.window * DAY_US / tick) * tick
        found = [
            h[column]
            for h in history
            if row["who"] is not None and h["who"] == row["who"] and h["t"] is not None
            if h[column] is not None and h["t"] < now and (oldest is None or h["t"] >= oldest)
        ]
        return found[-self.newest :] if self.newest else found


def _age(now: int, born: int | None) -> int | None:
    return None if born is None or born > now else (now - born) // DAY_US


def _first_of_each(rows: list[Row]) -> list[Row]:
    seen: set[tuple[Any, Any]] = set()
    first = []
    for row in rows:
        known = (row["who"], row["item"])
        if row["t"] is not None and known not in seen:
            seen.add(known)
            first.append(row)
    return first


def _check(seed: int, root: Path) -> None:
    world = World(seed)
    expected = world.expected()
    assert expected
    engine = ENGINES[seed % len(ENGINES)]
    assert world.write(root).run("s", [world.day], engine=engine).rows(world.day) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_random_project(seed: int, tmp_path: Path) -> None:
    _check(seed, tmp_path)


@pytest.mark.parametrize("seed", range(100, 109))
def test_random_project_in_buckets(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_resources, "BUCKETS", (2, 7, 64)[seed // 3 % 3])
    monkeypatch.setattr(day_stream, "SLICE_ROWS", 3)
    if seed % 3:  # else the rows are held in Arrow
        monkeypatch.setattr(day_lookups.LookupStream, "_may_fit", lambda *_: False)
    _check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW_SEEDS)
def test_more_random_projects(seed: int, tmp_path: Path) -> None:
    _check(seed, tmp_path)
