"""`daeda mcp`: the operations of `daedalus.platform` as tools of the Model Context Protocol.

Over standard input and output, or streamable HTTP. Needs the extra `mcp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.errors import MissingExtraError

if TYPE_CHECKING:
    from daedalus.mcp.server import create_server
    from daedalus.mcp.transports import serve

__all__ = ["create_server", "serve"]


def __getattr__(name: str) -> Any:
    # The SDK is imported where it is used.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import mcp
    except ImportError:
        raise MissingExtraError(
            "the MCP stack is not installed", where="daeda mcp", hint='pip install "daedalus[mcp]"'
        ) from None
    del mcp
    from daedalus.mcp import server, transports

    return {"create_server": server.create_server, "serve": transports.serve}[name]
