"""What the SQL tier reads and what it hands back: relations, stages and parts, all as SQL text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Position of a row in its relation's total order; unique.
ROW = '"__row"'
#: Instant of a row, in ticks.
TIME = '"__t"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table, view or CTE of the connection, with BIGINT columns `__row` and `__t` beside its own.

    Attributes:
        name: the relation as quoted SQL text.
        types: (column, DuckDB type) pairs, `__row` and `__t` left out or not; a mapping is taken too.

    Example:
        >>> Relation(name='"feed"', types={"user_id": "BIGINT"}).types
        (('user_id', 'BIGINT'),)
    """

    name: str
    types: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if isinstance(self.types, Mapping):
            object.__setattr__(self, "types", tuple(self.types.items()))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name, _ in self.types)

    def dtype(self, column: str) -> str | None:
        """The type of a column, None when there is no such column."""
        return dict(self.types).get(column)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One named step of a plan: narrow integers or the history's own values, never lists per spine row.

    Attributes:
        name: its name as a CTE or table, a plain identifier.
        sql: a SELECT over the relations and the earlier stages.
        shared: read more than once, so it must be computed once.
    """

    name: str
    sql: str
    shared: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingPlan:
    """Stages to run in order, and the SELECT that streams the spine through them.

    Attributes:
        select: gives `__row` and one column per spec, a row per spine row, in no order.
        columns: the specs' names, in their order.
    """

    stages: tuple[Stage, ...]
    select: str
    columns: tuple[str, ...]

    @property
    def sql(self) -> str:
        """The whole plan as one statement."""
        if not self.stages:
            return self.select
        steps = ",\n".join(
            f"{stage.name} AS {'MATERIALIZED ' if stage.shared else ''}(\n{stage.sql}\n)"
            for stage in self.stages
        )
        return f"WITH {steps}\n{self.select}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of the specs, computed on their own: `__row` and `columns`, a row per spine row."""

    name: str
    sql: str
    columns: tuple[str, ...]
