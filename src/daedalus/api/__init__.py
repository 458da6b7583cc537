"""`daeda serve-api`: the operations of `daedalus.platform` over JSON-RPC 2.0.

One endpoint, `POST /rpc`, besides `GET /healthz` and `GET /readyz`. Needs the extra `api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daedalus.api.app import create_app
    from daedalus.api.server import serve

__all__ = ["create_app", "serve"]


def __getattr__(name: str) -> Any:
    # The web stack is imported where it is used.
    if name == "create_app":
        from daedalus.api.app import create_app

        return create_app
    if name == "serve":
        from daedalus.api.server import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
