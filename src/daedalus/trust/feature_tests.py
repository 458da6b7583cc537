"""Unit tests of features: events in, expected values out, as YAML.

    service: ranking
    target_date: 2026-05-02
    defaults: {events: {event: like}}
    tests:
      - name: a like counts from the next instant on
        rows:
          events:
            - {ts: "2026-05-02 10:00", user_id: 1, item_id: 7}
            - {ts: "2026-05-02 11:00", user_id: 1, item_id: 8}
        expect:
          - {where: {item_id: 8}, values: {liked: [7]}}

Each test runs the service's pipeline, hand-edited or compiled, over the rows that it gives, and nothing else.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.catalog.yaml_reader import read_yaml
from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from daedalus.catalog.yaml_reader import Document, Steps

FOLDER = "feature_tests"
_FILE_KEYS = ("service", "target_date", "defaults", "tests")
_TEST_KEYS = ("name", "target_date", "rows", "expect", "row_count")
_EXPECT_KEYS = ("where", "values", "absent")

Rows = tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What rows of the output must hold.

    Attributes:
        where: output columns and the values that pick the rows; at least one row must be picked.
        values: output columns and what they must be.
        absent: no row may be picked: a filter drops it.
        place: file and path, for messages.
    """

    where: Mapping[str, Any]
    values: Mapping[str, Any]
    absent: bool = False
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTest:
    """One test.

    Attributes:
        day: the target day that is made.
        rows: by view; views that are not named have none.
        row_count: how many rows the day must have; None does not say.
    """

    name: str
    service: str
    day: dt.date
    rows: Mapping[str, Rows]
    expect: tuple[Expectation, ...]
    row_count: int | None = None
    file: str = ""
    place: str = ""


def load_feature_tests(files: Iterable[Path]) -> tuple[FeatureTest, ...]:
    """The tests of these files, in order.

    Raises:
        DefinitionError: with every problem of all files, each with its file, line and path.
    """
    problems: list[DefinitionError] = []
    tests: list[FeatureTest] = []
    for file in files:
        document = read_yaml(file, file=f"{file.parent.name}/{file.name}")
        reader = _Reader(document)
        tests += reader.tests()
        problems += [*document.problems, *reader.problems]
    if problems:
        raise DefinitionError.gather(problems)
    return tuple(tests)


class _Reader:
    """One file."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.problems: list[DefinitionError] = []

    def _note(self, steps: Steps, what: str, hint: str = "") -> None:
        self.problems.append(DefinitionError(what, where=self._document.locate(steps), hint=hint))

    def _mapping(self, value: Any, steps: Steps, known: tuple[str, ...] = ()) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._note(steps, "expected a mapping of keys")
            return {}
        for key in value:
            if known and key not in known:
                self._note((*steps, key), f"unknown key {key!r}", did_you_mean(key, known))
        return value

    def _list(self, value: Any, steps: Steps) -> list[Any]:
        if isinstance(value, list):
            return value
        self._note(steps, "expected a list")
        return []

    def _text(self, body: dict[str, Any], key: str, steps: Steps) -> str:
        value = body.get(key)
        if isinstance(value, str) and value.strip():
            return value
        self._note(steps, f"{key} is missing" if value is None else f"{key} is {value!r}, not a text")
        return ""

    def _day(self, value: Any, steps: Steps) -> dt.date:
        try:
            return dt.date.fromisoformat(str(value))
        except ValueError:
            self._note(steps, f"target_date is {value!r}, not YYYY-MM-DD")
            return dt.date(1970, 1, 1)

    def tests(self) -> list[FeatureTest]:
        """The tests; what is wrong is in `problems`."""
        if self._document.problems:
            return []
        body = self._mapping(self._document.tree, (), _FILE_KEYS)
        if not body:
            return []
        service = self._text(body, "service", ())
        defaults = self._mapping(body.get("defaults") or {}, ("defaults",))
        for view, values in defaults.items():
            self._mapping(values, ("defaults", view))
        found = [
            self._test(one, ("tests", index), service, body.get("target_date"), defaults)
            for index, one in enumerate(self._list(body.get("tests"), ("tests",)))
        ]
        names = [test.name for test in found]
        for index, name in enumerate(names):
            if name in names[:index]:
                self._note(("tests", index, "name"), f"a second test is called {name!r}")
        return found

    def _test(
        self, value: Any, steps: Steps, service: str, day: Any, defaults: Mapping[str, Any]
    ) -> FeatureTest:
        body = self._mapping(value, steps, _TEST_KEYS)
        count = body.get("row_count")
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            self._note((*steps, "row_count"), f"row_count is {count!r}, not a number of rows")
        expect = self._list(body.get("expect", [] if count is not None else None), (*steps, "expect"))
        return FeatureTest(
            name=self._text(body, "name", steps),
            service=service,
            day=self._day(body.get("target_date", day), steps),
            rows=self._rows(body.get("rows"), (*steps, "rows"), defaults),
            expect=tuple(self._expectation(one, (*steps, "expect", n)) for n, one in enumerate(expect)),
            row_count=count,
            file=self._document.file,
            place=self._document.locate(steps),
        )

    def _rows(self, value: Any, steps: Steps, defaults: Mapping[str, Any]) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for view, rows in self._mapping(value, steps).items():
            common = defaults.get(view)
            common = common if isinstance(common, dict) else {}
            found[view] = tuple(
                {**common, **self._mapping(row, (*steps, view, index))}
                for index, row in enumerate(self._list(rows, (*steps, view)))
            )
        return found

    def _expectation(self, value: Any, steps: Steps) -> Expectation:
        body = self._mapping(value, steps, _EXPECT_KEYS)
        absent = body.get("absent", False)
        if not isinstance(absent, bool):
            self._note((*steps, "absent"), f"absent is {absent!r}, not true or false")
        values = self._mapping(body.get("values") or {}, (*steps, "values"))
        if bool(values) is bool(absent):
            self._note(steps, "an expectation has either values or absent: true")
        return Expectation(
            where=self._mapping(body.get("where") or {}, (*steps, "where")),
            values=values,
            absent=absent is True,
            place=self._document.locate(steps),
        )
