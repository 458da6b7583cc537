"""The online store: the newest values per entity, and recent events, for serving.

store = RedisOnlineStore(OnlineStoreConfig(url="redis://localhost:6379/0"))
table = table_of_view(catalog.view("user_profile"))
response = store.read([ReadRequest(table=table, keys=[pa.array([1, 2])])])
response.tables[0].values, response.tables[0].statuses
"""

from __future__ import annotations

from daedalus.online.metrics import metrics_text
from daedalus.online.model import (
    EVENT_TIME,
    EventCounts,
    EventIndex,
    EventRequest,
    OnlineResponse,
    OnlineStore,
    OnlineTable,
    ReadRequest,
    Status,
    StoreHealth,
    TableValues,
    WriteCounts,
    table_of_view,
)
from daedalus.online.redis_store import RedisOnlineStore
from daedalus.pipelines.settings import OnlineStoreConfig

__all__ = [
    "EVENT_TIME",
    "EventCounts",
    "EventIndex",
    "EventRequest",
    "OnlineResponse",
    "OnlineStore",
    "OnlineStoreConfig",
    "OnlineTable",
    "ReadRequest",
    "RedisOnlineStore",
    "Status",
    "StoreHealth",
    "TableValues",
    "WriteCounts",
    "metrics_text",
    "table_of_view",
]
