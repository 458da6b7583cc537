"""Freed memory goes back to the machine, where an allocator would rather hold it for later."""

from __future__ import annotations

import ctypes
import sys

import pyarrow as pa


def give_back_memory() -> None:
    """Let Arrow and the C library return what they hold and nobody uses: the next phase allocates elsewhere."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim is not None:
            trim(0)
