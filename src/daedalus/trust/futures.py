"""Which copies are poisoned for which question, and which columns may then change.

- the law: everything from the cut on, except what `latest` joins read; no value before the cut may change;
- `latest`: what `latest` joins read; what changes is what can see the future;
- `late`: versions without a `created_field`, events that arrive late; likewise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from daedalus.catalog.model import FeatureColumnRef, JoinMode
from daedalus.catalog.registry import FeatureCatalog
from daedalus.errors import DefinitionError
from daedalus.pipelines.operators import Filter, OperatorPipeline, Scan
from daedalus.sql.fragments import parse_fragment
from daedalus.sql.identifiers import quote_literal
from daedalus.trust.copies import INSTANT, ROW_ID, copied_view
from daedalus.trust.poison import Poisoner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import duckdb

    from daedalus.pipelines.compiling.columns import ContractColumns
    from daedalus.pipelines.operators import AnyOperator
    from daedalus.trust.copies import DayCopies

#: What a scan of a `latest` join reads while the law is asked, where the view has other readers, too.
_APART = "{view} of latest joins"


class Futures:
    """Other futures of one day.

    Args:
        columns: the definitions: they say what may see the future, whatever the pipeline does.
        pipeline: what runs.
        copies: the clean copies.
        connection: any DuckDB connection.
    """

    def __init__(
        self,
        columns: ContractColumns,
        pipeline: OperatorPipeline,
        copies: DayCopies,
        connection: duckdb.DuckDBPyConnection,
    ) -> None:
        self._columns = columns
        self._pipeline = pipeline
        self._copies = copies
        self._connection = connection
        service = columns.service
        self._latest = {
            join.alias: join.view
            for join in service.views
            if join.join is JoinMode.LATEST or not columns.catalog.view(join.view).timestamp_field
        }
        asof = {join.view for join in service.views if join.alias not in self._latest}
        self._items = {lookback.view for lookback in columns.lookbacks()}
        self._histories = {spec.history_view for spec in columns.rolling_specs() if spec.history_view}
        self._timed = {columns.spine.name} | asof | self._items | self._histories
        self._asof = asof

    # ------------------------------------------------------------------ the cut

    def cut(self) -> tuple[int, list[int]]:
        """An instant in the middle of the day, the busiest there is, and half of its own rows."""
        spine = quote_literal(str(self._copies.views[self._copies.spine].file))
        start, end = self._copies.day_range
        on_day = f"{INSTANT} >= {start} AND {INSTANT} < {end}"
        day = f"(SELECT {INSTANT} AS t, {ROW_ID} AS r FROM read_parquet({spine}) WHERE {on_day})"
        found = self._connection.execute(
            f"SELECT t FROM {day}, (SELECT quantile_disc(t, 0.4) AS low, quantile_disc(t, 0.8) AS high FROM {day}) "
            "WHERE t >= low AND t <= high GROUP BY t ORDER BY count(*) DESC, t LIMIT 1"
        ).fetchone()
        if found is None:
            raise self._copies.no_events()
        rows = self._connection.execute(f"SELECT r FROM {day} WHERE t = {found[0]} ORDER BY r").fetchall()
        return int(found[0]), [int(row[0]) for row in rows][::2]

    # ------------------------------------------------------------------ the three questions

    def law(
        self, folder: Path, cut: int, protected: Sequence[int]
    ) -> tuple[OperatorPipeline, FeatureCatalog]:
        """The pipeline and definitions of a day whose future is another, as far as the law covers it."""
        poisoner = Poisoner(self._connection, self._copies.ticks, cut, protected)
        files: dict[str, Path] = {}
        for index, (name, copy) in enumerate(self._copies.views.items()):
            only_latest = name in self._latest.values() and name not in self._timed
            if only_latest or not copy.view.timestamp_field:
                continue
            files[name] = poisoner.future(
                copy,
                folder / f"{index}.parquet",
                events=name == self._copies.spine or name in self._histories,
                protect=name == self._copies.spine,
            )
        return self._apart(self._copies.catalog_of(files), {})

    @property
    def _mixed(self) -> dict[str, str]:
        """Aliases of `latest` joins of views that others read, too."""
        return {alias: view for alias, view in self._latest.items() if view in self._timed}

    def _apart(
        self, catalog: FeatureCatalog, files: Mapping[str, Path]
    ) -> tuple[OperatorPipeline, FeatureCatalog]:
        """Let scans of `latest` joins read another copy than the view's other readers do.

        That of `files`, or else the clean one.
        """
        mixed = self._mixed
        if not mixed:
            return self._pipeline, catalog
        operators: list[AnyOperator] = []
        for operator in self._pipeline.operators:
            alias = operator.name.removesuffix("_past")
            if isinstance(operator, Scan) and mixed.get(alias) == operator.source_ref:
                operators.append(replace(operator, source_ref=_APART.format(view=operator.source_ref)))
            else:
                operators.append(operator)
        more = []
        for view in dict.fromkeys(mixed.values()):
            copy = self._copies.views[view]
            file = files.get(view, copy.file)
            more.append(replace(copied_view(copy.view, file), name=_APART.format(view=view)))
        return (
            replace(self._pipeline, operators=tuple(operators)),
            FeatureCatalog(
                entities=catalog.entities,
                views=[*catalog.views.values(), *more],
                services=catalog.services.values(),
            ),
        )

    def allowed(
        self, why: str, folder: Path, cut: int
    ) -> tuple[OperatorPipeline, FeatureCatalog, tuple[str, ...]] | None:
        """A day that differs in what may see the future, and the views that do; None when there is nothing."""
        poisoner = Poisoner(self._connection, self._copies.ticks, cut)
        files: dict[str, Path] = {}
        apart: dict[str, Path] = {}
        for index, (name, copy) in enumerate(self._copies.views.items()):
            target = folder / f"{index}.parquet"
            if why == "latest" and name in self._latest.values():
                chosen = apart if name in self._timed else files
                if copy.view.timestamp_field:
                    chosen[name] = poisoner.future(copy, target, events=False)
                else:
                    chosen[name] = poisoner.corrections(copy, target, events=False)
            elif why == "late" and name in self._timed and not self._known(name):
                files[name] = poisoner.corrections(copy, target, events=name == self._copies.spine)
        if not files and not apart:
            return None
        pipeline, catalog = self._apart(self._copies.catalog_of(files), apart)
        return pipeline, catalog, (*files, *apart)

    def _known(self, view: str) -> bool:
        """Whether every reader of the view asks when a version became known."""
        created = bool(self._columns.catalog.view(view).source.created_field)
        return created and view in self._asof and view not in self._histories | self._items

    # ------------------------------------------------------------------ what may change

    def blind_at_the_instant(self, names: Iterable[str]) -> list[str]:
        """The columns that see nothing of the row's own instant: all but those of `include_current`."""
        current = {f"rolling:{spec.name}" for spec in self._columns.rolling_specs() if spec.include_current}
        return [name for name in names if not current & _references(self._columns, name)]

    def judges_whole_day(self) -> bool:
        """Whether a filter looks at groups of the whole day."""
        return any(isinstance(operator, Filter) and operator.counts for operator in self._pipeline)


def _references(columns: ContractColumns, name: str) -> set[str]:
    """Every reference behind an output column, through derivation and curation."""
    refs = {ref_name: ref for ref, ref_name in columns.names.items()}
    steps: dict[str, list[str]] = {}
    for step in columns.derived():
        steps.setdefault(step.name, []).append(step.sql)
    for step in columns.service.curation:
        steps.setdefault(step.column, []).append(step.sql)
    ages = {age.name: age.created for age in columns.service.age_columns}
    column = next((one for one in columns.service.columns if one.name == name), None)
    pending = [] if column is None or column.ref is None else [column.ref]
    found: dict[FeatureColumnRef, None] = {}
    while pending:
        ref = pending.pop()
        if ref in found:
            continue
        found[ref] = None
        if ref.view == "age" and ref.column in ages:
            pending.append(ages[ref.column])
        for sql in steps.get(columns.names.get(ref, ref.column), ()):
            try:
                read = parse_fragment(sql, columns=refs, where=name).columns
            except DefinitionError:
                continue
            pending += [refs[one] for one in read]
    return {str(ref) for ref in found}


def readers_of(columns: ContractColumns, name: str) -> set[str]:
    """The views that an output column's value is made of."""
    views: set[str] = set()
    aliases = {join.alias: join.view for join in columns.service.views}
    static = {columns.names[ref]: ref.view for ref in columns.service.static_columns}
    for text in _references(columns, name):
        namespace, _, column = text.partition(":")
        if namespace == "rolling":
            spec = columns.specs[column]
            views.add(spec.history_view or columns.spine.name)
            read = {*spec.group_by, spec.value_column or "", *columns.spec_columns(spec)}
            views |= {aliases[static[one]] for one in read if one in static}
        elif namespace == "lookback":
            views |= {one.view for one in columns.lookbacks() if one.name == column}
        else:
            views.add(aliases.get(namespace, namespace))
    return views
