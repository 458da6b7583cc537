"""Shared by all tests: how hard hypothesis looks, which files start first, and that the machine decides nothing."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.servers import _s3_process, postgres_server, redis_server, s3_server  # noqa: F401 - fixtures
from support.snowflake_server import _snowflake_process, snowflake_server  # noqa: F401 - fixtures

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=30, **_COMMON)
settings.register_profile("thorough", max_examples=1000, **_COMMON)
# The gate draws the same examples each time: a change is judged by itself, not by the luck of the draw.
settings.register_profile("gate", max_examples=30, derandomize=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("gate" if os.environ.get("CI") else "dev"))

# A shell that runs the tests in the background has them, and all they start, ignore Ctrl-C.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Nor does it matter how much memory others take: Ray would kill a worker that a test waits for.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

#: These take longest, mostly waiting: begun last, one worker would end with them alone.
_FIRST = (
    "integration/test_ray_days.py",
    "integration/test_enrich.py",
    "integration/test_dagster.py",
    "integration/test_flights.py",
    "pipelines/test_same_bytes.py",
    "faults/test_faults.py",
    "tracking/test_mlflow.py",
    "pipelines/test_bad_input.py",
    "pipelines/test_parity.py",
    "api/test_runs.py",
    "integration/test_mcp.py",
    "meta/test_docs.py",
    "pipelines/test_dag.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    places = {root / name: place for place, name in enumerate(_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew, for review")
