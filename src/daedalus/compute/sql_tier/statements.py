"""The tier's statements: one plan for all specs, or independent parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.compute.sql_tier.exclusion import exclusion_stages
from daedalus.compute.sql_tier.frames import frames_stage, history_stage
from daedalus.compute.sql_tier.items import sources_of
from daedalus.compute.sql_tier.lists import list_stages
from daedalus.compute.sql_tier.outputs import joins, output, shared_columns
from daedalus.compute.sql_tier.relations import ROW, Part, RollingPlan
from daedalus.compute.sql_tier.windows import window_stages
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.compute.sql_tier.items import Source
    from daedalus.compute.sql_tier.outputs import Output
    from daedalus.compute.sql_tier.relations import Relation, Stage


def rolling_plan(
    specs: Sequence[AggregationSpec],
    *,
    spine: Relation,
    histories: Mapping[str | None, Relation],
    ticks_per_second: int,
    prefix: str = "rolling_",
) -> RollingPlan:
    """The stages and the final select that compute all specs.

    Args:
        specs: what to compute; each must pass `sql_refusal`.
        spine: the rows to compute, with `__row` and `__t`.
        histories: per `history_view` its rows, None for the spine view's own longer history; every `__t` in
            the unit of the spine's.
        ticks_per_second: of `__t`.
        prefix: begins every stage's name; a plain identifier.

    Raises:
        DefinitionError: a spec that `sql_refusal` refuses, an unknown column or history view, or a condition
            that does not parse.
    """
    sources = sources_of(
        specs, spine=spine, histories=histories, ticks_per_second=ticks_per_second, prefix=prefix
    )
    stages = [stage for source in sources for stage in _stages(source, spine)]
    names = tuple(spec.name for spec in specs)
    results: dict[int, Output] = {}
    raw = f"SELECT s.{ROW} FROM {spine.name} AS s"
    for source in sources:
        outputs = {item.index: output(source, item, ticks_per_second) for item in source.items}
        results |= outputs
        raws = [column for found in outputs.values() for column in found.raw] + shared_columns(source)
        columns = [f"{sql} AS {name}" for name, sql in raws]
        # Each source joins its stages to what came before, so that one pipeline streams through all of them.
        raw = "\n".join([f"SELECT s.*, {', '.join(columns)}", f"FROM (\n{raw}\n) AS s", *joins(source)])
    cuts = [f"{sql} AS {name}" for found in results.values() for name, sql in found.cut]
    if cuts:
        raw = f"SELECT q.*, {', '.join(cuts)}\nFROM (\n{raw}\n) AS q"
    selected = [ROW, *(f"{results[index].value} AS {quote_ident(name)}" for index, name in enumerate(names))]
    return RollingPlan(
        stages=tuple(stages), select=f"SELECT {', '.join(selected)}\nFROM (\n{raw}\n) AS q", columns=names
    )


def rolling_select(
    specs: Sequence[AggregationSpec],
    *,
    spine: Relation,
    histories: Mapping[str | None, Relation],
    ticks_per_second: int,
) -> str:
    """One statement that gives `__row` and a column per spec, a row per spine row, in no order.

    Same arguments and errors as `rolling_plan`.
    """
    return rolling_plan(specs, spine=spine, histories=histories, ticks_per_second=ticks_per_second).sql


def rolling_parts(
    specs: Sequence[AggregationSpec],
    *,
    spine: Relation,
    histories: Mapping[str | None, Relation],
    ticks_per_second: int,
) -> tuple[Part, ...]:
    """The specs in statements of their own, one per (history, keys, condition), to bound the memory of each.

    Same arguments and errors as `rolling_plan`.
    """
    groups: dict[tuple[object, ...], list[AggregationSpec]] = {}
    for spec in specs:
        key = (spec.history_view, spec.group_by, spec.history_keys, spec.condition)
        groups.setdefault(key, []).append(spec)
    found = []
    for number, members in enumerate(groups.values()):
        plan = rolling_plan(members, spine=spine, histories=histories, ticks_per_second=ticks_per_second)
        found.append(Part(name=f"rolling_part{number}", sql=plan.sql, columns=plan.columns))
    return tuple(found)


def _stages(source: Source, spine: Relation) -> list[Stage]:
    return [
        history_stage(source),
        frames_stage(source, spine),
        *exclusion_stages(source),
        *list_stages(source),
        *window_stages(source),
    ]
