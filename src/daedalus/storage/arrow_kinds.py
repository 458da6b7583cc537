"""Kinds of Arrow types that several modules ask for."""

from __future__ import annotations

import pyarrow as pa


def is_list(kind: pa.DataType) -> bool:
    """Whether the values are lists, of fixed or varying length."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether the values are texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
