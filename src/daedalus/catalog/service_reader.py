"""Feature services out of YAML: the shape of the file; `service_checks` judges what it refers to."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daedalus.catalog.aggregation import AggregationSpec
from daedalus.catalog.dtypes import is_list, list_size
from daedalus.catalog.entities import read_dtype
from daedalus.catalog.model import (
    COMPUTED_NAMESPACES,
    VERSION,
    AgeColumn,
    FeatureColumnRef,
    FeatureServiceDef,
    JoinMode,
    Lookback,
    OnlineRolling,
    ServiceColumn,
    SessionFilter,
    SqlStep,
    Unset,
    ViewJoin,
)
from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from daedalus.catalog.sections import Section

_KEYS = (
    "name",
    "version",
    "owner",
    "description",
    "tags",
    "spine",
    "grain",
    "serving_allowed",
    "views",
    "static_columns",
    "aggregation_specs",
    "lookbacks",
    "age_columns",
    "derived",
    "session_column",
    "session_filter",
    "curation",
    "content_filter",
    "columns",
    "online",
)
_COLUMN_KEYS = ("name", "ref", "dtype", "shape", "default", "default_sql", "nullable")


@dataclass(slots=True, kw_only=True)
class ReadService:
    """A service with the file it came from, so that checks can point at its parts.

    Attributes:
        places: per key of the file, the item numbers of the parts that could be read.
    """

    section: Section
    service: FeatureServiceDef
    places: dict[str, list[int]] = field(default_factory=dict)

    @property
    def lost(self) -> set[str]:
        """Keys under which a part could not be read, so that references to it are not to blame."""
        written = {key: self.section.raw(key) for key in self.places}
        return {
            key
            for key, value in written.items()
            if value is not None and not (isinstance(value, list) and len(value) == len(self.places[key]))
        }

    def place(self, key: str, position: int) -> tuple[str, int]:
        """The path of the part that stands at `position` in the service."""
        return key, self.places[key][position]


def read_service(section: Section) -> ReadService | None:
    """The service that a file describes, as far as it can be read; None without a name."""
    name = section.name("name")
    section.subject = f"service {name}" if name else ""
    section.allow(_KEYS)
    places: dict[str, list[int]] = {}
    service = FeatureServiceDef(
        name=name or "?",
        version=_version(section),
        spine=section.text("spine", required=True),
        owner=section.text("owner"),
        description=section.text("description"),
        tags=section.texts("tags"),
        grain=section.texts("grain"),
        serving_allowed=section.boolean("serving_allowed"),
        views=_listed(section, "views", places, _view_join, short=lambda text: {"view": text}),
        static_columns=_refs(section, "static_columns", places),
        aggregation_specs=_specs(section, places),
        lookbacks=_listed(section, "lookbacks", places, _lookback),
        age_columns=_listed(section, "age_columns", places, _age_column),
        derived=_listed(section, "derived", places, _derived),
        session_column=section.text("session_column"),
        session_filter=_session_filter(section),
        curation=_listed(section, "curation", places, _curation),
        content_filter=_listed(section, "content_filter", places, _filter),
        columns=_listed(section, "columns", places, _column, short=lambda text: {"ref": text}),
        online_rolling=_online(section),
        file=section.document.file,
    )
    return ReadService(section=section, service=service, places=places) if name else None


def _listed(
    section: Section, key: str, places: dict[str, list[int]], read: Any, *, short: Any = None
) -> tuple[Any, ...]:
    """The parts of a list that can be read, their positions noted in `places`."""
    found = []
    places[key] = []
    for item in section.sections(key, short=short):
        part = read(item)
        if part is not None:
            found.append(part)
            places[key].append(int(item.steps[-1]))
    return tuple(found)


def _version(section: Section) -> str:
    version = section.text("version", required=True)
    match = VERSION.fullmatch(version)
    try:
        if version and match is None:
            raise ValueError
        if match is not None:
            dt.date.fromisoformat(match[1])
    except ValueError:
        hint = 'Write the day of the contract, and a number when one day has several: "2026-06-27.2".'
        section.problem(f"the version {version!r} is not YYYY-MM-DD or YYYY-MM-DD.N", "version", hint=hint)
    return version


def _view_join(item: Section) -> ViewJoin | None:
    item.allow(("view", "alias", "join", "on"))
    view = item.text("view", required=True)
    alias = item.name("alias", required=False) or view
    mode = item.choice("join", [str(mode) for mode in JoinMode], JoinMode.LATEST.value)
    if alias in COMPUTED_NAMESPACES:
        item.problem(f"the alias {alias!r} is reserved for computed columns", "alias", hint="Choose another.")
    pairs = item.pairs("on")
    return ViewJoin(view=view, alias=alias, join=JoinMode(mode), on=pairs) if view else None


def read_ref(section: Section, value: Any, *steps: str | int) -> FeatureColumnRef | None:
    """A `view:column` reference; None (and noted) when the value is none."""
    try:
        if not isinstance(value, str):
            raise ValueError
        return FeatureColumnRef.parse(value)
    except ValueError:
        section.problem(f"expected view:column, got {value!r}", *steps)
        return None


def _refs(section: Section, key: str, places: dict[str, list[int]]) -> tuple[FeatureColumnRef, ...]:
    found: list[FeatureColumnRef] = []
    places[key] = []
    for index, item in section.items(key):
        ref = read_ref(section, item, key, index)
        if ref in found:
            section.problem(f"{str(ref)!r} stands twice in {key}", key, index)
        elif ref is not None:
            found.append(ref)
            places[key].append(index)
    return tuple(found)


def _specs(section: Section, places: dict[str, list[int]]) -> tuple[AggregationSpec, ...]:
    found: list[AggregationSpec] = []
    places["aggregation_specs"] = []
    for item in section.sections("aggregation_specs"):
        try:
            found.append(AggregationSpec.from_mapping(item.value))
        except DefinitionError as exc:
            for problem in exc.problems or (exc,):
                # The spec's own place becomes part of the sentence: the file and path come first.
                item.problem(
                    ": ".join(part for part in (problem.where, problem.what) if part), hint=problem.hint
                )
            continue
        places["aggregation_specs"].append(int(item.steps[-1]))
    return tuple(found)


def _lookback(item: Section) -> Lookback | None:
    item.allow(("name", "view", "on", "value_column", "window_days", "max_items"))
    name = item.column_name("name")
    view = item.text("view", required=True)
    pairs = item.pairs("on", required=True)
    value = item.text("value_column", required=True)
    window = item.number("window_days", above=0)
    most = item.whole("max_items", least=1)
    if not (name and view and pairs and value):
        return None
    return Lookback(name=name, view=view, on=pairs, value_column=value, window_days=window, max_items=most)


def _age_column(item: Section) -> AgeColumn | None:
    item.allow(("name", "created"))
    name = item.column_name("name")
    if not item.has("created"):
        item.problem("created is missing", hint="Write created: view:column.")
        return None
    ref = read_ref(item, item.raw("created"), "created")
    return AgeColumn(name=name, created=ref) if name and ref is not None else None


def _step(item: Section, keys: tuple[str, ...]) -> SqlStep | None:
    item.allow(keys)
    name = item.name("name")
    sql = item.text("sql", required=True)
    column = item.text("column", required=True) if "column" in keys else ""
    if not name or not sql or ("column" in keys and not column):
        return None
    return SqlStep(name=name, sql=sql, column=column)


def _derived(item: Section) -> SqlStep | None:
    item.allow(("name", "sql"))
    name = item.column_name("name")
    sql = item.text("sql", required=True)
    return SqlStep(name=name, sql=sql, column=name) if name and sql else None


def _curation(item: Section) -> SqlStep | None:
    return _step(item, ("name", "column", "sql"))


def _filter(item: Section) -> SqlStep | None:
    return _step(item, ("name", "sql"))


def _online(section: Section) -> OnlineRolling:
    item = section.section("online")
    if item is None:
        return OnlineRolling.MATERIALIZED
    item.allow(("rolling",))
    known = [str(one) for one in OnlineRolling]
    return OnlineRolling(item.choice("rolling", known, OnlineRolling.MATERIALIZED.value))


def _session_filter(section: Section) -> SessionFilter | None:
    item = section.section("session_filter")
    if item is None:
        return None
    item.allow(
        ("session_column", "event_column", "view_events", "like_events", "drop_view_only", "drop_single_like")
    )
    session = item.text("session_column") or section.text("session_column")
    if not session:
        item.problem("session_column is missing", hint="Name the spine column that holds the session.")
    likes_needed = item.boolean("drop_single_like")
    event = item.text("event_column", required=True)
    views = item.texts("view_events", required=True)
    likes = item.texts("like_events", required=likes_needed)
    if not (session and event and views):
        return None
    return SessionFilter(
        session_column=session,
        event_column=event,
        view_events=views,
        like_events=likes,
        drop_view_only=item.boolean("drop_view_only"),
        drop_single_like=likes_needed,
    )


def _column(item: Section) -> ServiceColumn | None:
    item.allow(_COLUMN_KEYS)
    ref = read_ref(item, item.raw("ref"), "ref") if item.has("ref") else None
    name = item.column_name("name", required=not item.has("ref")) or (ref.column if ref is not None else "")
    dtype = read_dtype(item, "dtype") if item.has("dtype") else ""
    default = item.raw("default") if item.given("default") else Unset.UNSET
    nullable = item.boolean("nullable", default=True)
    if item.given("default") and item.has("default_sql"):
        item.problem("default and default_sql are both given", "default_sql", hint="Keep one of them.")
    if not nullable and (default is Unset.UNSET or default is None):
        hint = "Write default: 0 (or another literal): it replaces NULL."
        item.problem("nullable: false needs a default that is not null", "nullable", hint=hint)
    dimension = _dimension(item, dtype)
    if not name or (item.has("ref") and ref is None):
        return None
    return ServiceColumn(
        name=name,
        ref=ref,
        dtype=dtype or None,
        dimension=dimension,
        default=default,
        default_sql=item.text("default_sql") or None,
        nullable=nullable,
    )


def _dimension(item: Section, dtype: str) -> int | None:
    fixed = list_size(dtype) if dtype else None
    shape = item.section("shape")
    if shape is None:
        return fixed
    shape.allow(("dimension",))
    dimension = shape.whole("dimension", least=1)
    if not shape.has("dimension") and isinstance(shape.value, dict):
        shape.problem("dimension is missing", hint="Write shape: {dimension: 1152}.")
    if dtype and not is_list(dtype):
        shape.problem(f"{dtype} has no shape: only lists have", hint="Remove shape.")
    elif fixed is not None and dimension not in {None, fixed}:
        shape.problem(
            f"shape says {dimension} items, but {dtype} has {fixed}", "dimension", hint="Make them equal."
        )
    return dimension or fixed
