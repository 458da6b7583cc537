"""What a service's references mean: which column of which view, under which name, of which dtype.

Assembled rows are the spine's rows with everything joined and computed beside them. Their names are

- a spine column's own name;
- a joined view's column by its bare name, or `alias__column` when the view has an alias, or when the bare
  name is also a name of the spine or of another joined view;
- the bare names of rolling, lookback, age and derived columns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import Operation
from daedalus.catalog.dtypes import canonical_dtype, element_dtype, is_integer, is_list, to_duckdb
from daedalus.catalog.model import COMPUTED_NAMESPACES, FeatureColumnRef
from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.contents import CatalogContents
    from daedalus.catalog.model import FeatureServiceDef, FeatureViewDef, FieldDef, SqlStep, ViewJoin
    from daedalus.sql.fragments import Fragment

#: name in assembled rows -> (reference, dtype); the dtype is empty where definitions alone cannot tell it.
Assembled = dict[str, tuple[FeatureColumnRef, str]]

_OWN_TYPE = frozenset({Operation.FIRST, Operation.LAST, Operation.MIN, Operation.MAX})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedColumn:
    """A reference of a service, resolved.

    Attributes:
        name: its name in assembled rows; empty for an embedding, which is made after them.
        dtype: canonical dtype; empty where definitions alone cannot tell it.
        view: the view it is read from; None for a computed column.
        field: the view's field; None for a computed column.
    """

    ref: FeatureColumnRef
    name: str
    dtype: str
    view: FeatureViewDef | None = None
    field: FieldDef | None = None


def joins_of(
    service: FeatureServiceDef, catalog: CatalogContents
) -> Iterator[tuple[ViewJoin, FeatureViewDef]]:
    """The joined views, in file order; views that the catalog lacks are left out."""
    for join in service.views:
        if join.view in catalog.views:
            yield join, catalog.views[join.view]


def view_columns(service: FeatureServiceDef, catalog: CatalogContents) -> Assembled:
    """The spine's columns and the joined views', by their name in assembled rows."""
    found: Assembled = {}
    counts: Counter[str] = Counter()
    spine = catalog.views.get(service.spine)
    if spine is not None:
        for field in spine.fields:
            found[field.name] = (FeatureColumnRef(spine.name, field.name), field.dtype)
            counts[field.name.lower()] += 1
    for join, view in joins_of(service, catalog):
        if join.alias == join.view:
            counts.update(field.name.lower() for field in view.fields)
    for join, view in joins_of(service, catalog):
        for field in view.fields:
            bare = join.alias == join.view and counts[field.name.lower()] == 1
            name = field.name if bare else f"{join.alias}__{field.name}"
            found.setdefault(name, (FeatureColumnRef(join.alias, field.name), field.dtype))
    return found


def assembled_columns(
    service: FeatureServiceDef, catalog: CatalogContents, *, rolling: Mapping[str, str] | None = None
) -> Assembled:
    """Every column of assembled rows, by name.

    Args:
        service: the service; its own rolling specs are among the columns.
        catalog: where its views are.
        rolling: dtypes of rolling columns whose specs live in `aggregations.yaml`, by name.
    """
    found = view_columns(service, catalog)
    before = {name: dtype for name, (_, dtype) in found.items()}
    for name, dtype in (rolling or {}).items():
        # A spec that no service uses may be called like a column; one that is used is refused by the compiler.
        found.setdefault(name, (FeatureColumnRef("rolling", name), dtype))
    for spec in service.aggregation_specs:
        found[spec.name] = (FeatureColumnRef("rolling", spec.name), spec_dtype(spec, before, catalog))
    for lookback in service.lookbacks:
        view = catalog.views.get(lookback.view)
        dtype = _field_dtype(view, lookback.value_column) if view is not None else ""
        found[lookback.name] = (FeatureColumnRef("lookback", lookback.name), f"{dtype}[]" if dtype else "")
    for age in service.age_columns:
        found[age.name] = (FeatureColumnRef("age", age.name), "BIGINT")
    for step in service.derived:
        dtype = _derived_dtype(step, found)
        found[step.name] = (FeatureColumnRef("derived", step.name), dtype)
    return found


def spec_dtype(spec: AggregationSpec, columns: Mapping[str, str], catalog: CatalogContents) -> str:
    """The dtype of a rolling column; empty when its value column's is not known.

    Args:
        spec: the aggregation.
        columns: the spine's columns (static columns included) and their dtypes.
        catalog: where the spec's `history_view` is.
    """
    if spec.operation in {Operation.COUNT, Operation.COUNT_DISTINCT}:
        return "BIGINT"
    if spec.operation in {Operation.MEAN, Operation.SECONDS_SINCE_LAST}:
        return "DOUBLE"
    if spec.history_view is not None:
        view = catalog.views.get(spec.history_view)
        columns = {field.name: field.dtype for field in view.fields} if view is not None else {}
    dtype = columns.get(spec.value_column or "", "")
    if not dtype or spec.operation in _OWN_TYPE:
        return dtype
    if spec.operation is Operation.SUM:
        return "BIGINT" if is_integer(dtype) else "DOUBLE"
    if spec.operation is Operation.FLATTEN_DISTINCT:
        return f"{element_dtype(dtype)}[]" if is_list(dtype) else ""
    return f"{dtype}[]"


def _field_dtype(view: FeatureViewDef, name: str) -> str:
    return view.field(name).dtype if view.has_field(name) else ""


def _derived_dtype(step: SqlStep, columns: Assembled) -> str:
    from daedalus.sql.fragments import parse_fragment

    try:
        fragment = parse_fragment(step.sql, columns=columns, where=step.name)
        return expression_dtype(fragment, columns, where=step.name)
    except DefinitionError:
        # The loader reports it, with its place.
        return ""


def expression_dtype(fragment: Fragment, columns: Assembled, *, where: str) -> str:
    """The dtype of an expression; empty when a column's is not known; DefinitionError when it has none."""
    from daedalus.sql.fragments import fragment_type

    types = {name: columns[name][1] for name in fragment.columns}
    if not all(types.values()):
        return ""
    bound = fragment_type(fragment, {name: to_duckdb(dtype) for name, dtype in types.items()}, where=where)
    if bound == '"NULL"':
        raise DefinitionError(
            "the expression is always NULL", where=where, hint="Cast it: CAST(NULL AS BIGINT)."
        )
    try:
        return canonical_dtype(bound)
    except DefinitionError as exc:
        raise DefinitionError(f"the expression makes {bound}", where=where, hint=exc.hint) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceColumns:
    """The columns of one service, by name and by reference."""

    service: FeatureServiceDef
    catalog: CatalogContents
    assembled: Assembled
    by_ref: Mapping[FeatureColumnRef, tuple[str, str]]

    @classmethod
    def of(
        cls, service: FeatureServiceDef, catalog: CatalogContents, *, rolling: Mapping[str, str] | None = None
    ) -> ServiceColumns:
        """Work out the columns of `service`; `rolling` as in `assembled_columns`."""
        assembled = assembled_columns(service, catalog, rolling=rolling)
        by_ref = {ref: (name, dtype) for name, (ref, dtype) in assembled.items()}
        return cls(service=service, catalog=catalog, assembled=assembled, by_ref=by_ref)

    def view(self, name: str) -> FeatureViewDef | None:
        """The view that references call `name`: the spine, or a joined view by its alias."""
        if name == self.service.spine:
            return self.catalog.views.get(name)
        for join, view in joins_of(self.service, self.catalog):
            if join.alias == name:
                return view
        return None

    def resolve(self, ref: FeatureColumnRef) -> ResolvedColumn:
        """What a reference of the service means.

        `rolling:` and `embedding:` names that the service does not define are taken on trust, with an empty
        dtype: their specs live in `aggregations.yaml`, which the compiler reads.

        Raises:
            DefinitionError: no such view, alias or column; with near matches.
        """
        # A view with the name of computed columns is refused where it is read; here it is none.
        view = None if ref.view in COMPUTED_NAMESPACES else self.view(ref.view)
        if ref in self.by_ref:
            name, dtype = self.by_ref[ref]
            field = view.field(ref.column) if view is not None else None
            return ResolvedColumn(ref=ref, name=name, dtype=dtype, view=view, field=field)
        if ref.view in {"rolling", "embedding"}:
            return ResolvedColumn(ref=ref, name=ref.column if ref.view == "rolling" else "", dtype="")
        if view is None and ref.view in self.catalog.views:
            raise DefinitionError(
                f"{str(ref)!r} names a view that the service does not join",
                hint=f"Add it: views: [{{view: {ref.view}}}].",
            )
        hint = did_you_mean(str(ref), [str(known) for known in self.by_ref])
        if not hint.startswith("Did") and view is not None:
            hint = did_you_mean(ref.column, [field.name for field in view.fields])
        raise DefinitionError(f"unknown column {str(ref)!r}", hint=hint)
