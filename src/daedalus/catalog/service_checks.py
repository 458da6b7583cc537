"""Whether what a service refers to exists, fits and has one name; all problems, each at its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import DEFAULT_TIMESTAMP_COLUMN
from daedalus.catalog.contract_checks import Doubts, check_columns
from daedalus.catalog.dtypes import (
    canonical_dtype,
    is_integer,
    is_list,
    is_time,
    joinable,
    storable,
    to_duckdb,
)
from daedalus.catalog.model import COMPUTED_NAMESPACES, FeatureColumnRef, JoinMode
from daedalus.catalog.services import ServiceColumns, expression_dtype, view_columns
from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.contents import CatalogContents
    from daedalus.catalog.model import FeatureViewDef, Lookback, SqlStep
    from daedalus.catalog.service_reader import ReadService
    from daedalus.catalog.services import Assembled


def check_service(
    read: ReadService, catalog: CatalogContents, *, broken: Collection[str], rolling: Mapping[str, str]
) -> None:
    """Note every problem of a service's references.

    Args:
        read: the service and the file it came from.
        catalog: every view that could be read.
        broken: names of views with problems of their own; what refers to them is not judged.
        rolling: rolling columns of the project, name to dtype (empty when unknown).
    """
    _Checks(read, catalog, broken, rolling).run()


class _Checks:
    """The checks of one service, in the order of the file's keys."""

    def __init__(
        self, read: ReadService, catalog: CatalogContents, broken: Collection[str], rolling: Mapping[str, str]
    ) -> None:
        self.read = read
        self.section = read.section
        self.service = read.service
        self.catalog = catalog
        self.broken = set(broken)
        self.doubts = Doubts.of(read, catalog, broken)
        named = {c.ref.column: "" for c in self.service.columns if c.ref and c.ref.view == "rolling"}
        own = {spec.name for spec in self.service.aggregation_specs}
        self.rolling = {name: dtype for name, dtype in (named | dict(rolling)).items() if name not in own}

    def run(self) -> None:
        spine = self.view(self.service.spine, "spine")
        self.joins(spine)
        if spine is not None:
            self.spine_columns(spine)
        self.lookbacks(spine)
        self.names()
        self.specs()
        columns = ServiceColumns.of(self.service, self.catalog, rolling=self.rolling)
        self.refs(columns)
        self.expressions(columns)
        check_columns(self.read, columns, self.doubts)

    def view(self, name: str, *steps: str | int) -> FeatureViewDef | None:
        """The view of that name; None, and noted, when there is none."""
        if name and name not in self.catalog.views and name not in self.broken:
            hint = did_you_mean(name, self.catalog.views)
            self.section.problem(f"unknown view {name!r}", *steps, hint=hint)
        return None if name in self.broken else self.catalog.views.get(name)

    # ------------------------------------------------------------------ spine and joins

    def spine_columns(self, spine: FeatureViewDef) -> None:
        names = [field.name for field in spine.fields]
        if not spine.timestamp_field:
            hint = "A spine is a view of events: give its source a timestamp_field."
            self.section.problem(f"the spine {spine.name} has no time", "spine", hint=hint)
        wanted: list[tuple[str, tuple[str | int, ...]]] = [
            (name, ("grain", index)) for index, name in enumerate(self.service.grain)
        ]
        wanted.append((self.service.session_column, ("session_column",)))
        if rules := self.service.session_filter:
            wanted.append((rules.session_column, ("session_filter", "session_column")))
            wanted.append((rules.event_column, ("session_filter", "event_column")))
        for name, steps in wanted:
            if name and name not in names:
                what = f"the spine {spine.name} has no column {name!r}"
                self.section.problem(what, *steps, hint=did_you_mean(name, names))

    def joins(self, spine: FeatureViewDef | None) -> None:
        taken: set[str] = {self.service.spine}
        for position, join in enumerate(self.service.views):
            place = self.read.place("views", position)
            if join.alias in taken:
                what = f"{join.alias!r} stands twice among spine and views"
                self.section.problem(what, *place, hint="Give one of them an alias.")
            taken.add(join.alias)
            view = self.view(join.view, *place, "view")
            if view is None:
                continue
            if join.join is JoinMode.ASOF and not view.timestamp_field:
                hint = "Give its source a timestamp_field, or use join: latest."
                self.section.problem(f"{view.name} has no time to join as of", *place, "join", hint=hint)
            if spine is not None:
                self.keys(spine, view, join.on, *place)

    def keys(
        self, spine: FeatureViewDef, view: FeatureViewDef, on: tuple[tuple[str, str], ...], *place: str | int
    ) -> None:
        """The pairs must map every join key of the view, once, to a spine column that can equal it."""
        pairs = on or tuple((key, key) for key in view.join_keys)
        mapped = [key for _, key in pairs]
        for column, key in pairs:
            if key not in view.join_keys:
                hint = f"Write spine column: view key. {did_you_mean(key, view.join_keys)}"
                self.section.problem(
                    f"{key!r} is no join key of {view.name}", *place, "on", column, hint=hint
                )
            elif not spine.has_field(column):
                names = [field.name for field in spine.fields]
                hint = did_you_mean(column, names) if on else f"Write on: {{spine column: {key}}}."
                steps = (*place, "on", column) if on else place
                self.section.problem(f"the spine {spine.name} has no column {column!r}", *steps, hint=hint)
            else:
                self.joinable(spine.field(column).dtype, view.field(key).dtype, f"{column} and {key}", *place)
        for key in view.join_keys:
            if on and mapped.count(key) != 1 and set(mapped) <= set(view.join_keys):
                times = "is not mapped" if key not in mapped else "is mapped twice"
                self.section.problem(f"the join key {key!r} of {view.name} {times}", *place, "on")

    def joinable(self, left: str, right: str, names: str, *place: str | int) -> None:
        if left and right and not joinable(left, right):
            hint = "Declare both sides with one dtype that is no float."
            self.section.problem(f"{names} cannot be joined: {left} and {right}", *place, hint=hint)

    # ------------------------------------------------------------------ names

    def names(self) -> None:
        """Computed columns have names of their own; curations and filters too, among themselves."""
        taken = dict.fromkeys((name.lower() for name in view_columns(self.service, self.catalog)), "a column")
        for key, label in (
            ("aggregation_specs", "a rolling column"),
            ("lookbacks", "a lookback"),
            ("age_columns", "an age column"),
            ("derived", "a derived column"),
        ):
            parts = getattr(self.service, key)
            for position, part in enumerate(parts):
                known = taken.get(part.name.lower())
                if known is not None or part.name in self.rolling:
                    what = f"the name {part.name!r} is taken by {known or 'a rolling column'}"
                    self.section.problem(what, *self.read.place(key, position), hint="Choose another name.")
                taken[part.name.lower()] = label
        for key in ("curation", "content_filter"):
            seen: set[str] = set()
            for position, part in enumerate(getattr(self.service, key)):
                if part.name.lower() in seen:
                    what = f"the name {part.name!r} stands twice in {key}"
                    self.section.problem(what, *self.read.place(key, position), "name")
                seen.add(part.name.lower())

    # ------------------------------------------------------------------ computed columns

    def lookbacks(self, spine: FeatureViewDef | None) -> None:
        for position, lookback in enumerate(self.service.lookbacks):
            place = self.read.place("lookbacks", position)
            view = self.view(lookback.view, *place, "view")
            if view is not None:
                self.lookback(lookback, view, spine, *place)

    def lookback(
        self, lookback: Lookback, view: FeatureViewDef, spine: FeatureViewDef | None, *place: str | int
    ) -> None:
        names = [field.name for field in view.fields]
        if not view.timestamp_field:
            self.section.problem(f"{view.name} has no time to look back over", *place, "view")
        if lookback.value_column not in names:
            what = f"{view.name} has no column {lookback.value_column!r}"
            self.section.problem(
                what, *place, "value_column", hint=did_you_mean(lookback.value_column, names)
            )
        elif (dtype := view.field(lookback.value_column).dtype) and is_list(dtype):
            self.section.problem(f"{lookback.value_column} is a list already", *place, "value_column")
        for column, other in lookback.on:
            if other not in names:
                hint = f"Write spine column: {view.name} column. {did_you_mean(other, names)}"
                self.section.problem(f"{view.name} has no column {other!r}", *place, "on", column, hint=hint)
            elif spine is not None and not spine.has_field(column):
                hint = did_you_mean(column, [field.name for field in spine.fields])
                what = f"the spine {spine.name} has no column {column!r}"
                self.section.problem(what, *place, "on", column, hint=hint)
            elif spine is not None:
                left, right = spine.field(column).dtype, view.field(other).dtype
                self.joinable(left, right, f"{column} and {other}", *place, "on", column)

    def specs(self) -> None:
        columns = {name: dtype for name, (_, dtype) in self.history_columns().items()}
        for position, spec in enumerate(self.service.aggregation_specs):
            self.spec(spec, columns, *self.read.place("aggregation_specs", position))

    def history_columns(self) -> Assembled:
        """What a spec sees: the spine's columns, and the static ones."""
        static = {*self.service.static_columns}
        spine = self.service.spine
        found = view_columns(self.service, self.catalog)
        return {name: pair for name, pair in found.items() if pair[0].view == spine or pair[0] in static}

    def spec(self, spec: AggregationSpec, columns: Mapping[str, str], *place: str | int) -> None:
        history = columns
        if spec.history_view is not None:
            view = self.view(spec.history_view, *place, "history_view")
            if view is None:
                return
            history = {field.name: field.dtype for field in view.fields}
        keys = "group_by" if spec.history_group_by is None else "history_group_by"
        wanted = [("group_by", name, columns) for name in spec.group_by]
        wanted += [(keys, name, history) for name in spec.history_keys]
        if spec.timestamp_column != DEFAULT_TIMESTAMP_COLUMN:
            wanted.append(("timestamp_column", spec.timestamp_column, columns))
        if spec.history_timestamp_column is not None:
            wanted.append(("history_timestamp_column", spec.history_timestamp_column, history))
        if spec.value_column is not None:
            wanted.append(("value_column", spec.value_column, history))
        seen: set[str] = set()
        for key, name, known in wanted:
            if name not in known and name not in seen and not self.doubts:
                seen.add(name)
                of_view = f" of view {spec.history_view}" if known is not columns else ""
                what = f"spec {spec.name}: unknown column {name!r}{of_view}"
                mend = "" if of_view else "Columns of joined views must stand in static_columns."
                hint = f"{did_you_mean(name, known)} {mend}".strip()
                self.section.problem(what, *place, key, hint=hint)
        if spec.condition is not None:
            self.condition(spec.condition, history, *place, "condition")

    def condition(self, sql: str, columns: Mapping[str, str], *place: str | int) -> None:
        from daedalus.sql.fragments import parse_fragment, require_boolean

        where = self.section.where(*place)
        try:
            fragment = parse_fragment(sql, columns=columns, where=where, qualifier="hist")
            if all(columns[name] for name in fragment.columns):
                types = {name: to_duckdb(columns[name]) for name in fragment.columns}
                require_boolean(fragment, types, where)
        except DefinitionError as exc:
            self.relay(exc)

    def relay(self, error: DefinitionError) -> None:
        """Note the error of an expression, unless what it misses may be what could not be read."""
        unknown = error.what.startswith("unknown column")
        if not (unknown and self.doubts):
            self.section.relay(error)

    def refs(self, columns: ServiceColumns) -> None:
        for position, ref in enumerate(self.service.static_columns):
            place = self.read.place("static_columns", position)
            if ref.view in COMPUTED_NAMESPACES or ref.view == self.service.spine:
                hint = "Only columns of joined views are joined before rolling."
                self.section.problem(f"{str(ref)!r} is not a joined view's column", *place, hint=hint)
            else:
                self.resolve(columns, ref, *place)
        for position, age in enumerate(self.service.age_columns):
            self.age(columns, age.created, *self.read.place("age_columns", position), "created")

    def age(self, columns: ServiceColumns, created: FeatureColumnRef, *place: str | int) -> None:
        if created.view in COMPUTED_NAMESPACES:
            self.section.problem(f"{str(created)!r} is not a view's column", *place)
            return
        dtype = self.resolve(columns, created, *place)
        if dtype and not (is_time(dtype) or is_integer(dtype)):
            what = f"{str(created)!r} is {dtype}, not a time"
            self.section.problem(what, *place, hint="Name a TIMESTAMP or DATE column.")

    def resolve(self, columns: ServiceColumns, ref: FeatureColumnRef, *place: str | int) -> str:
        """The dtype of a reference; empty, and noted, when it does not resolve."""
        try:
            return columns.resolve(ref).dtype
        except DefinitionError as exc:
            if not self.doubts.excuse(ref):
                self.section.relay(exc, *place)
            return ""

    # ------------------------------------------------------------------ expressions

    def expressions(self, columns: ServiceColumns) -> None:
        known = dict(columns.assembled)
        derived = [step.name for step in self.service.derived]
        for name in derived:
            known.pop(name, None)
        for position, step in enumerate(self.service.derived):
            self.expression(step, known, *self.read.place("derived", position), "sql")
            # A derived column may read those above it.
            known[step.name] = columns.assembled[step.name]
        for position, step in enumerate(self.service.curation):
            place = self.read.place("curation", position)
            dtype = self.expression(step, known, *place, "sql")
            self.rewritten(step, dtype, known, *place)
        for position, step in enumerate(self.service.content_filter):
            place = self.read.place("content_filter", position)
            self.expression(step, known, *place, "sql", check=_boolean)

    def rewritten(self, step: SqlStep, dtype: str, known: Assembled, *place: str | int) -> None:
        """A curation rewrites a column that is there, with values it can hold."""
        if step.column not in known and self.doubts:
            return
        if step.column not in known:
            hint = f"{did_you_mean(step.column, known)} A new column goes under derived."
            self.section.problem(f"unknown column {step.column!r}", *place, "column", hint=hint)
            return
        target = known[step.column][1]
        if dtype and target and not storable(dtype, target):
            hint = f"Cast it: CAST(... AS {to_duckdb(target)})."
            self.section.problem(
                f"the expression is {dtype}, but {step.column} is {target}", *place, "sql", hint=hint
            )

    def expression(
        self, step: SqlStep, known: Assembled, *place: str | int, check: Callable[[str], str] | None = None
    ) -> str:
        """Check one expression; its dtype, or an empty text when that is not known."""
        from daedalus.sql.fragments import parse_fragment

        where = self.section.where(*place)
        try:
            fragment = parse_fragment(step.sql, columns=known, where=where)
            dtype = expression_dtype(fragment, known, where=where)
        except DefinitionError as exc:
            self.relay(self.with_rolling_hint(exc))
            return ""
        if dtype and check is not None and (what := check(canonical_dtype(dtype))):
            self.section.problem(what, *place, hint="Compare with a value.")
        return dtype

    @staticmethod
    def with_rolling_hint(error: DefinitionError) -> DefinitionError:
        if not error.what.startswith("unknown column"):
            return error
        hint = f"{error.hint} A rolling column must stand in columns, as rolling:name.".strip()
        return DefinitionError(error.what, where=error.where, hint=hint)


def _boolean(dtype: str) -> str:
    return "" if dtype == "BOOLEAN" else f"a content filter is a condition, but this is {dtype}"
