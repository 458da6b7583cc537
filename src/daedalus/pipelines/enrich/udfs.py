"""Enrichment UDFs: the two that ship, and the registry in which a user adds others.

A UDF turns the ids of a batch of rows into one list per row:

    def max_pool(batch: UdfBatch) -> pa.Array: ...

and is named in `udf_name` by the name it was registered under (`register_udf`, or an entry point of the group
`daedalus.udfs`), or by its dotted path `package.module:function`. It sees a part of a day's rows at a time,
must treat each row by itself, and must give the same answer whenever it is asked. A class is made once per
worker, without arguments, and called like a function. On Ray a UDF runs in other processes, which import its
module or, for one defined in a script, get a copy.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from daedalus.errors import DefinitionError, did_you_mean
from daedalus.pipelines.enrich.kernels import pool_half, pool_single
from daedalus.pipelines.function_code import look_in_project
from daedalus.storage.embedding_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "RegisteredUdf",
    "Udf",
    "UdfBatch",
    "avg_pool_embeddings_udf",
    "known_udfs",
    "lookup_embedding_udf",
    "register_udf",
    "resolve_udf",
]

ENTRY_POINTS = "daedalus.udfs"
Takes = Literal["id", "ids", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UdfBatch:
    """The ids of some rows, and the vectors the store has for them.

    Attributes:
        ids: the source column, as the skeleton has it.
        offsets: (rows + 1,) int64; row `r` has the ids `offsets[r]` to `offsets[r + 1]`, counted from 0. A
            column with one id per row has one per row here too; a NULL list has none.
        slots: int64, per id its row in `vectors`; -1 for NULL and for an id the store lacks.
        vectors: (k, dimension) of the store's dtype. Read only; also holds vectors no row here asks for.
    """

    ids: pa.Array
    offsets: NDArray[np.int64]
    slots: NDArray[np.int64]
    vectors: NDArray[Any]

    @property
    def rows(self) -> int:
        """Rows of the answer."""
        return len(self.offsets) - 1

    @property
    def dimension(self) -> int:
        """Elements of each vector."""
        return int(self.vectors.shape[1])


class Udf(Protocol):
    """One list per row, in row order; NULL where there is nothing to say."""

    def __call__(self, batch: UdfBatch, /) -> pa.Array:
        """The column for `batch.rows` rows, of the contract's type."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredUdf:
    """A UDF under its name.

    Attributes:
        takes: `id` for a column with one id per row, `ids` for a column of lists, `any` for both.
        store_typed: it answers with vectors of the store's dtype and dimension, so a contract that says
            otherwise is refused before anything runs.
    """

    name: str
    function: Udf
    takes: Takes = "any"
    store_typed: bool = False


def lookup_embedding_udf(batch: UdfBatch) -> pa.Array:
    """Each row's id looked up: its vector, NULL where the store has none."""
    valid = batch.slots >= 0
    return lists_of(batch.vectors[batch.slots[valid]], valid)


def avg_pool_embeddings_udf(batch: UdfBatch) -> pa.Array:
    """The mean of the vectors of each row's ids.

    Semantics: every occurrence of an id counts once, so an id twice counts twice; ids the store lacks do not
        count. Added in list order in float32, then rounded to the store's dtype. No vector at all: NULL.
    """
    half = batch.vectors.dtype == np.float16
    bits: Any = np.uint16 if half else np.float32
    means = np.empty((batch.rows, batch.dimension), dtype=bits)
    valid = np.empty(batch.rows, dtype=np.bool_)
    kernel = compiled(pool_half if half else pool_single)
    written = kernel(batch.vectors.view(bits), batch.offsets, batch.slots, means, valid)
    return lists_of(means[:written].view(batch.vectors.dtype), valid)


def lists_of(vectors: NDArray[Any], valid: NDArray[np.bool_]) -> pa.Array:
    """A list column: the next of `vectors` for each True, NULL for each False."""
    dimension = vectors.shape[1]
    ends = np.zeros(len(valid) + 1, dtype=np.int64)
    np.cumsum(valid, out=ends[1:])
    ends *= dimension
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{len(valid)} rows of {dimension} elements do not fit one Arrow list column")
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    buffers = [
        None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little")),
        pa.py_buffer(ends.astype(np.int32)),
    ]
    return pa.Array.from_buffers(
        pa.list_(pa.field("item", values.type)), len(valid), buffers, children=[values]
    )


_REGISTERED: dict[str, RegisteredUdf] = {
    udf.name: udf
    for udf in (
        RegisteredUdf(
            name="lookup_embedding_udf", function=lookup_embedding_udf, takes="id", store_typed=True
        ),
        RegisteredUdf(
            name="avg_pool_embeddings_udf", function=avg_pool_embeddings_udf, takes="ids", store_typed=True
        ),
    )
}
_SHIPPED = frozenset(_REGISTERED)


def register_udf(name: str, function: Udf, *, takes: Takes = "any") -> None:
    """Make `function` known as `name`, in this process and in the Ray workers of its runs.

    Args:
        name: what `udf_name` says.
        function: the UDF.
        takes: whether its source column has one `id` per row, a list of `ids`, or `any` of both.

    Raises:
        DefinitionError: the name belongs to a shipped UDF, or the function cannot be called.
    """
    if name in _SHIPPED:
        raise DefinitionError(f"{name!r} is a shipped UDF", where="register_udf", hint="Choose another name")
    _REGISTERED[name] = RegisteredUdf(
        name=name, function=_callable(function, name, "register_udf"), takes=takes
    )


def known_udfs() -> tuple[str, ...]:
    """The names `udf_name` can say, besides dotted paths."""
    return tuple(sorted({*_REGISTERED, *(point.name for point in entry_points(group=ENTRY_POINTS))}))


def resolve_udf(name: str, where: str = "") -> RegisteredUdf:
    """The UDF called `name`: registered, an entry point, or a dotted path.

    Raises:
        DefinitionError: there is none, or its module does not import.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    for point in entry_points(group=ENTRY_POINTS, name=name):
        try:
            loaded = point.load()
        except Exception as problem:
            raise _not_loaded(name, where, problem) from problem
        return _registered(name, loaded, where)
    if ":" not in name:
        raise DefinitionError(f"unknown UDF {name!r}", where=where, hint=_hint(name))
    module, _, attribute = name.partition(":")
    look_in_project()
    try:
        loaded = importlib.import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except Exception as problem:
        raise _not_loaded(name, where, problem) from problem
    return _registered(name, loaded, where)


def _registered(name: str, loaded: object, where: str) -> RegisteredUdf:
    if isinstance(loaded, RegisteredUdf):
        return loaded
    return RegisteredUdf(name=name, function=_callable(loaded, name, where))


def _callable(function: Any, name: str, where: str) -> Udf:
    if not callable(function):
        raise DefinitionError(f"UDF {name!r} is a {type(function).__name__}, not a function", where=where)
    return function  # type: ignore[no-any-return]


def _not_loaded(name: str, where: str, problem: Exception) -> DefinitionError:
    return DefinitionError(
        f"UDF {name!r} cannot be imported: {type(problem).__name__}: {problem}",
        where=where,
        hint="A dotted path is `package.module:function`, importable from the project's folder",
    )


def _hint(name: str) -> str:
    return f"{did_you_mean(name, known_udfs())} Or give a dotted path, `package.module:function`"
