"""The operator vocabulary: nine frozen descriptions and the pipeline that orders them.

An operator holds no data and runs nothing. It says what rows it reads (`inputs`), what relation it makes
(`output`) and on which engine tier its author wants it (`engine`, a declared tag). Two walkers interpret the
same pipeline: the executor runs it, `explain` prints it.

Relations carry, beside their named columns, two positions that no contract ever outputs: `__t`, the row's
instant in ticks, and `__row`, its position in the spine view's total order. Joins and aggregations add columns
to their first input and never change the order of its rows, nor, but for an inner join, their number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from daedalus.catalog.aggregation import AggregationSpec  # noqa: TC001 - read from annotations at run time
from daedalus.catalog.model import Unset
from daedalus.errors import CompileError, did_you_mean
from daedalus.pipelines._plain import from_mapping, mapping_field, specs_field
from daedalus.pipelines.operator_base import QID_COLUMN, ROW, TICK, Engine, Node, Operator, SqlOnly

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "OPERATOR_KINDS",
    "QID_COLUMN",
    "ROW",
    "TICK",
    "AnyOperator",
    "ArrowUdfTransform",
    "Engine",
    "Filter",
    "Join",
    "JoinKind",
    "Keep",
    "Operator",
    "OperatorPipeline",
    "PointInTimeJoin",
    "Project",
    "ProjectColumn",
    "QidKind",
    "RayUdfTransform",
    "RollingAggregate",
    "Scan",
    "Sink",
    "SinkFormat",
    "TimeRange",
    "operator_from_dict",
]


class TimeRange(StrEnum):
    """Which rows of a view a scan reads, relative to the target day `D`."""

    WINDOW = "window"  # [D - lookback, D + 1 day)
    PAST = "past"  # everything before D + 1 day
    ALL = "all"  # everything, the future included


class Keep(StrEnum):
    """Which row per key a deduplicating scan keeps, by the view's total order."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan(SqlOnly):
    """Rows of a source: a feature view, or a relation of the run (`store:NAME` ids, `run:qid_map`).

    Attributes:
        source_ref: the view's name, or a run relation.
        columns: the fields to read; the view's time and row position come along where it has them.
        predicate: a boolean SQL expression over the view's fields, pushed to the source; empty reads all.
        time_range: which part of the view's time is read.
        lookback_seconds: how far before the target day a `window` range begins.
        keys: with `keep`, one row per these fields.
        keep: which one.
        ordered: number the rows in the view's total order (`__row`).
        restrict: (field, input column) pairs — read only rows whose fields occur together in the one input.
    """

    op_kind: ClassVar[str] = "scan"

    source_ref: str
    columns: tuple[str, ...] = ()
    predicate: str = ""
    time_range: TimeRange = TimeRange.ALL
    lookback_seconds: float = 0.0
    keys: tuple[str, ...] = ()
    keep: Keep | None = None
    ordered: bool = False
    restrict: tuple[tuple[str, str], ...] = mapping_field()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(SqlOnly):
    """The input's rows for which `predicate` is TRUE.

    Attributes:
        predicate: a boolean SQL expression over the input's columns, and over `counts`.
        target_day: keep only rows of the target day.
        group_by: with `counts`: rows that share these values form a group; a NULL is a value like any other.
        counts: (name, predicate) pairs; each name is the number of the group's rows for which its predicate holds.
    """

    op_kind: ClassVar[str] = "filter"

    predicate: str = ""
    target_day: bool = False
    group_by: tuple[str, ...] = ()
    counts: tuple[tuple[str, str], ...] = mapping_field()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectColumn:
    """One computed column.

    Attributes:
        sql: an expression over the input's columns; empty for a column that is only its default.
        dtype: the type to give it, without loss; empty keeps the expression's.
        default: fills the column when the source lacks it, and NULLs when not `nullable`.
        default_sql: the same as an expression without columns.
    """

    name: str
    sql: str = ""
    dtype: str = ""
    default: Any = Unset.UNSET
    default_sql: str = ""
    nullable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Project(SqlOnly):
    """Computed columns: added to the input (`extend`), or replacing all of its columns, in order.

    With `extend`, a column that the input has already is rewritten in place.
    """

    op_kind: ClassVar[str] = "project"

    columns: tuple[ProjectColumn, ...] = field(default=(), metadata={"items": ProjectColumn})
    extend: bool = False


class JoinKind(StrEnum):
    """What becomes of a left row without a match."""

    LEFT = "left"  # it stays, with NULLs
    INNER = "inner"  # it is dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(SqlOnly):
    """Columns of the right input beside each row of the left: a plain equi-join, one match at most.

    Attributes:
        on: (left column, right column) pairs; NULL matches nothing.
        columns: (output column, right column) pairs.
        how: what becomes of a left row without a match.
        marker: name of a boolean column that says whether there was a match; empty for none.
        ttl_seconds: a match older than this before the left row's time gives NULLs.
    """

    op_kind: ClassVar[str] = "join"

    on: tuple[tuple[str, str], ...] = mapping_field()
    columns: tuple[tuple[str, str], ...] = mapping_field()
    how: JoinKind = JoinKind.LEFT
    marker: str = ""
    ttl_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PointInTimeJoin(Node):
    """What the right input knew strictly before each left row.

    Either the newest right version with `u < t - delay` (`columns`), or aggregates over all right rows before
    `t` (`specs`, whose history is the right input).

    Attributes:
        on: (left column, right column) pairs, for `columns`.
        columns: (output column, right column) pairs.
        timestamp_column: the left time column, for readers; positions come from `__t`.
        created_column: the right column that says when a version became known; NULL is never known.
        delay_seconds: how long the right side's data takes to arrive.
        ttl_seconds: an older version gives NULLs.
        specs: aggregations over the right input.
    """

    op_kind: ClassVar[str] = "pit_join"

    on: tuple[tuple[str, str], ...] = mapping_field()
    columns: tuple[tuple[str, str], ...] = mapping_field()
    timestamp_column: str = ""
    created_column: str = ""
    delay_seconds: float = 0.0
    ttl_seconds: float | None = None
    specs: tuple[AggregationSpec, ...] = specs_field()
    rolling_engine: str = "duckdb"

    def can_run_on(self) -> frozenset[Engine]:
        """SQL; aggregates also as an Arrow UDF after it."""
        tiers = {Engine.SQL} if not self.specs else {Engine.SQL, Engine.SQL_ARROW_UDF}
        return frozenset(tiers)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingAggregate(Node):
    """Windowed point-in-time aggregates of each row of the first input over the second, its history.

    Attributes:
        inputs: the rows to compute, their own history, then the inputs named in `histories`.
        specs: what to aggregate.
        timestamp_column: the time column of the first input.
        histories: (history view, input) pairs for specs with a `history_view`.
        rolling_engine: which engine of `daedalus.compute` runs it.
    """

    op_kind: ClassVar[str] = "rolling_aggregate"

    specs: tuple[AggregationSpec, ...] = specs_field()
    timestamp_column: str = ""
    histories: tuple[tuple[str, str], ...] = mapping_field()
    rolling_engine: str = "duckdb"

    def can_run_on(self) -> frozenset[Engine]:
        """Every tier; the SQL tier takes the specs that `sql_refusal` does not name."""
        return frozenset(Engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowUdfTransform(Node):
    """A registered vectorized function over Arrow batches of the input, adding one column.

    Attributes:
        function: its name in the registry, or a dotted path `package.module:function`.
        arguments: the input columns it receives, in order.
        column: the column it makes.
        dtype: that column's dtype.
    """

    op_kind: ClassVar[str] = "arrow_udf_transform"

    function: str
    arguments: tuple[str, ...] = ()
    column: str = ""
    dtype: str = ""
    engine: Engine = Engine.SQL_ARROW_UDF

    def can_run_on(self) -> frozenset[Engine]:
        """After SQL, or distributed."""
        return frozenset({Engine.SQL_ARROW_UDF, Engine.PYTHONIC})


@dataclass(frozen=True, slots=True, kw_only=True)
class RayUdfTransform(Node):
    """A distributed function over the finished rows: an embedding column from a store. Always `pythonic`.

    Attributes:
        udf_name: a registered UDF, or a dotted path.
        source_id_column: the column that holds the ids (one, or a list).
        store_name: the embedding store.
        column: the column it fills.
        dtype: the contract's dtype of that column.
        dimension: the vectors' width; None takes the store's.
    """

    op_kind: ClassVar[str] = "ray_udf_transform"

    udf_name: str
    source_id_column: str
    store_name: str
    column: str = ""
    dtype: str = ""
    dimension: int | None = None
    engine: Engine = Engine.PYTHONIC

    def __post_init__(self) -> None:
        Node.__post_init__(self)
        object.__setattr__(self, "engine", Engine.PYTHONIC)
        if not self.column:
            object.__setattr__(self, "column", self.name)

    def can_run_on(self) -> frozenset[Engine]:
        """PYTHONIC only."""
        return frozenset({Engine.PYTHONIC})


class SinkFormat(StrEnum):
    """Where finished days end up."""

    PARQUET = "parquet"
    DUCKDB = "duckdb"
    DUCKLAKE = "ducklake"


class QidKind(StrEnum):
    """What a row's `qid` is."""

    MAP = "map"  # the session's number in qid_map.parquet, the same in every day and run
    DENSE = "dense"  # 0, 1, 2 ... within each day, in order of first appearance


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink(SqlOnly):
    """The terminal write: one ordered, atomic folder of Parquet per day, then the table that `format` asks for.

    Attributes:
        partition: the folder key.
        session_column: sessions that get a `qid`; empty for none.
        sessions_from: the relation whose rows, of each target day, are numbered.
        qid: what the numbers are.
        format: `duckdb` and `ducklake` copy each complete day into a table, one transaction per day.
        path: the DuckDB file or the lake's catalog; empty for the default under the output root.
        data_path: where a lake keeps its Parquet files; empty for the default beside its catalog.
    """

    op_kind: ClassVar[str] = "sink"

    partition: str = "dt"
    session_column: str = ""
    sessions_from: str = ""
    qid: QidKind = QidKind.MAP
    format: SinkFormat = SinkFormat.PARQUET
    path: str = ""
    data_path: str = ""


AnyOperator: TypeAlias = (
    Scan
    | Filter
    | Project
    | Join
    | PointInTimeJoin
    | RollingAggregate
    | ArrowUdfTransform
    | RayUdfTransform
    | Sink
)

OPERATOR_KINDS: dict[str, type[AnyOperator]] = {
    kind.op_kind: kind
    for kind in (
        Scan,
        Filter,
        Project,
        Join,
        PointInTimeJoin,
        RollingAggregate,
        ArrowUdfTransform,
        RayUdfTransform,
        Sink,
    )
}


def operator_from_dict(data: Mapping[str, Any], where: str = "") -> AnyOperator:
    """The operator that `to_dict` wrote.

    Raises:
        CompileError: an unknown kind or key, or a value of the wrong type; names the operator.
    """
    kind = data.get("op_kind")
    name = data.get("name", "?")
    place = f"{where}operator {name}"
    if not isinstance(kind, str) or kind not in OPERATOR_KINDS:
        raise CompileError(
            f"unknown op_kind {kind!r}", where=place, hint=did_you_mean(str(kind), OPERATOR_KINDS)
        )
    body = {key: value for key, value in data.items() if key != "op_kind"}
    operator: AnyOperator = from_mapping(OPERATOR_KINDS[kind], body, place)
    return operator


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorPipeline:
    """A topologically ordered tuple of operators, and the service and version it was compiled from.

    Example:
        >>> scan = Scan(name="events", source_ref="events", columns=("user_id",))
        >>> pipeline = OperatorPipeline(service="s", version="2026-01-01", operators=(scan,))
        >>> OperatorPipeline.from_yaml_dict(pipeline.to_yaml_dict()) == pipeline
        True
    """

    service: str
    version: str
    operators: tuple[AnyOperator, ...]
    file: str = field(default="", compare=False)

    def __iter__(self) -> Iterator[AnyOperator]:
        return iter(self.operators)

    def by_kind(self, op_kind: str) -> tuple[AnyOperator, ...]:
        """The operators of one kind, in order."""
        return tuple(operator for operator in self.operators if operator.op_kind == op_kind)

    def producer(self, relation: str) -> AnyOperator:
        """The operator whose output is `relation`; KeyError when there is none."""
        for operator in self.operators:
            if operator.output == relation:
                return operator
        raise KeyError(relation)

    def upstream(self, relation: str) -> tuple[AnyOperator, ...]:
        """The operators that `relation` needs, itself included, in order."""
        needed = {relation}
        for operator in reversed(self.operators):
            if operator.output in needed:
                needed.update(operator.inputs)
        return tuple(operator for operator in self.operators if operator.output in needed)

    def to_yaml_dict(self) -> dict[str, Any]:
        """Plain data for the pipeline YAML."""
        return {
            "service": self.service,
            "version": self.version,
            "operators": [operator.to_dict() for operator in self.operators],
        }

    @classmethod
    def from_yaml_dict(cls, data: Mapping[str, Any], file: str = "") -> OperatorPipeline:
        """Read what `to_yaml_dict` made; the graph is not checked here (`pipeline_checks.check_pipeline` does).

        Raises:
            CompileError: a key is missing, unknown or of the wrong type.
        """
        where = f"{file}, " if file else ""
        unknown = set(data) - {"service", "version", "operators"}
        if unknown or not isinstance(data.get("operators"), list) or "service" not in data:
            what = (
                f"unknown key {sorted(unknown)[0]!r}" if unknown else "a pipeline needs service and operators"
            )
            raise CompileError(what, where=file, hint="The keys are service, version and operators (a list)")
        operators = []
        for index, item in enumerate(data["operators"]):
            if not isinstance(item, dict):
                raise CompileError("an operator is a mapping", where=f"{where}$.operators[{index}]")
            operators.append(operator_from_dict(item, where))
        version = str(data.get("version", ""))
        return cls(service=str(data["service"]), version=version, operators=tuple(operators), file=file)
