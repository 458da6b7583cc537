"""Files of one source whose types differ: DuckDB reads them as one type, which may round without a word.

A whole number, or a decimal, in one file and a float in another are read as the float. That is what Python's tools
make of numbers with gaps, and it does no harm while the float has room for each value; the footers say whether it has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daedalus.storage.sources.parquet_files import ParquetFile

_ITEM = re.compile(r"^(?:large_|fixed_size_)?list<[^:]+: (.*)>(?:\[\d+\])?$")
_INTEGER = re.compile(r"^u?int(8|16|32|64)$")
_DECIMAL = re.compile(r"^decimal\d+\((\d+), -?\d+\)$")
#: Bits of whole numbers, and digits of decimals, that each float has.
_ROOM = {"float": (24, 6), "double": (53, 15)}


def rounded_file(files: Iterable[ParquetFile], column: str) -> tuple[ParquetFile, str, str] | None:
    """The first file whose values of the column would be rounded: (file, its type, what it is read as)."""
    held = [
        (file, name, _inner(kind))
        for file in files
        for name, kind in file.types
        if name.lower() == column.lower()
    ]
    floats = {kind for _, _, kind in held} & {"float", "double", "halffloat"}
    if not floats or len({kind for _, _, kind in held}) == len(floats):
        return None
    widest = "double" if "double" in floats else "float"
    bits, digits = _ROOM[widest]
    for file, name, kind in held:
        whole, decimal = _INTEGER.match(kind), _DECIMAL.match(kind)
        if (whole and not _fits(file, name, int(whole[1]), bits)) or (decimal and int(decimal[1]) > digits):
            return file, kind, widest
    return None


def _inner(kind: str) -> str:
    """The type of the innermost items."""
    while match := _ITEM.match(kind):
        kind = match[1]
    return kind


def _fits(file: ParquetFile, column: str, width: int, bits: int) -> bool:
    if width <= bits:
        return True
    bounds = [
        (low, high) for name, low, high in file.integers if name == column or name.startswith(f"{column}.")
    ]
    return bool(bounds) and all(-(2**bits) <= low and high <= 2**bits for low, high in bounds)
