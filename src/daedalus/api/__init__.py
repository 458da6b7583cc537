"""`daeda serve-api`: the operations of `daedalus.platform` over JSON-RPC 2.0.

One endpoint, `POST /rpc`, besides `GET /healthz` and `GET /readyz`. Needs the extra `api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.errors import MissingExtraError

if TYPE_CHECKING:
    from daedalus.api.app import create_app
    from daedalus.api.server import serve

__all__ = ["create_app", "serve"]


def __getattr__(name: str) -> Any:
    # The web stack is imported where it is used.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import fastapi
        import uvicorn
    except ImportError:
        raise MissingExtraError(
            "the web stack is not installed", where="daeda serve-api", hint='pip install "daedalus[api]"'
        ) from None
    del fastapi, uvicorn
    from daedalus.api import app, server

    return {"create_app": app.create_app, "serve": server.serve}[name]
