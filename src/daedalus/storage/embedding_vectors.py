"""Source vectors brought to the store's type, or refused with the first id that does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daedalus.errors import DefinitionError, SourceError
from daedalus.storage.arrow_kinds import is_list

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daedalus.storage.embedding_model import EmbeddingStoreDef


def check_vector_type(definition: EmbeddingStoreDef, kind: pa.DataType, where: str) -> None:
    """Refuse a column that does not hold lists of floating-point numbers."""
    if not (is_list(kind) and pa.types.is_floating(kind.value_type)):
        raise DefinitionError(
            f"column {definition.embedding_column} is {kind}, not a list of floating-point numbers",
            where=where,
            hint="Name another embedding_column",
        )


def store_vectors(definition: EmbeddingStoreDef, ids: pa.Array, vectors: pa.Array, where: str) -> pa.Array:
    """Vectors as fixed-size lists of the store's element type.

    Args:
        definition: the store.
        ids: for the messages.
        vectors: lists of half, single or double floats, without NULL.
        where: the file, for the messages.

    Semantics: widening is exact; narrowing rounds each element to the nearest representable number, ties to
        even. Infinities and NaN are kept.

    Raises:
        SourceError: a vector has another dimension, a NULL element, or a finite element too large for the
            store's type; the message names the first such id.
    """
    dimension = definition.embedding_dim
    lengths = _lengths(vectors)
    wrong = lengths != dimension
    if wrong.any():
        at = int(np.argmax(wrong))
        raise _refuse(
            definition, ids, at, f"has {lengths[at]} elements, the store has embedding_dim {dimension}", where
        )
    elements = vectors.flatten()
    if elements.null_count:
        at = int(np.argmax(elements.is_null().to_numpy(zero_copy_only=False))) // dimension
        raise _refuse(definition, ids, at, "holds a NULL element", where)
    values = _narrowed(definition, ids, elements.to_numpy(zero_copy_only=False), where)
    return pa.FixedSizeListArray.from_arrays(pa.array(values, type=definition.element_type), dimension)


def _narrowed(definition: EmbeddingStoreDef, ids: pa.Array, values: NDArray[Any], where: str) -> NDArray[Any]:
    target = np.dtype(definition.embedding_dtype)
    if values.dtype.itemsize <= target.itemsize:
        return values.astype(target, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(target)
    too_large = np.isinf(narrow) & np.isfinite(values)
    if too_large.any():
        at = int(np.argmax(too_large))
        raise _refuse(
            definition,
            ids,
            at // definition.embedding_dim,
            f"holds {values[at]:g}, which is beyond {definition.embedding_dtype}",
            where,
        )
    return narrow


def element_values(vectors: pa.Array, dtype: Any, dimension: int) -> NDArray[Any]:
    """A view of fixed-size lists without NULL as a (rows, dimension) matrix."""
    values: NDArray[Any] = np.frombuffer(
        vectors.values.buffers()[1],
        dtype=dtype,
        count=len(vectors) * dimension,
        offset=(vectors.values.offset + vectors.offset * dimension) * np.dtype(dtype).itemsize,
    )
    return values.reshape(-1, dimension)


def _lengths(vectors: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_fixed_size_list(vectors.type):
        return np.full(len(vectors), vectors.type.list_size, dtype=np.int64)
    return np.asarray(pc.list_value_length(vectors).to_numpy(zero_copy_only=False), dtype=np.int64)


def _refuse(definition: EmbeddingStoreDef, ids: pa.Array, at: int, problem: str, where: str) -> SourceError:
    return SourceError(
        f"{definition.where}: the vector of {definition.id_column} {ids[at].as_py()!r} {problem}",
        where=where,
        hint="Mend the source, or the store's definition",
    )
