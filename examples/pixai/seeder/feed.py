"""The feed: sessions of events, drawn block by block."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from seeder.columns import hex_texts, pick, texts, timestamps
from seeder.entities import FIRST_ARTWORK_ID, FIRST_USER_ID, artwork_created
from seeder.plan import ARTWORK_HISTORY_DAYS, DAY, HOUR, OLD_DISLIKE_DAYS, draw, scrambled, shuffle, zipf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seeder.plan import Array, Plan

BLOCK_ROWS = 262_144  # feed rows that are drawn together; part of the data, unlike `chunk_rows`
EVENTS = (
    ("reco_artwork_view", 0.42),
    ("reco_artwork_view2", 0.30),
    ("artwork_click", 0.14),
    ("like_click", 0.085),
    ("view-like", 0.025),
    ("artwork_share", 0.02),
    ("dislike_click", 0.01),
)
VIEWS = 2  # the first two events show an artwork; the others act on one that was shown
DISLIKE = len(EVENTS) - 1
COUNTRIES = (392, 840, 410, 158, 704, 360, 608, 484, 276, 643, 76, 0)
MEMBER_SOURCES = ("two_tower", "two_tower", "following", "trending", "tack", "author", "fresh", "explore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A stretch of a day's rows that is drawn together.

    Attributes:
        first_row: rows of the day before it.
        first_seq: `feed_seq` of its first row.
    """

    day: date
    number: int
    first_row: int
    rows: int
    day_rows: int
    first_seq: int

    @property
    def day_us(self) -> int:
        """The start of the day, in microseconds since 1970 UTC."""
        return (self.day - date(1970, 1, 1)).days * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """The sessions of one block: where each starts, and what is the same for all its events."""

    starts: Array
    of_row: Array
    key: Array
    user: Array


def draw_sessions(plan: Plan, rng: np.random.Generator, block: Block) -> Sessions:
    """Sessions of a heavy-tailed length that fill the block; one in a hundred goes on from the day before."""
    rows, day = block.rows, block.day.toordinal()
    longest = 2 if block.day < plan.start else 400
    lengths = np.minimum(1 + np.exp(rng.normal(2.0, 0.9, rows)).astype(np.int64), longest)
    ends = np.cumsum(lengths)
    ends = np.append(ends[ends < rows], rows)
    starts = np.concatenate(([0], ends[:-1]))
    number = np.arange(len(starts))
    resumed = rng.random(len(starts)) < 0.01
    key = scrambled(plan, "session", ((day - resumed) * 4_096 + block.number) * BLOCK_ROWS + number)
    ranks = 1 + zipf(draw(plan, "session.user", key), max(1, plan.users - 1), 0.8)
    ranks[draw(plan, "session.super", key) < plan.super_user_share] = 0
    return Sessions(
        starts=starts,
        of_row=np.repeat(number, np.diff(np.append(starts, rows))),
        key=key,
        user=shuffle(np.minimum(ranks, plan.users - 1), plan.users),
    )


def draw_times(plan: Plan, rng: np.random.Generator, block: Block, sessions: Sessions, views: Array) -> Array:
    """Event times. A page of impressions is one instant, and old clients report whole seconds: many ties."""
    rows, starts = len(views), sessions.starts
    gap = rng.exponential(np.where(views, 12_000.0, 6_000.0)).astype(np.int64) + 1
    same_page = views & np.concatenate(([False], views[:-1])) & (rng.random(rows) < 0.75)
    gap[same_page | (rng.random(rows) < 0.02)] = 0
    gap[starts] = 0
    offset = np.cumsum(gap)
    offset = np.minimum(offset - offset[starts][sessions.of_row], 3 * HOUR // 1_000)
    share = (block.first_row + starts + rng.random(len(starts))) / block.day_rows
    share -= 0.5 * np.sin(2 * np.pi * share) / (2 * np.pi)
    ends = np.append(starts[1:], rows) - 1
    pushed = draw(plan, "session.pushed", sessions.key) < 0.05
    begin = (share * DAY / 1_000).astype(np.int64)
    begin[pushed] -= begin[pushed] % 14_400_000  # a notification every four hours opens many sessions at once
    begin = np.minimum(begin, DAY // 1_000 - 1 - offset[ends])
    at = begin[sessions.of_row] + offset
    whole = draw(plan, "session.whole_seconds", sessions.key)[sessions.of_row] < 0.3
    times: Array = block.day_us + np.where(whole, at // 1_000 * 1_000, at) * 1_000
    return times


def draw_artworks(plan: Plan, rng: np.random.Generator, at: Array) -> Array:
    """An artwork for each time, popular or new; all but one in a thousand exist by then."""
    existing = (at - (plan.first_us - ARTWORK_HISTORY_DAYS * DAY)) // plan.artwork_step_us
    existing = np.clip(existing, 1, plan.artworks)
    popular = shuffle(zipf(rng.random(len(at)), plan.artworks, 0.9), plan.artworks)
    popular = np.where(popular < existing, popular, popular % existing)
    fresh = existing - 1 - zipf(rng.random(len(at)), existing, 0.95)
    u = rng.random(len(at))
    ahead = np.minimum(existing + 3, plan.artworks - 1)
    return np.where(u < 0.3, fresh, np.where(u < 0.999, popular, ahead))


def shown_before(rng: np.random.Generator, sessions: Sessions, views: Array) -> Array:
    """The row that showed each row's artwork: itself, or for an action one of its session's last six."""
    row = np.arange(len(views))
    back = 1 + (rng.random(len(views)) * np.minimum(row - sessions.starts[sessions.of_row], 6)).astype(
        np.int64
    )
    source = np.where(views, row, row - back)
    while True:  # An action may point at an action: follow, halving the distance each round.
        further = source[source]
        if np.array_equal(further, source):
            return source
        source = further


def like_counts(plan: Plan, artwork: Array, at: Array) -> Array:
    """Likes so far: a heavy tail over artworks, reached over two weeks."""
    total = np.exp(9.0 * draw(plan, "artwork.likes", artwork) ** 3)
    age = np.clip((at - artwork_created(plan, artwork)) / (14 * DAY), 0.0, 1.0)
    return (total * age).astype(np.int32)


def feed_block(plan: Plan, block: Block) -> pa.Table:
    """The block's rows, session by session, as clients upload them: not in the order of time."""
    rows, old = block.rows, block.day < plan.start
    rng = np.random.default_rng([plan.seed, 1, block.day.toordinal(), block.number])
    sessions = draw_sessions(plan, rng, block)
    of_row = sessions.of_row
    codes = np.searchsorted(np.cumsum([share for _, share in EVENTS])[:-1], rng.random(rows), side="right")
    only_looks = draw(plan, "session.only_looks", sessions.key)[of_row] < 0.15
    codes[only_looks] %= VIEWS
    codes[sessions.starts] %= VIEWS
    if old:
        codes[:] = DISLIKE
    views = (codes < VIEWS) | old
    at = draw_times(plan, rng, block, sessions, views)
    source = shown_before(rng, sessions, views)
    artwork = draw_artworks(plan, rng, at)[source]
    retriever = zipf(rng.random(rows), len(MEMBER_SOURCES), 0.6)[source]
    no_artwork, no_retriever = (rng.random(rows) < 0.002)[source], (rng.random(rows) < 0.04)[source]
    columns = {
        "user_id": FIRST_USER_ID + sessions.user[of_row],
        "artwork": artwork,
        "at": at,
        "code": codes,
        "session": of_row,
        "retriever": retriever,
        "no_artwork": no_artwork,
        "no_retriever": no_retriever,
        "likes": like_counts(plan, artwork, at),
        "no_likes": no_artwork | (rng.random(rows) < 0.01),
        "seq": block.first_seq + np.arange(rows),
    }
    repeated = rng.random(rows) < 0.003  # delivered twice: equal in every column
    repeated[1:] &= ~repeated[:-1]
    repeated[0] = False
    again = np.flatnonzero(repeated)
    for values in columns.values():
        values[again] = values[again - 1]
    return feed_table(plan, sessions, columns)


def feed_table(plan: Plan, sessions: Sessions, columns: dict[str, Array]) -> pa.Table:
    """The block as the feed's columns."""
    of_row, key = columns["session"], sessions.key
    country = np.array(COUNTRIES, dtype=np.int32)[pick(draw(plan, "user.country", sessions.user), COUNTRIES)]
    platform = 1 + zipf(draw(plan, "session.platform", key), 4, 0.8).astype(np.int32)
    names = tuple(name for name, _ in EVENTS)
    return pa.table(
        {
            "user_id": columns["user_id"],
            "artwork_id": pa.array(FIRST_ARTWORK_ID + columns["artwork"], mask=columns["no_artwork"]),
            "event_timestamp": timestamps(columns["at"]),
            "event": texts(columns["code"], names),
            "feed_session": hex_texts(key, draw(plan, "session.no_id", key) < 0.03).take(pa.array(of_row)),
            "current_like_count": pa.array(columns["likes"], mask=columns["no_likes"]),
            "country_code": pa.array(
                country[of_row], mask=(draw(plan, "session.no_geo", key) < 0.02)[of_row]
            ),
            "platform_code": pa.array(
                platform[of_row], mask=(draw(plan, "session.no_os", key) < 0.01)[of_row]
            ),
            "retriever_id": pa.array(1 + columns["retriever"].astype(np.int32), mask=columns["no_retriever"]),
            "member_source": texts(columns["retriever"], MEMBER_SOURCES, columns["no_retriever"]),
            "feed_seq": columns["seq"],
        }
    )


def feed_days(plan: Plan) -> list[tuple[date, int, int]]:
    """(day, rows, rows before it) of each day that has events, the old dislikes first."""
    month = plan.start.replace(day=1)
    old = plan.old_rows // len(OLD_DISLIKE_DAYS)
    days = [(month - timedelta(days=back), old) for back in sorted(OLD_DISLIKE_DAYS, reverse=True)]
    for number in range(plan.days):
        rows = plan.events // plan.days + (number < plan.events % plan.days)
        days.append((plan.start + timedelta(days=number), rows))
    before = np.concatenate(([0], np.cumsum([rows for _, rows in days])))
    return [(day, rows, int(before[i])) for i, (day, rows) in enumerate(days) if rows]


def feed_blocks(plan: Plan, day: date, day_rows: int, seq: int) -> Iterator[pa.Table]:
    """The day's blocks in order; `seq` is the number of its first row."""
    for number, first in enumerate(range(0, day_rows, BLOCK_ROWS)):
        rows = min(BLOCK_ROWS, day_rows - first)
        yield feed_block(
            plan,
            Block(
                day=day, number=number, first_row=first, rows=rows, day_rows=day_rows, first_seq=seq + first
            ),
        )
