"""Arrow columns as integers that compare the way the values do.

`keys` turn a column of any scalar type into int64: equal keys are equal values (NaN is NaN, -0.0 is 0.0),
and keys made with `ordered` rise with the values. All comparing and sorting of the engines happens on keys;
the values themselves are only ever taken from the Arrow input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SIGN = np.uint64(1 << 63)
_LARGE = {
    pa.string(): pa.large_string(),
    pa.string_view(): pa.large_string(),
    pa.binary(): pa.large_binary(),
    pa.binary_view(): pa.large_binary(),
}


@dataclass(frozen=True, slots=True)
class Keys:
    """A column as int64 keys; where `valid` is False the value is NULL and the key means nothing."""

    keys: NDArray[np.int64]
    valid: NDArray[np.bool_]


def whole(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece; text and bytes beyond 2 GiB, and views, become their large variant."""
    if column.type in (pa.string_view(), pa.binary_view()):
        column = column.cast(_LARGE[column.type])
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    if not isinstance(combined, pa.ChunkedArray):
        return combined
    if combined.num_chunks == 0:
        return pa.array([], combined.type)
    if combined.num_chunks == 1:
        return combined.chunk(0)
    return pa.concat_arrays(combined.cast(_LARGE[combined.type]).chunks)


def validity(array: pa.Array) -> NDArray[np.bool_]:
    """Per row whether there is a value; a NULL inside a dictionary is none."""
    if array.null_count == 0 and not pa.types.is_dictionary(array.type):
        return np.ones(len(array), np.bool_)
    return _numpy(pc.is_valid(decoded(array)))


def decoded(array: pa.Array) -> pa.Array:
    """The plain values: dictionaries and extension types undone, small decimals widened."""
    if isinstance(array, pa.ExtensionArray):
        return decoded(array.storage)
    if pa.types.is_dictionary(array.type):
        return decoded(array.dictionary.take(array.indices))
    if pa.types.is_decimal32(array.type) or pa.types.is_decimal64(array.type):
        return array.cast(pa.decimal128(array.type.precision, array.type.scale))
    return array


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values under a dictionary or an extension."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    return plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def fixed_width_view(array: pa.Array) -> NDArray[Any] | None:
    """The values as an array of unsigned integers of their width; None for types stored otherwise."""
    kind = array.type
    if not (
        pa.types.is_primitive(kind) and not pa.types.is_boolean(kind) and kind.bit_width in {8, 16, 32, 64}
    ):
        return None
    return _buffer(array, np.dtype(f"u{kind.bit_width // 8}"))


def _buffer(array: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    data = array.buffers()[1]
    if data is None or len(array) == 0:
        return np.zeros(len(array), dtype)
    return np.frombuffer(data, dtype, count=len(array), offset=array.offset * dtype.itemsize)


def _numpy(array: pa.Array) -> NDArray[Any]:
    result: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return result


def floats(array: pa.Array) -> NDArray[np.float64]:
    """The numbers as float64; anything where NULL."""
    array = decoded(array)
    width = array.type.bit_width // 8
    code = "f" if pa.types.is_floating(array.type) else _integer_code(array.type)
    return _buffer(array, np.dtype(f"{code}{width}")).astype(np.float64)


def integers(array: pa.Array) -> NDArray[Any]:
    """Whole numbers as int64, or uint64 where that is their type; anything where NULL."""
    array = decoded(array)
    raw = _buffer(array, np.dtype(f"{_integer_code(array.type)}{array.type.bit_width // 8}"))
    return raw if raw.dtype == np.uint64 else raw.astype(np.int64, copy=False)


def _integer_code(kind: pa.DataType) -> str:
    return "u" if pa.types.is_unsigned_integer(kind) else "i"


def common_type(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    """The type in which values of both can be compared exactly; None when there is none."""
    one, two = plain_type(one), plain_type(two)
    if one == two or pa.types.is_null(two):
        return one
    if pa.types.is_null(one):
        return two
    if pa.types.is_integer(one) and pa.types.is_integer(two):
        return pa.decimal128(20, 0) if pa.uint64() in (one, two) else pa.int64()
    if pa.types.is_floating(one) and pa.types.is_floating(two):
        return pa.float64()
    for kinds in ((pa.string(), pa.large_string(), pa.string_view()), (pa.binary(), pa.large_binary())):
        if one in kinds and two in kinds:
            return kinds[1]
    return None


def joint_keys(arrays: Sequence[pa.Array], *, ordered: bool = False) -> tuple[Keys, ...]:
    """Keys of columns that are compared with one another; their types have a `common_type`."""
    plain = [decoded(array) for array in arrays]
    kind = plain[0].type
    for array in plain[1:]:
        kind = common_type(kind, array.type) or kind
    plain = [array if array.type == kind else array.cast(kind) for array in plain]
    valid = [validity(array) for array in plain]
    direct = [_direct_keys(array) for array in plain]
    keys = [key for key in direct if key is not None]
    if len(keys) < len(plain):
        keys = _encoded_keys(plain, ordered)
    return tuple(Keys(key, mask) for key, mask in zip(keys, valid, strict=True))


def _direct_keys(array: pa.Array) -> NDArray[np.int64] | None:
    """Keys straight from the stored bits, rising with the values; None for types that need encoding."""
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.int64)
    if pa.types.is_boolean(kind):
        return _numpy(array.fill_null(False)).astype(np.int64)
    if pa.types.is_floating(kind):
        return _float_keys(floats(array))
    if pa.types.is_integer(kind):
        raw = integers(array)
        return (raw ^ _SIGN).view(np.int64) if raw.dtype == np.uint64 else raw
    if pa.types.is_temporal(kind) and kind.id != pa.month_day_nano_interval().id:
        return _buffer(array, np.dtype(f"i{kind.bit_width // 8}")).astype(np.int64, copy=False)
    return None


def _float_keys(values: NDArray[np.float64]) -> NDArray[np.int64]:
    values = values + 0.0  # -0.0 becomes 0.0
    values[np.isnan(values)] = np.nan
    bits = values.view(np.int64)
    # Negative floats order backwards by their bits; NaN's bits lie above infinity's.
    return bits ^ ((bits >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF))


def _encoded_keys(arrays: Sequence[pa.Array], ordered: bool) -> list[NDArray[np.int64]]:
    """Numbers in a common dictionary of the values, in the order of the values when `ordered`."""
    encoded = (
        pa.chunked_array([_encodable(array) for array in arrays]).dictionary_encode().unify_dictionaries()
    )
    ranks = None
    if ordered and encoded.num_chunks:
        places = _numpy(pc.sort_indices(encoded.chunk(0).dictionary))
        ranks = np.empty(len(places), np.int64)
        ranks[places] = np.arange(len(places))
    codes = np.concatenate(
        [np.zeros(0, np.int64), *(_numpy(chunk.indices.fill_null(0)) for chunk in encoded.chunks)]
    ).astype(np.int64)
    if ranks is not None and len(ranks):
        codes = ranks[codes]
    ends = np.cumsum([len(array) for array in arrays])
    return list(np.split(codes, ends[:-1]))


def _encodable(array: pa.Array) -> pa.Array:
    return array.cast(_LARGE[array.type]) if array.type in (pa.string_view(), pa.binary_view()) else array


def dense_numbers(columns: Sequence[Sequence[pa.Array]]) -> tuple[list[NDArray[np.int32]], int]:
    """Number equal key tuples alike, from 0, over several relations; -1 where any part is NULL.

    `columns[k][r]` is key column k of relation r. Returns one array per relation, and how many numbers.
    """
    sizes = [len(array) for array in columns[0]]
    if len(columns) == 1:
        near = _near_numbers(joint_keys(columns[0]), sum(sizes))
        if near is not None:
            return near
    total = np.zeros(sum(sizes), np.int64)
    valid = np.ones(sum(sizes), np.bool_)
    count = 1
    for arrays in columns:
        parts = joint_keys(arrays)
        keys = pa.array(np.concatenate([part.keys for part in parts]))
        encoded = keys.dictionary_encode()
        # Both factors are below 2**31, so the product fits.
        combined = total * len(encoded.dictionary) + _numpy(encoded.indices)
        again = pa.array(combined).dictionary_encode() if count > 1 else encoded
        total, count = _numpy(again.indices).astype(np.int64), len(again.dictionary)
        valid &= np.concatenate([part.valid for part in parts])
    total[~valid] = -1
    return list(np.split(total.astype(np.int32), np.cumsum(sizes)[:-1])), count


def _near_numbers(parts: Sequence[Keys], rows: int) -> tuple[list[NDArray[np.int32]], int] | None:
    """Keys that lie close together, counted from the lowest; None for others, which a hash table numbers."""
    from daedalus.compute import _kernels

    found = [_kernels.least_and_most(part.keys, part.valid) for part in parts]
    ends = [(int(low), int(high)) for low, high in found if low <= high]
    if not ends:
        return [np.full(len(part.keys), -1, np.int32) for part in parts], 1
    low = min(end[0] for end in ends)
    count = max(end[1] for end in ends) - low + 1
    if count > 2 * rows or count > np.iinfo(np.int32).max:
        return None
    return [_kernels.count_from(part.keys, part.valid, low) for part in parts], count
