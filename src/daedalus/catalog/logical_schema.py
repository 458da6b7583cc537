"""The logical schema of a service: what a model that reads it depends on, as plain data in one canonical shape.

In the contract, for a changed value would reach a model without any sign of it:

- the columns, in order: name, dtype, list dimension, whether NULL may appear, what fills an absent value, and the
  reference they come from;
- how computed columns are computed: rolling specs, lookbacks, ages, derived SQL, embeddings, with the columns and
  dtypes they read;
- which row of a view is looked up: join mode, keys, time fields, delay and ttl, for the views that are read (those of
  the spine, and the delay of a `latest` join, only decide what is materialized and served);
- which rows there are: spine, grain, session column and filter, curation, content filters;
- whether it may be served.

Beside the contract, kept so that a change can be named: owner, description, tags.

Not in it: where a source lies and what its columns are called there (a backend is swapped by configuration), fields
that the service does not read, names of steps, run settings; run records hold those. A default that can never fill
anything, a join mode without a time and a session filter that drops nothing are not written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daedalus.catalog.dtypes import canonical_dtype, element_dtype, is_list, list_size
from daedalus.catalog.model import FeatureColumnRef, JoinMode, Unset
from daedalus.catalog.services import ServiceColumns, joins_of, spec_dtype, view_columns
from daedalus.errors import DefinitionError
from daedalus.sql.equality import same_expression
from daedalus.sql.fragments import parse_fragment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.contents import CatalogContents
    from daedalus.catalog.model import (
        FeatureServiceDef,
        FeatureViewDef,
        FieldDef,
        Lookback,
        ServiceColumn,
        SqlStep,
    )

#: A service's logical schema, as `registry.lock.json` holds it: plain data, empty values left out.
Schema = dict[str, Any]


def service_schema(
    service: FeatureServiceDef,
    catalog: CatalogContents,
    *,
    specs: Iterable[AggregationSpec] = (),
    embeddings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Schema:
    """The logical schema of one service.

    Args:
        service: the service as training resolves it: every contract column has its reference.
        catalog: where its views are.
        specs: the rolling specs of `aggregations.yaml`; the service's own are added.
        embeddings: what makes each embedding column: `source_id_column`, `udf_name`, `store_name`, `dtype`,
            `dimension`.

    Raises:
        DefinitionError: an expression that does not parse, or a reference to a spec that there is not.
    """
    return _Resolution.of(service, catalog, tuple(specs), embeddings or {}).schema()


@dataclass(slots=True)
class _Resolution:
    """One service being resolved; `computed`, `aliases` and `histories` grow with what is read."""

    service: FeatureServiceDef
    catalog: CatalogContents
    columns: ServiceColumns
    specs: Mapping[str, AggregationSpec]
    embeddings: Mapping[str, Mapping[str, Any]]
    computed: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)
    histories: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        service: FeatureServiceDef,
        catalog: CatalogContents,
        project_specs: tuple[AggregationSpec, ...],
        embeddings: Mapping[str, Mapping[str, Any]],
    ) -> _Resolution:
        specs = {spec.name: spec for spec in (*project_specs, *service.aggregation_specs)}
        sources = {name: dtype for name, (_, dtype) in view_columns(service, catalog).items()}
        rolling = {name: spec_dtype(spec, sources, catalog) for name, spec in specs.items()}
        columns = ServiceColumns.of(service, catalog, rolling=rolling)
        return cls(service, catalog, columns, specs, embeddings)

    @property
    def _where(self) -> str:
        return f"service {self.service.name} ({self.service.file})"

    def schema(self) -> Schema:
        service = self.service
        columns = [self._column(column) for column in service.columns]
        curation = [self._step(step) for step in service.curation]
        content_filter = [self._step(step) for step in service.content_filter]
        return {
            "version": service.version,
            **given({"owner": service.owner, "description": service.description}),
            **given({"tags": sorted(set(service.tags))}),
            "serving_allowed": service.serving_allowed,
            "spine": service.spine,
            **given({"grain": list(service.grain), "session_column": service.session_column}),
            **given({"session_filter": self._session_filter()}),
            "views": self._views(),
            **given({"histories": {name: self._history(name) for name in sorted(self.histories)}}),
            "columns": columns,
            **given({"computed": dict(sorted(self.computed.items()))}),
            **given({"curation": curation, "content_filter": content_filter}),
        }

    # ------------------------------------------------------------------ columns

    def _column(self, column: ServiceColumn) -> dict[str, Any]:
        ref = column.ref
        made = self._use(ref) if ref is not None else ""
        dtype, dimension = logical_dtype(column.dtype or made)
        found = {"name": column.name, **given({"dtype": dtype, "dimension": column.dimension or dimension})}
        found |= given({"ref": str(ref) if ref is not None else ""})
        if not self._may_be_null(column):
            found["nullable"] = False
        return found | self._default(column)

    def _may_be_null(self, column: ServiceColumn) -> bool:
        source = self._spine_field(column.ref)
        return column.nullable and (source is None or source.nullable)

    def _spine_field(self, ref: FeatureColumnRef | None) -> FieldDef | None:
        spine = self.catalog.view(self.service.spine)
        if ref is None or ref.view != spine.name or not spine.has_field(ref.column):
            return None
        return spine.field(ref.column)

    def _default(self, column: ServiceColumn) -> dict[str, Any]:
        """What fills the column, where anything ever does; NULL is what an unfilled column holds."""
        ref = column.ref
        if ref is not None and ref.view == "embedding":
            return {}
        view = self.columns.view(ref.view) if ref is not None else None
        optional = bool(view is not None and ref is not None and view.field(ref.column).optional)
        if ref is not None and column.nullable and not optional:
            return {}
        if column.default_sql is not None:
            is_null = any(
                same_expression(column.default_sql, text)
                for text in ("NULL", f"CAST(NULL AS {column.dtype or 'INTEGER'})")
            )
            return {} if is_null else {"default_sql": " ".join(column.default_sql.split())}
        return {} if column.default in (Unset.UNSET, None) else {"default": column.default}

    # ------------------------------------------------------------------ what references read

    def _use(self, ref: FeatureColumnRef) -> str:
        """Take note of what the reference reads; its dtype, empty where definitions alone cannot tell."""
        key = str(ref)
        if ref.view == "embedding":
            if key not in self.computed:
                self.computed[key] = self._embedding(ref.column)
            return str(self.computed[key].get("dtype", ""))
        name, dtype = self._named(ref)
        if ref.view not in {"rolling", "lookback", "age", "derived"}:
            self.aliases.add(ref.view)
        elif key not in self.computed:
            self.computed[key] = {}  # no cycle comes back here
            self.computed[key] = getattr(self, f"_{ref.view}")(name)
        return dtype

    def _named(self, ref: FeatureColumnRef) -> tuple[str, str]:
        if ref not in self.columns.by_ref:
            raise DefinitionError(f"unknown column {str(ref)!r}", where=self._where)
        return self.columns.by_ref[ref]

    def _reads(self, names: Iterable[str]) -> dict[str, str]:
        """Assembled names to the references and dtypes behind them."""
        found = {}
        for name in sorted(set(names)):
            ref, dtype = self.columns.assembled[name]
            self._use(ref)
            found[name] = f"{ref} {dtype}".strip()
        return found

    def _rolling(self, name: str) -> dict[str, Any]:
        spec = self.specs[name]
        body = {key: value for key, value in spec.to_mapping().items() if key != "name"}
        pairs = sorted(zip(spec.group_by, spec.history_keys, strict=True))
        body["group_by"] = [mine for mine, _ in pairs]
        theirs = [other for _, other in pairs]
        for key in ("history_group_by", "history_timestamp_column", "timestamp_unit", "timestamp_column"):
            body.pop(key, None)
        if theirs != body["group_by"]:
            body["history_group_by"] = theirs
        if spec.condition is not None:
            body["condition"] = " ".join(spec.condition.split())
        reads = self._reads(spec.group_by)
        history = self._history_types(spec.history_view)
        wanted = {*theirs, *([spec.value_column] if spec.value_column else [])}
        if spec.condition is not None:
            wanted |= set(self._columns_of(spec.condition, history, "hist"))
        if spec.history_view is None:
            return body | given({"reads": reads | self._reads(wanted & set(self.columns.assembled))})
        self.histories.add(spec.history_view)
        reads |= {
            f"hist.{one}": f"{spec.history_view}:{one} {history[one]}" for one in wanted if one in history
        }
        return body | given({"reads": dict(sorted(reads.items()))})

    def _history_types(self, view: str | None) -> dict[str, str]:
        if view is None:
            return {name: dtype for name, (_, dtype) in self.columns.assembled.items()}
        return {one.name: one.dtype for one in self.catalog.view(view).fields}

    def _lookback(self, name: str) -> dict[str, Any]:
        one: Lookback = next(item for item in self.service.lookbacks if item.name == name)
        self.histories.add(one.view)
        view = self.catalog.view(one.view)
        reads = {
            key: f"{view.name}:{key} {view.field(key).dtype}"
            for key in (*(theirs for _, theirs in one.on), one.value_column)
        }
        body: dict[str, Any] = {
            "view": one.view,
            "on": dict(sorted(one.on)),
            "value_column": one.value_column,
        }
        body |= given({"window_days": one.window_days, "max_items": one.max_items})
        spine = {f"spine.{mine}": f"{self.service.spine}:{mine}" for mine, _ in one.on}
        return body | {"reads": dict(sorted((reads | spine).items()))}

    def _age(self, name: str) -> dict[str, Any]:
        age = next(item for item in self.service.age_columns if item.name == name)
        dtype = self._use(age.created)
        return {"created": str(age.created), "reads": {"created": f"{age.created} {dtype}"}}

    def _derived(self, name: str) -> dict[str, Any]:
        step = next(item for item in self.service.derived if item.name == name)
        body = self._step(step)
        return {key: value for key, value in body.items() if key not in {"name", "column"}}

    def _embedding(self, name: str) -> dict[str, Any]:
        made = dict(self.embeddings.get(name, {}))
        dtype, dimension = logical_dtype(str(made.pop("dtype", "") or ""))
        made |= given({"dtype": dtype, "dimension": made.get("dimension") or dimension})
        source = str(made.get("source_id_column", ""))
        return made | given({"reads": self._reads([source] if source in self.columns.assembled else [])})

    def _step(self, step: SqlStep) -> dict[str, Any]:
        reads = self._reads(self._columns_of(step.sql, self.columns.assembled, None))
        target = {"column": step.column} if step.column else {}
        return {"name": step.name, **target, "sql": " ".join(step.sql.split())} | given({"reads": reads})

    def _columns_of(self, sql: str, names: Iterable[str], qualifier: str | None) -> tuple[str, ...]:
        return parse_fragment(sql, columns=names, where=self._where, qualifier=qualifier).columns

    # ------------------------------------------------------------------ views and rows

    def _views(self) -> dict[str, Any]:
        spine = self.catalog.view(self.service.spine)
        found: dict[str, dict[str, Any]] = {
            spine.name: {"join": "spine", **_times(spine), "keys": _keys(spine), **_freshness(spine)}
        }
        for join, view in joins_of(self.service, self.catalog):
            if join.alias not in self.aliases:
                continue
            asof = join.join is JoinMode.ASOF and bool(view.timestamp_field)
            on = dict(sorted(join.on or ((key, key) for key in view.join_keys)))
            entry: dict[str, Any] = {"view": view.name} if view.name != join.alias else {}
            entry |= {"join": "asof" if asof else "latest", "on": on, **_times(view), "keys": _keys(view)}
            entry |= _freshness(view)
            found[join.alias] = entry
        return {name: found[name] for name in sorted(found)}

    def _history(self, name: str) -> dict[str, Any]:
        return _times(self.catalog.view(name))

    def _session_filter(self) -> dict[str, Any]:
        rules = self.service.session_filter
        if rules is None or not (rules.drop_view_only or rules.drop_single_like):
            return {}
        self._reads([rules.session_column, rules.event_column])
        likes = {"like_events": sorted(set(rules.like_events))} if rules.drop_single_like else {}
        return {
            "session_column": rules.session_column,
            "event_column": rules.event_column,
            "view_events": sorted(set(rules.view_events)),
            **likes,
            **given({"drop_view_only": rules.drop_view_only, "drop_single_like": rules.drop_single_like}),
        }


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that say something; 0 and False and empty values are what their absence means."""
    return {key: value for key, value in values.items() if value not in (None, "", [], {}, 0, False)}


def logical_dtype(dtype: str) -> tuple[str, int | None]:
    """A dtype and its list dimension, whichever way it was written.

    >>> logical_dtype("FLOAT[1152]"), logical_dtype("FLOAT[]"), logical_dtype("TEXT")
    (('FLOAT[]', 1152), ('FLOAT[]', None), ('VARCHAR', None))
    """
    if not dtype:
        return "", None
    if not is_list(dtype):
        return canonical_dtype(dtype), None
    return f"{element_dtype(dtype)}[]", list_size(dtype)


def _keys(view: FeatureViewDef) -> dict[str, str]:
    return {key.name: key.dtype for entity in view.entities for key in entity.keys}


def _freshness(view: FeatureViewDef) -> dict[str, Any]:
    """From when on and how long a version can be seen."""
    if not view.timestamp_field:
        return {}
    return given({"delay_seconds": view.delay_seconds, "ttl_seconds": view.ttl_seconds})


def _times(view: FeatureViewDef) -> dict[str, Any]:
    """The fields that say when a row happened, when it was known, and which of two is newer."""
    source = view.source
    return given(
        {key: getattr(source, key) for key in ("timestamp_field", "created_field", "sequence_field")}
    )
