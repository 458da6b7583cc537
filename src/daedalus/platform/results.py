"""What the operations return, as typed plain data: the schemas that JSON-RPC and MCP publish."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict


class ViewLine(TypedDict):
    """A view in short."""

    name: str
    entities: list[str]
    keys: list[str]
    fields: int
    source: str
    owner: str
    tags: list[str]
    description: str


class ServiceLine(TypedDict):
    """A service in short."""

    name: str
    version: str
    spine: str
    views: list[str]
    columns: int
    serving_allowed: bool
    owner: str
    tags: list[str]
    description: str


class CompiledPipeline(TypedDict):
    """A service as an operator DAG.

    `edited` is the hand-edited file that runs instead, where there is one.
    """

    service: str
    path: str | None
    edited: str | None
    notices: list[str]
    pipeline: dict[str, Any]


class RunState(TypedDict):
    """Where a run stands: queued, running, succeeded, failed, interrupted or cancelled."""

    run_id: str
    status: str


class RunLine(TypedDict):
    """A run in short."""

    run_id: str
    kind: str
    service: str
    version: str
    status: str
    attempt: int
    started_at: str
    seconds: float | None
    days: int | None
    days_written: int | None
    rows: int | None
    git: str
    error: str


class LogLine(TypedDict, total=False):
    """A line of a run's log: when, how serious, what happened; further keys say more."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012

    at: str
    level: str
    event: str
