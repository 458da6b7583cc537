"""The types in which a day's rows are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from daedalus.catalog.dtypes import canonical_dtype, to_arrow
from daedalus.pipelines.days.shape import output_operator
from daedalus.pipelines.operators import ROW, TICK, Project

if TYPE_CHECKING:
    from daedalus.pipelines.operators import OperatorPipeline


def output_schema(pipeline: OperatorPipeline, first: pa.Schema) -> pa.Schema:
    """The Arrow schema of the output: the contract's dtypes, and where it gives none, the values' own.

    Args:
        pipeline: its last projection is the contract.
        first: the schema in which the values arrive.
    """
    final = output_operator(pipeline)
    declared = {column.name: column.dtype for column in final.columns} if isinstance(final, Project) else {}
    fields = []
    for field in first:
        dtype = declared.get(field.name, "")
        kind = to_arrow(canonical_dtype(dtype)) if dtype else plain_type(field.type)
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """A type as Daedalus writes it: list items are named `item` and nullable, no large or view types."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field("item", plain_type(kind.value_type)))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return kind


def without_positions(table: pa.Table) -> pa.Table:
    """The table's named columns."""
    return table.drop_columns([name for name in (ROW, TICK) if name in table.column_names])
