"""What to write, and the draws that make it: the same plan gives the same world."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000  # in microseconds, the unit of every time here
ARTWORK_HISTORY_DAYS, USER_HISTORY_DAYS = 180, 720
OLD_DISLIKE_DAYS = (12, 27, 45, 66, 90, 120)  # days before the first month that kept only their dislikes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to write; two equal plans give the same bytes.

    Attributes:
        start: the first day of the feed.
        vectors: at most so many artworks have an embedding; the popular and the newest come first.
        super_user_share: the share of sessions that one user has.
        chunk_rows: rows per row group and entities per chunk; changes files, never values.
    """

    events: int
    days: int
    start: date
    seed: int
    users: int
    artworks: int
    vectors: int
    embedding_dim: int
    super_user_share: float
    chunk_rows: int

    @property
    def first_us(self) -> int:
        """The start of the feed, in microseconds since 1970 UTC."""
        return (self.start - date(1970, 1, 1)).days * DAY

    @property
    def artwork_step_us(self) -> int:
        """Artwork `i` is created in the `i`-th step of this length, so an id says what existed when."""
        return (ARTWORK_HISTORY_DAYS + self.days) * DAY // self.artworks

    @property
    def old_rows(self) -> int:
        """Dislikes from before the feed, over all `OLD_DISLIKE_DAYS`."""
        return len(OLD_DISLIKE_DAYS) * max(40, self.events // 1_000)


def mix(values: Array) -> Array:
    """Scramble 64-bit integers (the finalizer of SplitMix64): a bijection without visible order."""
    x = values.astype(np.uint64)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def scrambled(plan: Plan, name: str, keys: Array) -> Array:
    """One 64-bit hash per key, a stream of its own for every name."""
    stream = int.from_bytes(hashlib.blake2b(f"{plan.seed}/{name}".encode(), digest_size=8).digest(), "big")
    return mix(keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(stream))


def draw(plan: Plan, name: str, keys: Array) -> Array:
    """One uniform number in [0, 1) per key: the same for the same (seed, name, key), whoever asks."""
    return (scrambled(plan, name, keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def zipf(uniform: Array, size: Array | int, exponent: float) -> Array:
    """Ranks in [0, size) whose frequency falls with `rank ** -exponent`; `exponent` is not 1."""
    power = 1.0 - exponent
    ranks = ((np.power(np.asarray(size) + 1.0, power) - 1.0) * uniform + 1.0) ** (1.0 / power) - 1.0
    below: Array = np.minimum(ranks.astype(np.int64), np.asarray(size) - 1)
    return below


def shuffle(ranks: Array, size: int) -> Array:
    """A bijection of [0, size), so that popular ids are not the small ones."""
    step = max(1, int(size * 0.618))
    while math.gcd(step, size) != 1:
        step += 1
    return (ranks * step + size // 3) % size
