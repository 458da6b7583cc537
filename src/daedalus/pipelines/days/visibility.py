"""What of a view can be seen at an instant `T`: versions that have arrived, were known and have not expired.

A version of event time `u` is visible when `u + delay_seconds <= T`, its `created_field`, where the view has one, is
not after `T` (NULL: not known), and, where the view has a `ttl`, `u >= T - ttl`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.pipelines.operators import TICK
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.view_source import UNIT_US

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.catalog.model import FeatureViewDef

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """The instant of a materialization.

    Attributes:
        ticks: since 1970, in the run's ticks.
        rows: a DuckDB file whose table `entities` holds one row per entity, and `__row`.
        absent: the columns of these rows that the spine's source lacks.
    """

    ticks: int
    rows: Path | None = None
    absent: frozenset[str] = frozenset()


def ticks_of(instant: dt.datetime, per_second: int) -> int:
    """An instant (naive is UTC) in ticks since 1970.

    >>> ticks_of(dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC), 1_000_000)
    1000000
    """
    aware = instant.replace(tzinfo=dt.UTC) if instant.tzinfo is None else instant
    return (aware - _EPOCH) // dt.timedelta(microseconds=1) * per_second // 1_000_000


def created_ticks(column: str, dtype: str, unit: str, per_second: int) -> str:
    """SQL of the ticks since 1970 of a time column.

    Args:
        column: as SQL.
        dtype: its DuckDB type.
        unit: of an integer column: `s`, `ms`, `us`, `ns`.
        per_second: the ticks.
    """
    if not dtype.startswith(("TIMESTAMP", "DATE")):
        if unit == "ns" and per_second == 1_000_000:
            # Rounded down: DuckDB's // rounds towards 1970.
            return f"({column} // 1000 - CASE WHEN {column} % 1000 < 0 THEN 1 ELSE 0 END)"
        return f"({column} * {round(UNIT_US[unit] * per_second / 1_000_000)})"
    if per_second == 1_000_000_000:
        return f"epoch_ns(CAST({column} AS TIMESTAMP_NS))"
    return f"epoch_us(CAST({column} AS TIMESTAMP))"


def visible_sql(
    view: FeatureViewDef, created_dtype: str, as_of: AsOf, per_second: int, *, with_ttl: bool
) -> str:
    """A condition over a view's rows with `__t`; TRUE for all rows of a view without a time.

    Args:
        view: the definition.
        created_dtype: the DuckDB type of its `created_field`.
        as_of: the instant.
        per_second: ticks.
        with_ttl: whether an expired version is invisible, too.
    """
    if not view.timestamp_field:
        return "true"
    conditions = [f"{TICK} <= {as_of.ticks - round(view.delay_seconds * per_second)}"]
    created = view.source.created_field
    if created:
        known = created_ticks(quote_ident(created), created_dtype, view.source.timestamp_unit, per_second)
        conditions.append(f"{known} <= {as_of.ticks}")
    if with_ttl and view.ttl_seconds is not None:
        conditions.append(f"{TICK} >= {as_of.ticks - round(view.ttl_seconds * per_second)}")
    return " AND ".join(conditions)
