"""Which Arrow columns a run of SQL operators only passes on, so that their values need not enter DuckDB."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from daedalus.catalog.model import Unset
from daedalus.pipelines.operators import ROW, Filter, Join, PointInTimeJoin, Project, ProjectColumn
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daedalus.pipelines.operators import AnyOperator

#: What an operator says of relations, whose names are made of those of columns.
_OF_RELATIONS = ("name", "inputs", "output")


@dataclass(frozen=True, slots=True)
class HeldColumns:
    """Columns kept aside, the operators without them, and where they come back.

    Attributes:
        columns: the held columns of the chunk.
        operators: the operators, with pass-through columns taken out of the last replacing projection.
        outputs: (output name, held column or empty for one that SQL makes) in output order; empty keeps all.
    """

    columns: tuple[str, ...]
    operators: tuple[AnyOperator, ...]
    outputs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, operators: Sequence[AnyOperator], candidates: Iterable[str]) -> HeldColumns:
        """Hold the candidates that no expression reads; only a final replacing projection may rename them."""
        last = operators[-1]
        replacing = [op for op in operators if isinstance(op, Project) and not op.extend]
        if replacing and (len(replacing) > 1 or replacing[0] is not last):
            return cls((), tuple(operators), ())
        read = [(operator, _text(operator)) for operator in operators]
        free = {name for name in candidates if not any(_reads(name, *one) for one in read)}
        if not isinstance(last, Project) or last.extend:
            return cls(tuple(free), tuple(operators), ())
        outputs = tuple((column.name, _passed(column, free)) for column in last.columns)
        kept = tuple(column for column in last.columns if not _passed(column, free))
        trimmed = dataclasses.replace(last, columns=kept)
        return cls(tuple(free), (*operators[:-1], trimmed), outputs)

    def beside(self, result: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
        """The SQL result with the held columns of the same rows, in output order."""
        if not self.outputs:
            for name in self.columns:
                result = result.append_column(name, columns[name])
            return result
        positions = [name for name in result.column_names if name not in dict(self.outputs)]
        made = {name: columns[held] if held else result.column(name) for name, held in self.outputs}
        return pa.table(made | {name: result.column(name) for name in positions})

    def restore(self, result: pa.Table, chunk: pa.Table) -> pa.Table:
        """The SQL result with the held columns beside its rows, in output order."""
        if not self.columns:
            return result
        places = pc.index_in(result.column(ROW), value_set=chunk.column(ROW).combine_chunks())
        everything = result.num_rows == chunk.num_rows

        def rows_of(name: str) -> pa.ChunkedArray:
            column = chunk.column(name)
            return column if everything else column.take(places)

        return self.beside(result, {name: rows_of(name) for name in self.columns})


def _passed(column: ProjectColumn, free: set[str]) -> str:
    """The held column that an output column is, or an empty string."""
    name = next((one for one in free if column.sql == quote_ident(one)), "")
    fills = not column.nullable and (column.default is not Unset.UNSET or column.default_sql)
    return "" if fills else name


def _text(operator: AnyOperator) -> str:
    """All that the operator says of columns, for those whose expressions have no place of their own."""
    if isinstance(operator, Project | Filter):
        return ""
    said = operator.to_dict()
    return str([value for key, value in said.items() if key not in _OF_RELATIONS])


def _reads(name: str, operator: AnyOperator, text: str) -> bool:
    """Whether the operator does more with a column than pass it on."""
    if isinstance(operator, Project):
        return any(
            column.name == name
            if operator.extend
            else not _passed(column, {name}) and _mentions(column.sql, name)
            for column in operator.columns
        ) or (operator.extend and any(_mentions(column.sql, name) for column in operator.columns))
    if isinstance(operator, Filter):
        texts = [operator.predicate, *(sql for _, sql in operator.counts)]
        return name in operator.group_by or any(_mentions(text, name) for text in texts)
    if isinstance(operator, Join | PointInTimeJoin) and not getattr(operator, "specs", ()):
        return name in {left for left, _ in operator.on} | {made for made, _ in operator.columns}
    return quote_ident(name) in text or name in text


def _mentions(sql: str, name: str) -> bool:
    """Whether the text may refer to the column; a false alarm only costs a copy."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sql, re.IGNORECASE) is not None
