"""A store of its own for each test, on the session's server."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from daedalus.online import OnlineStoreConfig, RedisOnlineStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import RedisServer


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisOnlineStore]:
    found = RedisOnlineStore(OnlineStoreConfig(url=redis_server.url, namespace=f"t{secrets.token_hex(4)}"))
    yield found
    found.close()
