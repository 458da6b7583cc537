"""The registry of functions for `ArrowUdfTransform`: Arrow columns in, one Arrow column out.

A function gets one array per argument column, all of one length, and returns an array of that length. It must
depend on nothing else, for it sees the day in chunks of any size.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.pipelines.function_code import look_in_project

if TYPE_CHECKING:
    from daedalus.pipelines.operators import ArrowUdfTransform

ENTRY_POINT_GROUP = "daedalus.arrow_udfs"


class ArrowUdf(Protocol):
    """A vectorized function over columns."""

    def __call__(self, *columns: pa.Array) -> pa.Array:
        """One value per row."""


def list_length(values: pa.Array) -> pa.Array:
    """Number of items of each list; NULL for a NULL list.

    >>> list_length(pa.array([[1, 2], [], None])).to_pylist()
    [2, 0, None]
    """
    return pc.list_value_length(values).cast(pa.int64())


def flatten_distinct(values: pa.Array) -> pa.Array:
    """The distinct items of each list of lists, kept where they occur last, in order; NULLs skipped.

    >>> flatten_distinct(pa.array([[[1, 2], [2, 3, 1]], [], None])).to_pylist()
    [[2, 3, 1], [], None]
    """
    import polars as pl

    frame = pl.DataFrame({"lists": pl.from_arrow(values)}).with_row_index("row")
    items = (
        frame.explode("lists", empty_as_null=True)
        .explode("lists", empty_as_null=True)
        .drop_nulls("lists")
        .unique(["row", "lists"], keep="last", maintain_order=True)
        .group_by("row", maintain_order=True)
        .agg(pl.col("lists").alias("items"))
    )
    empty = pl.when(pl.col("lists").is_not_null()).then(pl.lit([], dtype=items.schema["items"]))
    joined = frame.join(items, on="row", how="left", maintain_order="left")
    column = joined.select(pl.coalesce("items", empty).alias("items"))["items"]
    return column.to_arrow().cast(pa.list_(values.type.value_type.value_type))


_BUILT_IN: dict[str, ArrowUdf] = {"flatten_distinct": flatten_distinct, "list_length": list_length}
_registered: dict[str, ArrowUdf] = {}


def register_arrow_udf(name: str, function: ArrowUdf) -> None:
    """Make `function` known under `name` in this process (and not in worker processes: use an entry point)."""
    _registered[name] = function


def resolve_arrow_udf(name: str, where: str = "") -> ArrowUdf:
    """The function of that name: registered, built in, an entry point, or a dotted path `package.module:function`.

    Raises:
        DefinitionError: there is none, with near matches; its module does not import; or it cannot be called.
    """
    found: Any = _registered.get(name) or _BUILT_IN.get(name)
    if found is None and ":" in name:
        module, _, attribute = name.partition(":")
        look_in_project()
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # the module is the user's: whatever it raises
            kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
            raise DefinitionError(f"cannot load {name!r}: {kind}{error}", where=where) from error
    if found is None:
        matching = entry_points(group=ENTRY_POINT_GROUP, name=name)
        found = next(iter(matching)).load() if matching else None
    if found is None:
        raise DefinitionError(
            f"unknown Arrow UDF {name!r}", where=where, hint=did_you_mean(name, {**_BUILT_IN, **_registered})
        )
    if not callable(found):
        raise DefinitionError(f"{name!r} is no function, but a {type(found).__name__}", where=where)
    function: ArrowUdf = found
    return function


def apply_arrow_udf(operator: ArrowUdfTransform, table: pa.Table, kind: pa.DataType) -> pa.Table:
    """The table with the operator's column, added or replaced.

    Raises:
        ExecutionError: the function failed, or returned the wrong length or type; names operator and function.
    """
    function = resolve_arrow_udf(operator.function, f"operator {operator.name}")
    arguments = [_whole(table.column(name)) for name in operator.arguments]
    try:
        made = function(*arguments)
    except Exception as error:
        raise ExecutionError(f"{operator.function} failed: {error}", operator=operator.name) from error
    if not isinstance(made, pa.Array | pa.ChunkedArray):
        raise ExecutionError(
            f"{operator.function} returned a {type(made).__name__}, not an Arrow array",
            operator=operator.name,
        )
    if len(made) != table.num_rows:
        raise ExecutionError(
            f"{operator.function} returned {len(made)} values for {table.num_rows} rows",
            operator=operator.name,
        )
    try:
        column = made.cast(kind)
    except pa.ArrowInvalid as error:
        raise ExecutionError(
            f"{operator.function} returned {made.type}, which does not fit {kind}: {error}",
            operator=operator.name,
        ) from error
    index = table.schema.get_field_index(operator.column)
    if index >= 0:
        return table.set_column(index, operator.column, column)
    return table.append_column(operator.column, column)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
