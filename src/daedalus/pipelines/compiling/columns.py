"""Which columns a contract needs, from where, and under which names they meet in the DAG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.catalog.model import FeatureColumnRef, SqlStep
from daedalus.catalog.services import assembled_columns, spec_dtype, view_columns
from daedalus.errors import CompileError, DefinitionError, did_you_mean
from daedalus.pipelines.operators import ProjectColumn, RayUdfTransform
from daedalus.pipelines.settings.model import AGGREGATIONS_FILE
from daedalus.sql.fragments import parse_fragment
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.model import FeatureServiceDef, FeatureViewDef, Lookback, ServiceColumn, ViewJoin
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.settings import EnrichmentSpec, TrainingRunConfig

_UNIT_TO_US = {"s": "* 1000000", "ms": "* 1000", "us": "", "ns": "// 1000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The embedding coverage filter, resolved: where the ids are and what they are compared with."""

    source_ref: str
    store_column: str
    id_column: str
    event_column: str
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractColumns:
    """The columns of one service, resolved.

    Attributes:
        names: every referable column's reference and its name in assembled rows.
        dtypes: assembled name to dtype, as far as definitions tell.
        specs: the rolling specs of the project, by name.
        needed: the references that outputs and expressions read.
        rolling: the rolling names that are needed, in order of first need.
        coverage: None when off.
    """

    service: FeatureServiceDef
    catalog: FeatureCatalog
    config: TrainingRunConfig
    names: Mapping[FeatureColumnRef, str]
    dtypes: Mapping[str, str]
    specs: Mapping[str, AggregationSpec]
    enrichment_specs: Mapping[str, EnrichmentSpec]
    needed: tuple[FeatureColumnRef, ...]
    coverage: Coverage | None

    @classmethod
    def of(
        cls, service: FeatureServiceDef, catalog: FeatureCatalog, config: TrainingRunConfig
    ) -> ContractColumns:
        """Resolve the contract of `service`."""
        specs = _rolling_specs(service, config)
        sources = {name: dtype for name, (_, dtype) in view_columns(service, catalog).items()}
        rolling = {name: spec_dtype(spec, sources, catalog) for name, spec in specs.items()}
        assembled = assembled_columns(service, catalog, rolling=rolling)
        names = {ref: name for name, (ref, _) in assembled.items()}
        dtypes = {name: dtype for name, (_, dtype) in assembled.items()}
        enrichments = {spec.name: spec for spec in config.enrichment_specs}
        needed = _needed(service, names, specs, enrichments)
        return cls(
            service=service,
            catalog=catalog,
            config=config,
            names=names,
            dtypes=dtypes,
            specs=specs,
            enrichment_specs=enrichments,
            needed=needed,
            coverage=_coverage(catalog.view(service.spine), config),
        )

    @property
    def spine(self) -> FeatureViewDef:
        """The spine view."""
        return self.catalog.view(self.service.spine)

    def needed_in(self, namespace: str) -> list[str]:
        """The needed columns of one namespace, in order of first need."""
        return [ref.column for ref in self.needed if ref.view == namespace]

    def rolling_specs(self) -> list[AggregationSpec]:
        """The needed rolling specs, in order of first need."""
        return [self.specs[name] for name in self.needed_in("rolling")]

    # ------------------------------------------------------------------ views

    def join(self, alias: str) -> ViewJoin:
        """The service's join of that alias."""
        for join in self.service.views:
            if join.alias == alias:
                return join
        known = [join.alias for join in self.service.views]
        raise DefinitionError(
            f"no view is joined as {alias!r}", where=self._where(), hint=did_you_mean(alias, known)
        )

    def join_keys(self, join: ViewJoin) -> tuple[tuple[str, str], ...]:
        """(spine column, view key) pairs."""
        return join.on or tuple((key, key) for key in self.catalog.view(join.view).join_keys)

    def static_by_alias(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """(name, view column) pairs of the static columns, by alias, in file order."""
        pairs: dict[str, list[tuple[str, str]]] = {}
        for ref in self.service.static_columns:
            pairs.setdefault(ref.view, []).append((self.names[ref], ref.column))
        return {alias: tuple(items) for alias, items in pairs.items()}

    def joined_by_alias(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """(name, view column) pairs to join to the target rows, by alias in the service's order."""
        static = set(self.service.static_columns)
        found: dict[str, tuple[tuple[str, str], ...]] = {}
        for join in self.service.views:
            refs = [ref for ref in self.needed if ref.view == join.alias and ref not in static]
            if refs:
                found[join.alias] = tuple((self.names[ref], ref.column) for ref in refs)
        return found

    def view_columns(self, join: ViewJoin) -> tuple[str, ...]:
        """The fields of the view that its scan must read, in the view's order."""
        view = self.catalog.view(join.view)
        wanted = {key for _, key in self.join_keys(join)}
        wanted |= {ref.column for ref in self.needed if ref.view == join.alias}
        wanted |= {ref.column for ref in self.service.static_columns if ref.view == join.alias}
        if view.source.created_field:
            wanted.add(view.source.created_field)
        return tuple(field.name for field in view.fields if field.name in wanted)

    def spine_columns(self) -> tuple[str, ...]:
        """The fields of the spine view that any operator reads, in the view's order."""
        wanted = {ref.column for ref in self.needed if ref.view == self.spine.name}
        wanted.add(self.spine.timestamp_field)
        aliases = {ref.view for ref in (*self.needed, *self.service.static_columns)}
        for join in self.service.views:
            if join.alias in aliases:
                wanted |= {column for column, _ in self.join_keys(join)}
        for spec in self.rolling_specs():
            wanted |= self.spec_columns(spec)
        for lookback in self.lookbacks():
            wanted |= {column for column, _ in lookback.on}
        rules = self.service.session_filter
        wanted |= {rules.session_column, rules.event_column} if rules else set()
        wanted.add(self.service.session_column)
        if self.coverage is not None:
            wanted |= {self.coverage.id_column, self.coverage.event_column}
        return tuple(field.name for field in self.spine.fields if field.name in wanted)

    def spec_columns(self, spec: AggregationSpec) -> set[str]:
        """The columns of the computed rows that a spec reads (its history's, too, when that is the spine)."""
        columns = set(spec.group_by)
        if spec.exclude_self and spec.value_column:
            columns.add(spec.value_column)
        if spec.history_view is None:
            columns |= {spec.value_column} if spec.value_column else set()
            columns |= set(self.condition_columns(spec, self.history_types(None)))
        return columns

    def history_types(self, view_name: str | None) -> dict[str, str]:
        """Columns and dtypes of a history: a view's fields, or the spine's with the static columns."""
        if view_name is not None:
            return {field.name: field.dtype for field in self.catalog.view(view_name).fields}
        types = {field.name: field.dtype for field in self.spine.fields}
        static = {self.names[ref]: self.dtypes[self.names[ref]] for ref in self.service.static_columns}
        return types | static

    def spec_place(self, spec: AggregationSpec) -> str:
        """How messages name a spec: its service, its name and the file that defines it."""
        own = any(one.name == spec.name for one in self.service.aggregation_specs)
        return f"service {self.service.name}, spec {spec.name} ({self.service.file if own else AGGREGATIONS_FILE})"

    def condition_columns(self, spec: AggregationSpec, types: Mapping[str, str]) -> tuple[str, ...]:
        """The history columns that a spec's condition reads."""
        if spec.condition is None:
            return ()
        where = f"{self.spec_place(spec)}, condition"
        return parse_fragment(spec.condition, columns=types, where=where, qualifier="hist").columns

    # ------------------------------------------------------------------ computed columns

    def lookbacks(self) -> list[Lookback]:
        """The needed lookbacks."""
        wanted = set(self.needed_in("lookback"))
        return [lookback for lookback in self.service.lookbacks if lookback.name in wanted]

    def derived(self) -> list[SqlStep]:
        """The needed derived columns, in file order: a later one may read an earlier one."""
        wanted = set(self.needed_in("derived"))
        return [step for step in self.service.derived if step.name in wanted]

    def age_expressions(self) -> list[tuple[str, str]]:
        """(name, SQL) of the needed ages: whole days from creation to the event."""
        event = self._instant_us(FeatureColumnRef(self.spine.name, self.spine.timestamp_field))
        wanted = set(self.needed_in("age"))
        expressions = []
        for age in self.service.age_columns:
            if age.name in wanted:
                created = self._instant_us(age.created)
                sql = f"CASE WHEN {created} <= {event} THEN ({event} - {created}) // 86400000000 END"
                expressions.append((age.name, sql))
        return expressions

    def _instant_us(self, ref: FeatureColumnRef) -> str:
        """Microseconds since 1970 of a time column, by its dtype."""
        name = quote_ident(self.names[ref])
        dtype = self.dtypes[self.names[ref]]
        if dtype.startswith("TIMESTAMP") or dtype == "DATE":
            return f"epoch_us({name})" if dtype != "DATE" else f"epoch_us(CAST({name} AS TIMESTAMP))"
        view = self.spine if ref.view == self.spine.name else self.catalog.view(self.join(ref.view).view)
        return f"({name} {_UNIT_TO_US[view.source.timestamp_unit]})"

    # ------------------------------------------------------------------ output columns

    def output_columns(self) -> tuple[ProjectColumn, ...]:
        """The contract's columns in order, each with its expression, dtype and default."""
        return tuple(self._output(column) for column in self.service.columns)

    def _output(self, column: ServiceColumn) -> ProjectColumn:
        ref = column.ref
        if ref is None or ref.view == "embedding":
            source, natural = "", ""
        else:
            source = quote_ident(self.names[ref])
            natural = self._dtype(ref)
        dtype = column.dtype or natural
        if "INTERVAL" in dtype:
            raise CompileError(
                f"column {column.name!r} is {dtype}, which Parquet does not have",
                where=self._where(),
                hint="Give it dtype VARCHAR, or derive a number: sql: epoch(...)",
            )
        return ProjectColumn(
            name=column.name,
            sql=source,
            dtype=dtype,
            default=column.default,
            default_sql=column.default_sql or "",
            nullable=column.nullable,
        )

    def _dtype(self, ref: FeatureColumnRef) -> str:
        if ref.view == "rolling":
            return spec_dtype(self.specs[ref.column], self.history_types(None), self.catalog)
        return self.dtypes.get(self.names[ref], "")

    def enrichments(self) -> tuple[RayUdfTransform, ...]:
        """One transform per declared embedding column; `inputs` and `name` are the compiler's to set."""
        outputs = {str(column.ref): column for column in self.service.columns if column.ref}
        by_source = {
            self.names[column.ref]: column.name
            for column in self.service.columns
            if column.ref is not None and column.ref in self.names
        }
        found = []
        for name in self.needed_in("embedding"):
            spec = self.enrichment_specs[name]
            column = outputs[f"embedding:{name}"]
            source = by_source.get(spec.source_id_column)
            if source is None:
                raise CompileError(
                    f"enrichment {name!r} reads {spec.source_id_column!r}, which the contract does not output",
                    where=self._where(),
                    hint="Enrichment reads the skeleton's columns: add it to columns",
                )
            found.append(
                RayUdfTransform(
                    name=name,
                    udf_name=spec.udf_name,
                    source_id_column=source,
                    store_name=spec.store_name,
                    column=column.name,
                    dtype=column.dtype or "",
                    dimension=column.dimension,
                )
            )
        return tuple(found)

    def _where(self) -> str:
        return f"service {self.service.name} ({self.service.file})"


def _rolling_specs(service: FeatureServiceDef, config: TrainingRunConfig) -> dict[str, AggregationSpec]:
    specs: dict[str, AggregationSpec] = {}
    for spec in (*config.aggregation_specs, *service.aggregation_specs):
        if spec.name in specs:
            raise DefinitionError(
                f"rolling spec {spec.name!r} is defined twice",
                where=f"service {service.name} ({service.file})",
                hint="A service's own specs stand beside those of aggregations.yaml: rename one",
            )
        specs[spec.name] = spec
    return specs


def _needed(
    service: FeatureServiceDef,
    names: Mapping[FeatureColumnRef, str],
    specs: Mapping[str, AggregationSpec],
    enrichments: Mapping[str, EnrichmentSpec],
) -> tuple[FeatureColumnRef, ...]:
    """Every reference that outputs, expressions and ages read, each once, in order of first need."""
    by_name = {name: ref for ref, name in names.items()}
    needed: dict[FeatureColumnRef, None] = {}
    for column in service.columns:
        if column.ref is not None:
            _known(column.ref, names, specs, enrichments, service)
            needed[column.ref] = None
    steps = [*service.curation, *service.content_filter]
    steps += [step for step in service.derived if FeatureColumnRef("derived", step.name) in needed]
    pending = list(steps)
    while pending:
        step = pending.pop()
        for name in _columns_of(step, by_name, service):
            ref = by_name[name]
            if ref not in needed:
                needed[ref] = None
                pending += [
                    other for other in service.derived if FeatureColumnRef("derived", other.name) == ref
                ]
        if step.column and step.column in by_name:
            needed.setdefault(by_name[step.column])
    for age in service.age_columns:
        if FeatureColumnRef("age", age.name) in needed:
            needed.setdefault(age.created)
    return tuple(needed)


def _columns_of(
    step: SqlStep, by_name: Mapping[str, FeatureColumnRef], service: FeatureServiceDef
) -> Iterable[str]:
    where = f"service {service.name} ({service.file}), {step.name}"
    return parse_fragment(step.sql, columns=by_name, where=where).columns


def _known(
    ref: FeatureColumnRef,
    names: Mapping[FeatureColumnRef, str],
    specs: Mapping[str, AggregationSpec],
    enrichments: Mapping[str, EnrichmentSpec],
    service: FeatureServiceDef,
) -> None:
    if ref in names or (ref.view == "embedding" and ref.column in enrichments):
        return
    where_service = f"service {service.name} ({service.file})"
    if ref.view == "rolling" and ref.column in specs:
        raise DefinitionError(
            f"rolling spec {ref.column!r} is called like a column of the spine or of a joined view",
            where=where_service,
            hint="Rename the spec in config/training/aggregations.yaml",
        )
    known: Iterable[str] = {
        "rolling": specs,
        "embedding": enrichments,
    }.get(ref.view, [other.column for other in names if other.view == ref.view])
    where = "config/training/aggregations.yaml" if ref.view in {"rolling", "embedding"} else "the service"
    raise DefinitionError(
        f"unknown column {str(ref)!r}",
        where=where_service,
        hint=f"{did_you_mean(ref.column, known)} It would have to be defined in {where}".strip(),
    )


def _coverage(spine: FeatureViewDef, config: TrainingRunConfig) -> Coverage | None:
    """The coverage filter, or None where it is off, or the project has neither store nor id relation."""
    setting = config.embedding_coverage_filter
    event_column = setting.event_column
    if not setting.enabled or not spine.has_field(setting.id_column) or not spine.has_field(event_column):
        return None
    if setting.id_relation is not None:
        source_ref, column = f"ids:{setting.id_relation}", setting.id_column
    elif setting.store is not None or len(config.embedding_stores) == 1:
        store = config.store(setting.store) if setting.store else config.embedding_stores[0]
        source_ref, column = f"store:{store.name}", store.id_column
    else:
        return None
    return Coverage(
        source_ref=source_ref,
        store_column=column,
        id_column=setting.id_column,
        event_column=event_column,
        events=setting.events,
    )
