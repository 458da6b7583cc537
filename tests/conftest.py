"""Shared by all tests: how hard hypothesis looks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

from support.servers import _s3_process, postgres_server, redis_server, s3_server  # noqa: F401 - fixtures
from support.snowflake_server import _snowflake_process, snowflake_server  # noqa: F401 - fixtures

if TYPE_CHECKING:
    import pytest

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=50, **_COMMON)
settings.register_profile("thorough", max_examples=1000, **_COMMON)
# The gate draws the same examples each time: a change is judged by itself, not by the luck of the draw.
settings.register_profile("gate", max_examples=50, derandomize=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("gate" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew, for review")
