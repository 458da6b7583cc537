"""Whether a service's ordered contract can be filled: references, dtypes, defaults, names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import canonical_dtype, is_list, storable, to_duckdb
from daedalus.catalog.literals import literal_problem
from daedalus.catalog.model import COMPUTED_NAMESPACES, Unset
from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Collection

    from daedalus.catalog.contents import CatalogContents
    from daedalus.catalog.model import FeatureColumnRef, ServiceColumn
    from daedalus.catalog.service_reader import ReadService
    from daedalus.catalog.services import ServiceColumns

#: Appended as the last column where a service has sessions.
QID = "qid"

#: The namespace of the columns that a key of the file computes.
_NAMESPACES = {
    "aggregation_specs": "rolling",
    "lookbacks": "lookback",
    "age_columns": "age",
    "derived": "derived",
}


@dataclass(frozen=True, slots=True)
class Doubts:
    """What could not be read: references into it are not reported, for the fault is not theirs.

    Attributes:
        namespaces: views by the name the service gives them, and namespaces of computed columns.
        joined: when a name of a view is wrong, the names that are right; else None.
    """

    namespaces: frozenset[str]
    joined: frozenset[str] | None = None

    @classmethod
    def of(cls, read: ReadService, catalog: CatalogContents, broken: Collection[str]) -> Doubts:
        """The doubts about one service: its unreadable parts, and views with problems of their own."""
        lost = read.lost
        found = {_NAMESPACES[key] for key in lost if key in _NAMESPACES}
        names = [(read.service.spine, read.service.spine)]
        names += [(join.alias, join.view) for join in read.service.views]
        found |= {alias for alias, view in names if view in broken or view not in catalog.views}
        right = {alias for alias, view in names if view in catalog.views or view in broken}
        unsure = "views" in lost or len(right) < len({alias for alias, _ in names})
        return cls(frozenset(found), frozenset(right | set(COMPUTED_NAMESPACES)) if unsure else None)

    def __bool__(self) -> bool:
        return bool(self.namespaces) or self.joined is not None

    def excuse(self, ref: FeatureColumnRef) -> bool:
        """Whether the reference may well be right."""
        return ref.view in self.namespaces or (self.joined is not None and ref.view not in self.joined)


def check_columns(read: ReadService, columns: ServiceColumns, doubts: Doubts) -> None:
    """Note every problem of the contract's columns."""
    section, service = read.section, read.service
    seen: set[str] = {QID} if service.session_column else set()
    for position, column in enumerate(service.columns):
        place = read.place("columns", position)
        if column.name.lower() in seen:
            if column.name.lower() == QID and service.session_column:
                what, hint = f"{QID} is appended by itself", "Remove it from columns, or rename it."
            else:
                what, hint = f"the output {column.name!r} stands twice", "Rename one: {name: ..., ref: ...}."
            section.problem(what, *place, hint=hint)
        seen.add(column.name.lower())
        source = _source_dtype(read, columns, doubts, column, *place)
        _check_dtype(read, column, source, *place)
        _check_default(read, column, column.dtype or source, *place)


def _source_dtype(
    read: ReadService, columns: ServiceColumns, doubts: Doubts, column: ServiceColumn, *place: str | int
) -> str:
    """The dtype that the column's reference has; empty when there is none or it is not known."""
    section = read.section
    if column.ref is None:
        if column.dtype is None:
            hint = "Write ref: view:column, or a dtype with a default."
            section.problem(f"{column.name} has neither ref nor dtype", *place, hint=hint)
        elif column.default is Unset.UNSET and column.default_sql is None:
            hint = "Write ref: view:column, or a default."
            section.problem(f"{column.name} has neither ref nor default", *place, hint=hint)
        return ""
    if column.ref.view == "embedding" and column.dtype is None:
        hint = 'Write dtype: "HALF_FLOAT[]" or "FLOAT[]": no view declares an embedding.'
        section.problem(f"the embedding {column.name} needs a dtype", *place, hint=hint)
    try:
        return columns.resolve(column.ref).dtype
    except DefinitionError as exc:
        if doubts.excuse(column.ref):
            return ""
        section.relay(exc, *place, *(("ref",) if isinstance(_item(read, *place), dict) else ()))
        return ""


def _item(read: ReadService, key: str | int, index: str | int) -> object:
    return read.section.raw(str(key))[index]


def _check_dtype(read: ReadService, column: ServiceColumn, source: str, *place: str | int) -> None:
    dtype = column.dtype or source
    if column.dtype is not None and source and not storable(source, column.dtype):
        what = f"dtype {column.dtype} does not fit {column.ref}, which is {source}"
        read.section.problem(
            what, *place, "dtype", hint="Use the source's dtype, or a derived column that casts."
        )
    if column.dimension is not None and dtype and not is_list(dtype) and column.dtype is None:
        read.section.problem(f"{dtype} has no shape: only lists have", *place, "shape", hint="Remove shape.")


def _check_default(read: ReadService, column: ServiceColumn, dtype: str, *place: str | int) -> None:
    given = column.default is not Unset.UNSET
    problem = literal_problem(column.default, dtype) if given and dtype else ""
    if problem:
        read.section.problem(f"the default does not fit {dtype}: {problem}", *place, "default")
    if column.default_sql is not None:
        _check_default_sql(read, column.default_sql, dtype, *place, "default_sql")


def _check_default_sql(read: ReadService, sql: str, dtype: str, *place: str | int) -> None:
    from daedalus.sql.fragments import fragment_type, parse_fragment

    where = read.section.where(*place)
    try:
        bound = fragment_type(parse_fragment(sql, columns=(), where=where), {}, where=where)
    except DefinitionError as exc:
        read.section.relay(exc)
        return
    if not dtype or bound == '"NULL"' or (bound == '"NULL"[]' and is_list(dtype)):
        return
    try:
        fits = storable(canonical_dtype(bound), dtype)
    except DefinitionError:
        fits = False
    if not fits:
        hint = f"Write CAST(NULL AS {to_duckdb(dtype)})."
        read.section.problem(f"default_sql makes {bound}, but the column is {dtype}", *place, hint=hint)
