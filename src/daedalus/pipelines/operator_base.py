"""What every operator has: its name, the relations it reads and makes, the tier it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

from daedalus.pipelines._plain import as_mapping

#: The row's position in the spine view's total order, and its instant in ticks: beside the named columns.
ROW = "__row"
TICK = "__t"
#: The number of a row's session, appended to the output; an operational id.
QID_COLUMN = "qid"


class Engine(StrEnum):
    """The tier an operator runs on: chosen by the author, never inferred."""

    SQL = "sql"
    SQL_ARROW_UDF = "sql_arrow_udf"
    PYTHONIC = "pythonic"


@runtime_checkable
class Operator(Protocol):
    """What every operator has. `output` defaults to `name`."""

    op_kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Unique node id."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The relations it reads: outputs of operators before it."""

    @property
    def output(self) -> str:
        """The relation it makes."""

    @property
    def engine(self) -> Engine:
        """The declared tier."""

    def can_run_on(self) -> frozenset[Engine]:
        """The tiers that this kind is capable of."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `operator_from_dict` turns back into an equal operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The fields that all kinds share; `engine` is the author's choice, by default the plainest that fits."""

    op_kind: ClassVar[str] = ""

    name: str
    inputs: tuple[str, ...] = ()
    output: str = ""
    engine: Engine = Engine.SQL

    def __post_init__(self) -> None:
        if not self.output:
            object.__setattr__(self, "output", self.name)

    def can_run_on(self) -> frozenset[Engine]:
        """By default, just the declared engine."""
        return frozenset({self.engine})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, defaults left out."""
        return {"op_kind": self.op_kind, **as_mapping(self)}


class SqlOnly(Node):
    """Kinds that are SQL and nothing else."""

    __slots__ = ()

    def can_run_on(self) -> frozenset[Engine]:
        """SQL only."""
        return frozenset({Engine.SQL})
