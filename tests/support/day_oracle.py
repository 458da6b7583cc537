"""What a day of the demo project must hold, the obvious way: plain Python over the source files.

Nothing of `daedalus` and no SQL: definitions are read as YAML, rows as Python values, every rule is written out
as on the semantics page. An expression that is no plain comparison stands here in words, under its own text, so
that a changed example is refused instead of misread.

    day = DayOracle(project_root, "dssm_ranking", date(2026, 5, 2), covered={5000001, ...})
    day.columns["like_artwork_ids_1d"]      # one value per row, in order
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections import defaultdict
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Row = dict[str, Any]
DAY_US = 86_400_000_000
KEYS = {"user": "user_id", "artwork": "artwork_id"}
UNIT_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _width_and_height(row: Row) -> bool | None:
    return None if None in (row["height"], row["width"]) else row["height"] > row["width"]


#: Expressions of the two services, by their text.
EXPRESSIONS: dict[str, Callable[[Row], Any]] = {
    "CASE WHEN artwork_type = 'ANIMATED_ARTWORK' THEN 'DEFAULT_I2V_MODEL' ELSE model_type END": lambda row: (
        "DEFAULT_I2V_MODEL" if row["artwork_type"] == "ANIMATED_ARTWORK" else row["model_type"]
    ),
    "model_type IS DISTINCT FROM 'SD_V1_MODEL'": lambda row: row["model_type"] != "SD_V1_MODEL",
    "height > width": _width_and_height,
    "coalesce(list_contains(followed_user_ids, author_id), false)": lambda row: (
        row["author_id"] is not None and row["author_id"] in (row["followed_user_ids"] or [])
    ),
    "click_artwork_cnts_1d / (view_artwork_cnts_1d + 1.0)": lambda row: (
        row["click_artwork_cnts_1d"] / (row["view_artwork_cnts_1d"] + 1.0)
    ),
}


class DayOracle:
    """One target day of one service.

    Args:
        covered: the artworks with an embedding; None turns the coverage filter off.
    """

    def __init__(self, root: Path, service: str, day: dt.date, covered: set[int] | None = None) -> None:
        self.root = root
        self.service = yaml.safe_load((root / "feature_services" / f"{service}.yaml").read_text())
        self.covered = covered
        self.start = (day - dt.date(1970, 1, 1)).days * DAY_US
        self.end = self.start + DAY_US
        self._views: dict[str, View] = {}

    def view(self, name: str) -> View:
        """A view's rows, read once."""
        if name not in self._views:
            self._views[name] = View(self.root, name)
        return self._views[name]

    # ------------------------------------------------------------------ rows

    @cached_property
    def history(self) -> list[Row]:
        """All covered events before the day's end, with static columns, in total order."""
        spine = self.view(self.service["spine"])
        setting = yaml.safe_load((self.root / "config/training/runtime.yaml").read_text())
        watched = setting["embedding_coverage_filter"]["events"]
        rows = [
            dict(row)
            for row in spine.rows
            if row["__t"] is not None
            and row["__t"] < self.end
            and not (
                self.covered is not None and row["event"] in watched and row["artwork_id"] not in self.covered
            )
        ]
        static = defaultdict(list)
        for ref in self.service.get("static_columns", []):
            view, column = ref.split(":")
            static[view].append(column)
        for row in rows:
            for view, columns in static.items():
                row.update(self.looked_up(view, row, columns))
        return rows

    @cached_property
    def events(self) -> list[Row]:
        """The target day's covered events, before the session filter."""
        return [row for row in self.history if row["__t"] >= self.start]

    @cached_property
    def rows(self) -> list[Row]:
        """The day's finished rows, with every column that anything reads."""
        rows = [dict(row) for row in self._in_kept_sessions()]
        for row in rows:
            for join in self.service["views"]:
                fields = [field for field in self.view(join["view"]).fields if field not in row]
                row.update(self.looked_up(join["view"], row, fields))
        for spec in self.specs:
            for row, value in zip(rows, self._rolled(spec, rows), strict=True):
                row[spec["name"]] = value
        for row in rows:
            self._compute(row)
        for step in self.service.get("content_filter", []):
            rows = [row for row in rows if EXPRESSIONS[step["sql"]](row)]
        return rows

    def _in_kept_sessions(self) -> Iterable[Row]:
        rules = self.service.get("session_filter")
        if rules is None:
            return self.events
        by_session = defaultdict(list)
        for row in self.events:
            by_session[row[rules["session_column"]]].append(row[rules["event_column"]])
        dropped = set()
        for session, events in by_session.items():
            views = sum(event in rules["view_events"] for event in events)
            likes = sum(event in rules["like_events"] for event in events)
            if session is None:
                continue
            if (rules["drop_view_only"] and views == len(events)) or (
                rules["drop_single_like"] and likes == 1 and views == len(events) - 1
            ):
                dropped.add(session)
        return [row for row in self.events if row[rules["session_column"]] not in dropped]

    # ------------------------------------------------------------------ lookups

    def looked_up(self, name: str, row: Row, fields: list[str]) -> Row:
        """The view's fields for one row, by its join mode and ttl."""
        view = self.view(name)
        join = next(join for join in self.service["views"] if join["view"] == name)
        key = tuple(row[column] for column in view.keys)
        versions = view.by_key.get(key, []) if None not in key else []
        t = row["__t"]
        if join.get("join", "latest") == "asof":
            created = view.definition["source"].get("created_field")
            versions = [
                version
                for version in versions
                if version["__t"] is not None
                and version["__t"] < t - view.delay_us
                and (created is None or (version[created] is not None and version[created] < t))
            ]
        found = versions[-1] if versions else None
        if found is not None and view.ttl_us is not None and found["__t"] < t - view.ttl_us:
            found = None
        return {field: None if found is None else found[field] for field in fields}

    # ------------------------------------------------------------------ rolling

    @cached_property
    def specs(self) -> list[Row]:
        """The rolling specs that the contract or a derived column reads."""
        text = (self.root / "config/training/aggregations.yaml").read_text()
        base = yaml.safe_load((self.root / "config/base.yaml").read_text())
        constants = base | base.get("constants", {})
        text = re.sub(r"\$\{base\.(\w+)\}", lambda match: str(constants[match[1]]), text)
        known = yaml.safe_load(text)["aggregation_specs"] + self.service.get("aggregation_specs", [])
        wanted = {name for name, ref, _ in self.contract if ref.startswith("rolling:")}
        return [spec for spec in known if spec["name"] in wanted]

    def _rolled(self, spec: Row, rows: list[Row]) -> list[Any]:
        passes = _condition(spec.get("condition"))
        value = spec.get("value_column")
        past: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in self.history:
            key = tuple(row[name] for name in spec["group_by"])
            if None not in key and passes(row) and (value is None or row[value] is not None):
                past[key].append(row)
        window = None if spec["window_days"] is None else round(Fraction(spec["window_days"]) * DAY_US)
        return [
            self._aggregate(spec, row, past[tuple(row[name] for name in spec["group_by"])], window)
            for row in rows
        ]

    @staticmethod
    def _aggregate(spec: Row, row: Row, past: list[Row], window: int | None) -> Any:
        t, value = row["__t"], spec.get("value_column")
        seen = [one for one in past if one["__t"] < t and (window is None or one["__t"] >= t - window)]
        if spec.get("exclude_self"):
            seen = [one for one in seen if one[value] != row[value]]
        most = spec.get("max_items")
        if most is not None and spec["operation"] != "flatten_distinct":
            seen = seen[-most:]
        match spec["operation"]:
            case "list":
                return [one[value] for one in seen]
            case "count":
                return len(seen)
            case "count_distinct":
                return len({one[value] for one in seen})
            case "mean":
                return float(Fraction(sum(one[value] for one in seen), len(seen))) if seen else None
            case "seconds_since_last":
                return (t - seen[-1]["__t"]) / 1_000_000 if seen else None
            case "flatten_distinct":
                kept: list[Any] = []
                for one in reversed(seen):
                    for item in reversed(one[value]):
                        if item is not None and item not in kept and (most is None or len(kept) < most):
                            kept.append(item)
                return kept[::-1]
        raise NotImplementedError(spec["operation"])

    # ------------------------------------------------------------------ computed columns

    def _compute(self, row: Row) -> None:
        for lookback in self.service.get("lookbacks", []):
            row[lookback["name"]] = self._looked_back(lookback, row)
        for age in self.service.get("age_columns", []):
            created = row[age["created"].split(":")[1]]
            known = created is not None and created <= row["__t"]
            row[age["name"]] = (row["__t"] - created) // DAY_US if known else None
        for step in self.service.get("derived", []):
            row[step["name"]] = EXPRESSIONS[step["sql"]](row)
        for step in self.service.get("curation", []):
            row[step["column"]] = EXPRESSIONS[step["sql"]](row)

    def _looked_back(self, lookback: Row, row: Row) -> list[Any]:
        ((mine, theirs),) = lookback[True].items()  # YAML 1.1 reads the key `on` as a boolean
        first: dict[Any, int] = {}
        for index in self.view(lookback["view"]).by_field(theirs).get(row[mine], []):
            item = self.view(lookback["view"]).rows[index]
            if item["__t"] is not None:
                first.setdefault(item[lookback["value_column"]], index)
        items = [self.view(lookback["view"]).rows[index] for index in sorted(first.values())]
        low = row["__t"] - round(lookback["window_days"] * DAY_US)
        seen = [item for item in items if low <= item["__t"] < row["__t"]]
        return [item[lookback["value_column"]] for item in seen[-lookback["max_items"] :]]

    # ------------------------------------------------------------------ output

    @cached_property
    def contract(self) -> list[tuple[str, str, Row]]:
        """(name, reference, column) of each output column, in order."""
        found = []
        for column in self.service["columns"]:
            entry = {"ref": column} if isinstance(column, str) else column
            found.append((entry.get("name", entry["ref"].split(":")[1]), entry["ref"], entry))
        return found

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """Every output column but qid; timestamps in microseconds since 1970."""
        made = {}
        for name, ref, column in self.contract:
            namespace, field = ref.split(":")
            if namespace == "embedding":
                made[name] = [None] * len(self.rows)
                continue
            values = [row[field] for row in self.rows]
            if column.get("nullable") is False:
                values = [column["default"] if value is None else value for value in values]
            made[name] = values
        return made

    def qids(self, numbered: dict[str, int] | None = None) -> list[int | None]:
        """The rows' qid, after numbering this day's sessions on from `numbered`, which grows."""
        numbers = {} if numbered is None else numbered
        session = self.service["session_column"]
        for row in self.events:
            if row[session] is not None:
                numbers.setdefault(row[session], len(numbers))
        return [None if row[session] is None else numbers[row[session]] for row in self.rows]


class View:
    """A view's rows under canonical names, timestamps in microseconds, in total order; `__t` is the time."""

    def __init__(self, root: Path, name: str) -> None:
        self.definition = yaml.safe_load((root / "feature_views" / f"{name}.yaml").read_text())
        source = self.definition["source"]
        entity = self.definition["entity"]
        self.keys = [KEYS[one] for one in ([entity] if isinstance(entity, str) else entity)]
        declared = [field["name"] for field in self.definition["fields"]]
        time = source.get("timestamp_field")
        implied = [time, source.get("created_field"), source.get("sequence_field")]
        self.fields = [*dict.fromkeys([*self.keys, *(one for one in implied if one), *declared])]
        self.ttl_us = _span_us(self.definition.get("ttl"))
        self.delay_us = round(self.definition.get("delay_seconds", 0) * 1_000_000)
        renamed = {canonical: raw for raw, canonical in self.definition.get("field_mapping", {}).items()}
        rows = []
        for path in sorted((root / "data" / source["path"]).rglob("*.parquet")):
            rows += self._read(pq.ParquetFile(path).read(), renamed)
        unit = UNIT_US[source.get("timestamp_unit", "ms")]
        for row in rows:
            value = row[time] if time else None
            row["__t"] = value if value is None or row.pop("__is_timestamp") else value * unit
        leading = [*implied, *self.keys]
        scalars = sorted(
            field["name"] for field in self.definition["fields"] if not field["dtype"].endswith("]")
        )
        order = [*dict.fromkeys(one for one in [*leading, *scalars] if one)]
        self.rows: list[Row] = sorted(rows, key=lambda row: [_rank(row[one]) for one in order])
        self.by_key: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in self.rows:
            self.by_key[tuple(row[key] for key in self.keys)].append(row)
        self._by_field: dict[str, dict[Any, list[int]]] = {}

    def _read(self, table: pa.Table, renamed: dict[str, str]) -> list[Row]:
        columns = {}
        for field in self.fields:
            raw = renamed.get(field, field)
            if raw not in table.column_names:
                columns[field] = [None] * table.num_rows
                continue
            column = table[raw]
            if field == self.definition["source"].get("timestamp_field"):
                columns["__is_timestamp"] = [pa.types.is_timestamp(column.type)] * table.num_rows
            if pa.types.is_timestamp(column.type):
                column = column.cast(pa.timestamp("us")).cast(pa.int64())
            columns[field] = column.to_pylist()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def by_field(self, field: str) -> dict[Any, list[int]]:
        """The positions of the rows by the value of a field, in total order."""
        if field not in self._by_field:
            found = defaultdict(list)
            for index, row in enumerate(self.rows):
                found[row[field]].append(index)
            self._by_field[field] = found
        return self._by_field[field]


def _rank(value: Any) -> tuple[bool, bool, Any]:
    """NULLs first, NaN last."""
    nan = isinstance(value, float) and math.isnan(value)
    return (value is not None, nan, 0 if nan or value is None else value)


def _span_us(text: str | None) -> int | None:
    return None if text is None else int(text[:-1]) * SPANS[text[-1]] * 1_000_000


def _condition(text: str | None) -> Callable[[Row], bool]:
    """`hist.a = 'x'` or `hist.a IN ('x', 'y')`."""
    if text is None:
        return lambda _: True
    match = re.fullmatch(r"hist\.(\w+) (?:= '(\w[\w-]*)'|IN \(('[^)]*')\))", text)
    assert match, text
    column, one, many = match.groups()
    values = {one} if one else {part.strip().strip("'") for part in many.split(",")}
    return lambda row: row[column] in values
