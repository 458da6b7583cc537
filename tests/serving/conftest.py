"""A daemon on loopback over small materializations, started once; and a connection that speaks Quack."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.serving import transport
from daedalus.serving.daemon import QuackDaemon
from daedalus.serving.relations import ServedService
from daedalus.serving.settings import Identity, Limits, ServingSettings, token_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

AS_OF = dt.datetime(2026, 5, 2, 12)  # noqa: DTZ001 - materializations say UTC without a zone
ROWS = 3_000
TOKENS = {
    name: f"{name}-token-0123456789" for name in ("reader", "narrow", "expired", "soon_expired", "stranger")
}


def values(rows: int = ROWS) -> pa.Table:
    """Values of many types, NULLs among them."""
    numbers = range(rows)
    return pa.table(
        {
            "user_id": pa.array(numbers, pa.int64()),
            'we"ird': pa.array([None if n % 7 == 0 else f"it's {n}" for n in numbers]),
            "liked": pa.array(
                [None if n % 11 == 0 else list(range(n % 5)) for n in numbers], pa.list_(pa.int64())
            ),
            "vector": pa.array(
                [None if n % 13 == 0 else [float(n % 9), 0.5] for n in numbers], pa.list_(pa.float16())
            ),
            "seen": pa.array([AS_OF + dt.timedelta(microseconds=n) for n in numbers], pa.timestamp("us")),
        }
    )


def service(folder: Path, name: str, table: pa.Table, keys: tuple[str, ...] = ("user_id",)) -> ServedService:
    """A service as `find_served` would find it."""
    file = folder / f"{abs(hash(name))}.parquet"
    pq.write_table(table, file)
    return ServedService(
        name=name,
        version="2026-05-01",
        as_of=AS_OF,
        keys=keys,
        columns=tuple(table.column_names),
        row_count=table.num_rows,
        content_hash="00",
        files=(file,),
    )


@dataclass
class Serving:
    """The running daemon, and what the tests of it need.

    Attributes:
        clock: what the daemon takes for now.
    """

    daemon: Any
    connection: duckdb.DuckDBPyConnection
    clock: list[dt.datetime] = field(default_factory=list)

    def ask(self, sql: str, who: str = "reader") -> pa.Table:
        """A statement's result."""
        return transport.ask(self.connection, self.daemon.uri, sql, TOKENS[who])

    def outcomes(self) -> dict[str, float]:
        """Statements by outcome so far."""
        registry = self.daemon.metrics.registry
        return {
            one: registry.get_sample_value("daedalus_serving_statements_total", {"outcome": one}) or 0.0
            for one in ("answered", "refused", "failed")
        }


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Three services: `ranking`, `private`, and one with an awkward name."""
    folder = tmp_path_factory.mktemp("served")
    clock = [dt.datetime(2026, 6, 1, tzinfo=dt.UTC)]
    services = [
        service(folder, "ranking", values()),
        service(folder, "private", pa.table({"user_id": [1, 2], "secret_score": [0.5, 0.25]})),
        service(
            folder, "o'brien ü", pa.table({"a": [1, 1, 2], "b": ["x", "y", "x"], "v": [1, 2, 3]}), ("a", "b")
        ),
    ]

    def identity(name: str, **options: Any) -> Identity:
        return Identity(name=name, digest=token_digest(TOKENS[name]), **options)

    settings = ServingSettings(
        identities=(
            identity("reader"),
            identity("narrow", services=frozenset({"private"})),
            identity("expired", expires=dt.datetime(2026, 5, 1, tzinfo=dt.UTC)),
            identity("soon_expired", expires=dt.datetime(2026, 7, 1, tzinfo=dt.UTC)),
        ),
        limits=Limits(rows=2_000, seconds=5.0, result_bytes=1 << 20, memory="200MB"),
    )
    with (
        QuackDaemon(services, settings, port=0, folder=folder, now=lambda: clock[0]) as daemon,
        transport.connect(threads=1) as connection,
    ):
        yield Serving(daemon=daemon, connection=connection, clock=clock)
