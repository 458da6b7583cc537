"""`daeda mcp`: the project's operations as tools of the Model Context Protocol."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from daedalus.api.tokens import MCP_TOKEN
from daedalus.cli.render import Format, FormatOption


class Transport(StrEnum):
    """How clients reach the server."""

    STDIO = "stdio"
    STREAMABLE_HTTP = "streamable-http"


def mcp(
    *,
    transport: Annotated[
        Transport, typer.Option("--transport", help="stdio: a client starts it; streamable-http: it listens.")
    ] = Transport.STDIO,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where to listen.")] = 8001,
    output: FormatOption = Format.TABLE,  # of errors: what it writes otherwise is protocol
) -> None:
    """Offer the operations as MCP tools to a client.

    Over HTTP the path is /mcp; a bearer token is asked for when DAEDALUS_MCP_TOKEN holds one, which it must unless
    only this machine can reach the host.
    """
    from daedalus.mcp import serve

    # Runs inherit the environment, and have no business with it.
    token = os.environ.pop(MCP_TOKEN, "")
    serve(transport=transport.value, host=host, port=port, token=token, started=_started)


def _started(url: str) -> None:
    sys.stderr.write(f"listening on {url}\n")  # standard output is for protocol alone
    sys.stderr.flush()
