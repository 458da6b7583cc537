"""`daeda serve-api` under load while it trains: 1,000 calls, 16 at once, and how long `/healthz` takes meanwhile.

    python benchmarks/api.py [--requests 1000] [--at-once 16] [--times 1000]

A real server over a project of `daeda init` with more events a day, asked to make one day after the other, so that a
run is going all the time. Calls are a mix of every reading method, kept going by `--at-once` threads; health is asked
every 5 ms by a process of its own, also for 3 s before the calls, which shows what the run and the machine's other load
take. Prints latencies, errors, and for how much of the time a run was under way.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SERVICE = "product_ranking"
DAYS = [f"2026-01-{day:02}" for day in range(1, 8)]
MIX: list[tuple[str, dict[str, Any]]] = [
    ("service.list", {}),
    ("service.show", {"name": SERVICE}),
    ("catalog.list_views", {}),
    ("catalog.show_view", {"name": "visits"}),
    ("runs.list", {"limit": 5}),
    ("runs.get", {"run_id": "latest"}),
    ("runs.logs", {"run_id": "latest", "tail": 20}),
    ("pipeline.compile", {"service": SERVICE}),
    ("assets.lineage", {"service": SERVICE, "column": "price"}),
    ("rpc.discover", {}),
]
_PROBE = """
import http.client, json, sys, time
connection, taken, ends = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30), [], None
print("ready", flush=True)
import threading
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
while not done.wait(0.005):
    begin = time.perf_counter()  # of one clock for all processes
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    answer.read()
    taken.append((begin, time.perf_counter() - begin, answer.status))
print(json.dumps(taken))
"""


def call(connection: http.client.HTTPConnection, method: str, params: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
    connection.request("POST", "/rpc", body, {"content-type": "application/json"})
    return json.loads(connection.getresponse().read())


def enlarge(part: Path, times: int) -> None:
    """Write each row of a file of events so many times, some microseconds apart: a run is to take seconds."""
    table = pq.ParquetFile(part).read()
    rows = pa.array(np.repeat(np.arange(table.num_rows), times))
    table = table.take(rows)
    [time_column] = [one for one in table.schema if pa.types.is_timestamp(one.type)]
    micros = table[time_column.name].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    later = pa.array(micros + np.arange(len(micros)) % times).cast(pa.timestamp("us")).cast(time_column.type)
    pq.write_table(table.set_column(table.schema.get_field_index(time_column.name), time_column, later), part)


def start(folder: Path, times: int) -> tuple[subprocess.Popen[str], int]:
    environment = os.environ | {"DAEDALUS_CONFIG": str(folder / "none.toml")}
    daeda = [sys.executable, "-m", "daedalus"]
    subprocess.run([*daeda, "init", str(folder / "shop")], check=True, capture_output=True, env=environment)
    for part in (folder / "shop/data/visits").glob("*/*.parquet"):
        enlarge(part, times)
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*daeda, "serve-api", "--port", "0"],
            cwd=folder / "shop",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    said = server.stdout.readline() if server.stdout else ""
    return server, int(said.rsplit(":", 1)[1].split("/")[0])


def line(name: str, seconds: list[float]) -> str:
    ranks = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    shown = (statistics.median(seconds), ranks[94], ranks[98], max(seconds))
    return f"{name:<24} {len(seconds):>6} " + " ".join(f"{1000 * one:>9.1f}" for one in shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument(
        "--times", type=int, default=1000, help="how often each of 300 events a day is written"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        server, port = start(Path(name), given.times)
        try:
            measure(port, given)
        finally:
            server.send_signal(signal.SIGTERM)
            print(f"server ended with {server.wait(60)}")


def keep_training(port: int, over: threading.Event, states: list[list[str]]) -> None:
    """Have one day after the other made; notes the states of the newest runs now and then."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for day in itertools.cycle(DAYS):
        if over.is_set():
            break
        call(connection, "runs.materialize_partition", {"service": SERVICE, "partition": day})
        runs = call(connection, "runs.list", {"limit": 20})["result"]
        states.append([run["status"] for run in runs])
        over.wait(0.1)


def measure(port: int, given: argparse.Namespace) -> None:
    over = threading.Event()
    states: list[list[str]] = []
    training = threading.Thread(target=keep_training, args=(port, over, states))
    training.start()
    while "running" not in itertools.chain(*states):
        time.sleep(0.05)
    probe = subprocess.Popen(
        [sys.executable, "-c", _PROBE, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert probe.stdout is not None
    assert probe.stdin is not None
    probe.stdout.readline()
    time.sleep(3)
    alone = time.perf_counter()
    taken: dict[str, list[float]] = defaultdict(list)
    errors: list[Any] = []
    work = itertools.islice(itertools.cycle(MIX), given.requests)
    lock = threading.Lock()

    def keep_asking() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with lock:
                method, params = next(work, ("", {}))
            if not method:
                return
            begin = time.perf_counter()
            try:
                answer = call(connection, method, params)
            except (OSError, ValueError, http.client.HTTPException) as error:
                answer = {"error": repr(error)}
            seconds = time.perf_counter() - begin
            with lock:
                taken[method].append(seconds)
                if "error" in answer:
                    errors.append((method, answer["error"]))

    states.clear()
    begun = time.perf_counter()
    threads = [threading.Thread(target=keep_asking) for _ in range(given.at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun
    health = json.loads(probe.communicate("")[0])
    over.set()
    training.join()
    busy = sum("running" in some for some in states) / max(len(states), 1)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; milliseconds")
    print(f"{'':<24} {'n':>6} {'p50':>9} {'p95':>9} {'p99':>9} {'max':>9}")
    for method, seconds in sorted(taken.items()):
        print(line(method, seconds))
    print(line("all calls", [one for some in taken.values() for one in some]))
    print(line("GET /healthz", [seconds for begin, seconds, _ in health if begin >= alone]))
    print(line("  before the calls", [seconds for begin, seconds, _ in health if begin < alone]))
    print(f"{given.requests / wall:.0f} calls per second; a run was under way {busy:.0%} of the time")
    print(f"errors: {len(errors)}; healthz not 200: {sum(status != 200 for *_, status in health)}")
    for error in errors[:5]:
        print(" ", error)


if __name__ == "__main__":
    main()
