"""Where the MCP server listens: standard input and output, or streamable HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Literal

from daedalus.api.guard import Guard, access_for
from daedalus.api.server import GRACE_SECONDS, bound_socket, run_until_told
from daedalus.api.tokens import MCP_TOKEN
from daedalus.mcp.server import create_server
from daedalus.platform.live import LiveProject
from daedalus.platform.run_queue import close_queues, launcher_for, start_queue

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from mcp.server.lowlevel import Server
    from starlette.types import ASGIApp

    from daedalus.api.guard import Access

Transport = Literal["stdio", "streamable-http"]
PATH = "/mcp"
_BODY_BYTES = 1 << 20
#: Told to end, as a service is; or by Ctrl-C.
_END_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


def serve(
    root: Path | str = ".",
    *,
    transport: Transport = "stdio",
    host: str = "127.0.0.1",
    port: int = 8001,
    token: str = "",
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve a project until the client goes away (stdio), SIGTERM or SIGINT; then end the runs started here.

    Args:
        root: the project's folder.
        transport: the others are for `streamable-http`.
        host: where to listen.
        port: where to listen.
        token: what callers must show as a bearer token; empty asks for none.
        started: told the address once it is bound.

    Raises:
        DefinitionError: no project, or an address that needs a token.
        ExecutionError: the address cannot be listened on.
    """
    import anyio

    project = LiveProject(root)
    server = create_server(project)
    over_http = None
    if transport == "streamable-http":
        access = access_for(host, token, where="daeda mcp", token_variable=MCP_TOKEN)
        over_http = http_app(server, access), bound_socket(host, port)
    start_queue(project.current(), launcher_for(project.current()))
    try:
        if over_http is not None:
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{port}{PATH}"
            _serve_http(*over_http, begin=lambda: started(url) if started is not None else None)
        else:
            for number in _END_CODES:
                signal.signal(number, _end)
            anyio.run(_serve_stdio, server)
    finally:
        close_queues()


def http_app(server: Server[Any], access: Access) -> ASGIApp:
    """The server as an application with the one path `/mcp`."""
    from mcp.server.transport_security import TransportSecuritySettings

    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=_BODY_BYTES,
        # The guard looks at Host and Origin.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return Guard(app, access=access)


async def _serve_stdio(server: Server[Any]) -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (reading, writing):
        # The transport holds a private copy of the stream; what anything here prints goes to standard error.
        with contextlib.redirect_stdout(sys.stderr):
            await server.run(reading, writing, server.create_initialization_options())


def _serve_http(app: ASGIApp, listening: socket.socket, *, begin: Callable[[], None]) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws="none",
    )
    with contextlib.redirect_stdout(sys.stderr):
        run_until_told(config, listening, begin=begin)


def _end(number: int, _frame: FrameType | None) -> None:
    """End the runs, then the process, at once: a thread waits for the client's next line, and cannot be woken."""
    for one in _END_CODES:
        signal.signal(one, signal.SIG_DFL)  # a second one is not waited for
    close_queues()
    os._exit(_END_CODES[signal.Signals(number)])
