"""What the features are: entities, views and services as frozen descriptions.

Nothing here reads a file or a source. The loader builds these objects from YAML, once, at the edge; below it
there are no raw mappings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

SECONDS_PER_DAY = 86_400
#: `YYYY-MM-DD[.N]`: the day of a contract, and a number where one day has several.
VERSION = re.compile(r"(\d{4}-\d{2}-\d{2})(\.[1-9]\d{0,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityKey:
    """One join key of an entity and its dtype, a DuckDB type name."""

    name: str
    dtype: str = "BIGINT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A thing that features describe (a user, an artwork) and the keys that identify it everywhere."""

    name: str
    keys: tuple[EntityKey, ...]
    description: str = ""

    @property
    def join_keys(self) -> list[str]:
        """The names of the keys, in order."""
        return [key.name for key in self.keys]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDef:
    """One field of a view, under its canonical name.

    Attributes:
        dtype: a DuckDB type name in canonical spelling (`BIGINT`, `FLOAT[1152]`, `HALF_FLOAT`, ...).
        nullable: False states that the source never holds NULL; a NULL found is an error.
        optional: True lets the source lack the column; the field is then NULL (or a contract's default).
    """

    name: str
    dtype: str
    description: str = ""
    nullable: bool = True
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSourceDef:
    """Where a view's rows live. The fields that are set choose the backend; `path` wins.

    Attributes:
        path: a Parquet file, a directory (recursive hive glob), a glob, or an object-store URL.
        database_path: a database or lake, by scheme; goes with `table_name` or `query`.
        timestamp_field: the event time; canonical name. Empty for a view without time.
        timestamp_unit: unit of an integer `timestamp_field`: `s`, `ms`, `us` or `ns`.
        created_field: when the row became known, canonical name; empty when not recorded.
        sequence_field: a tie-break within equal times, canonical name; empty when not recorded.
        data_path: where a lake keeps its data files.
        snapshot_version: the lake's snapshot to read; None is the newest.
        snapshot_as_of: the instant whose snapshot to read, ISO text; empty is the newest.
        credentials: connection settings, (key, value) pairs; secrets are `${ENV}` references, unresolved.
    """

    path: str = ""
    database_path: str = ""
    table_name: str = ""
    query: str = ""
    timestamp_field: str = ""
    timestamp_unit: str = "ms"
    created_field: str = ""
    sequence_field: str = ""
    data_path: str = ""
    snapshot_version: int | None = None
    snapshot_as_of: str = ""
    credentials: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureViewDef:
    """A named relation of features, one row per entity and instant (or one per entity, without a time).

    Attributes:
        entities: what the rows are keyed on; the join keys come from here, never from the view.
        fields: every declared field, in file order; keys and time field are always among them.
        ttl_seconds: how long a value stays valid; None is for ever.
        delay_seconds: how long data takes to arrive, for `asof` lookups.
        field_mapping: (source column, canonical name) pairs.
        file: where the definition was read, for messages.
    """

    name: str
    entities: tuple[Entity, ...]
    fields: tuple[FieldDef, ...]
    source: DataSourceDef
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    ttl_seconds: float | None = None
    online: bool = False
    delay_seconds: float = 0.0
    field_mapping: tuple[tuple[str, str], ...] = ()
    file: str = ""

    @property
    def features(self) -> tuple[FieldDef, ...]:
        """The declared fields (the product documents' name for them)."""
        return self.fields

    @property
    def join_keys(self) -> list[str]:
        """The keys of all its entities, in order, each once."""
        return list(dict.fromkeys(key for entity in self.entities for key in entity.join_keys))

    @property
    def timestamp_field(self) -> str:
        """The event-time field, or an empty string."""
        return self.source.timestamp_field

    def has_field(self, name: str) -> bool:
        """Whether the view declares `name`."""
        return any(field.name == name for field in self.fields)

    def field(self, name: str) -> FieldDef:
        """The field called `name`; KeyError when there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)


class JoinMode(StrEnum):
    """How a view's rows are looked up from the spine."""

    LATEST = "latest"
    ASOF = "asof"


@dataclass(frozen=True, slots=True, order=True)
class FeatureColumnRef:
    """A reference `namespace:column`; the namespace is a view, an alias, or one of `COMPUTED_NAMESPACES`.

    >>> FeatureColumnRef.parse("user_profile:user_age")
    FeatureColumnRef(view='user_profile', column='user_age')
    >>> str(FeatureColumnRef("rolling", "like_artwork_ids_7d"))
    'rolling:like_artwork_ids_7d'
    """

    view: str
    column: str

    @classmethod
    def parse(cls, text: str) -> FeatureColumnRef:
        """Parse `view:column`; ValueError when the text is anything else."""
        view, colon, column = text.partition(":")
        view, column = view.strip(), column.strip()
        if not colon or not view or not column or ":" in column:
            raise ValueError(f"expected view:column, got {text!r}")
        return cls(view, column)

    def __str__(self) -> str:
        return f"{self.view}:{self.column}"


#: Namespaces of columns that a service computes rather than reads; no view or alias may use these names.
COMPUTED_NAMESPACES = ("rolling", "lookback", "embedding", "age", "derived")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewJoin:
    """A view as a service uses it.

    Attributes:
        alias: the name under which columns refer to it; the view's own name unless one view plays two roles.
        on: (spine column, view join key) pairs; empty joins on the keys' own names.
    """

    view: str
    alias: str
    join: JoinMode = JoinMode.LATEST
    on: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookback:
    """The newest items of a view that first appeared in `[t - window, t)`, as a list, oldest first.

    Attributes:
        on: (spine column, view field) pairs that must be equal.
        value_column: the view field whose values are listed, each once, at its first appearance.
        window_days: None is the whole past.
        max_items: None keeps all.
    """

    name: str
    view: str
    on: tuple[tuple[str, str], ...]
    value_column: str
    window_days: float | None = None
    max_items: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeColumn:
    """Whole days from a creation time to the spine row's event: `floor(seconds / 86400)`, int64."""

    name: str
    created: FeatureColumnRef


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlStep:
    """A named SQL expression over assembled columns: a derived column, a curation or a content filter.

    Attributes:
        column: the column that the expression makes or rewrites; empty for a filter, which is a predicate.
    """

    name: str
    sql: str
    column: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which whole sessions to drop, judged on the target day's rows.

    Attributes:
        session_column: the spine column that names the session.
        view_events: event values that count as only looking.
        like_events: event values that count as a like.
        drop_view_only: drop sessions in which every row is a view event.
        drop_single_like: drop sessions with exactly one like and otherwise only view events.
    """

    session_column: str
    event_column: str
    view_events: tuple[str, ...]
    like_events: tuple[str, ...]
    drop_view_only: bool = False
    drop_single_like: bool = False


class Unset(Enum):
    """Marks a default that was not given, where None is a value of its own."""

    UNSET = "unset"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceColumn:
    """One column of a service's ordered contract.

    Attributes:
        name: the output name.
        ref: where it comes from; None for a column that only has a default.
        dtype: the contract's dtype, canonical spelling; None takes the source's.
        dimension: fixed list length (`shape.dimension`), or None.
        default: the literal for an absent optional field (and for NULL, when not nullable), or `Unset.UNSET`.
        default_sql: a typed placeholder expression, or None.
        nullable: False fills a NULL with `default`.
    """

    name: str
    ref: FeatureColumnRef | None = None
    dtype: str | None = None
    dimension: int | None = None
    default: Any = Unset.UNSET
    default_sql: str | None = None
    nullable: bool = True


class OnlineRolling(StrEnum):
    """Where the online values of rolling features come from."""

    MATERIALIZED = "materialized"
    EVENTS = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureServiceDef:
    """The column-level contract of one model: which views it joins, what it computes, what it outputs.

    Attributes:
        version: `YYYY-MM-DD[.N]`.
        spine: the view whose rows become training rows.
        grain: the spine columns that say what one row is; documentation and checks, never a deduplication.
        views: the joined views, in file order.
        static_columns: view columns joined to the whole spine before rolling, for specs to group by or list.
        aggregation_specs: rolling specs defined by the service itself, beside those of `aggregations.yaml`.
        session_column: the spine column that qid numbers; empty when the spine has no sessions.
        columns: the ordered contract; empty takes `output_columns` of `runtime.yaml`.
        online_rolling: what rolling features are online: of the last materialization, or computed from events.
    """

    name: str
    version: str
    spine: str
    owner: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    grain: tuple[str, ...] = ()
    serving_allowed: bool = False
    views: tuple[ViewJoin, ...] = ()
    static_columns: tuple[FeatureColumnRef, ...] = ()
    aggregation_specs: tuple[Any, ...] = ()
    lookbacks: tuple[Lookback, ...] = ()
    age_columns: tuple[AgeColumn, ...] = ()
    derived: tuple[SqlStep, ...] = ()
    session_column: str = ""
    session_filter: SessionFilter | None = None
    curation: tuple[SqlStep, ...] = ()
    content_filter: tuple[SqlStep, ...] = ()
    columns: tuple[ServiceColumn, ...] = ()
    online_rolling: OnlineRolling = OnlineRolling.MATERIALIZED
    file: str = ""
