"""The events of a new project: ten days of a small shop, the same ones every time."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

DAYS, EVENTS_PER_DAY, CUSTOMERS, PRODUCTS = 10, 300, 40, 60
_START = datetime(2026, 1, 1)  # noqa: DTZ001 - a TIMESTAMP column is UTC without saying so


def write_sample(data: Path) -> int:
    """Write the three views' Parquet under `data`; returns the number of events."""
    import pyarrow as pa

    rng = random.Random(7)  # noqa: S311 - a sample, not a secret
    events = 0
    for day in range(DAYS):
        start = _START + timedelta(days=day)
        rows = [
            {
                "visit_seq": day * EVENTS_PER_DAY + number,
                "customer_id": min(int(rng.expovariate(1 / 8)), CUSTOMERS - 1) + 1,
                "product_id": min(int(rng.expovariate(1 / 15)), PRODUCTS - 1) + 1,
                "event_timestamp": start + timedelta(seconds=number * 86_400 // EVENTS_PER_DAY),
                "event": rng.choices(("view", "cart", "purchase"), weights=(8, 2, 1))[0],
            }
            for number in range(EVENTS_PER_DAY)
        ]
        _write(
            data / "visits" / f"dt={start:%Y-%m-%d}" / "part-0.parquet",
            rows,
            {"event_timestamp": pa.timestamp("us")},
        )
        events += len(rows)
    countries = ("JP", "US", "DE", None)
    profiles = [
        {
            "customer_id": customer,
            "updated_at": _START + timedelta(days=-30 + 33 * version, hours=customer),
            "country": countries[customer % 4],
            "newsletter": (customer + version) % 3 == 0,
        }
        for customer in range(1, CUSTOMERS)
        for version in range(2)
    ]
    _write(data / "customer_profile" / "part-0.parquet", profiles, {"updated_at": pa.timestamp("us")})
    products = [
        {
            "product_id": product,
            "listed_at": _START - timedelta(days=product * 3),
            "category": ("books", "tools", "games")[product % 3],
            "price": round(5 + product**1.5, 2),
        }
        for product in range(1, PRODUCTS + 1)
    ]
    _write(data / "product_info" / "part-0.parquet", products, {"listed_at": pa.timestamp("us")})
    return events


def _write(path: Path, rows: list[dict[str, Any]], types: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows)
    schema = pa.schema([(field.name, types.get(field.name, field.type)) for field in table.schema])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.cast(schema), path, compression="zstd")
