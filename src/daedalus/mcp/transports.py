"""Where the MCP server listens: standard input and output, or streamable HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Literal

from daedalus.api.guard import Access, Guard, is_loopback
from daedalus.api.server import bound_socket, launcher_for, run_until_told
from daedalus.errors import DefinitionError
from daedalus.mcp.server import create_server
from daedalus.platform.live import LiveProject
from daedalus.platform.run_queue import close_queues, start_queue
from daedalus.secrets import remember_secret

if TYPE_CHECKING:
    import socket
    from pathlib import Path
    from types import FrameType

    from mcp.server.lowlevel import Server
    from starlette.types import ASGIApp

Transport = Literal["stdio", "streamable-http"]
PATH = "/mcp"
_SHORTEST_TOKEN = 16
_GRACE_SECONDS = 5
_BODY_BYTES = 1 << 20
_RUNS = 1
_WAITING = 32
#: Told to end, as a service is; or by Ctrl-C.
_END_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def serve(
    root: Path | str = ".",
    *,
    transport: Transport = "stdio",
    host: str = "127.0.0.1",
    port: int = 8001,
    token: str = "",
) -> None:
    """Serve a project until the client goes away (stdio), SIGTERM or SIGINT; then end the runs started here.

    Args:
        root: the project's folder.
        transport: the other three are for `streamable-http`.
        host: where to listen.
        port: where to listen.
        token: what callers must show as a bearer token; empty asks for none.

    Raises:
        DefinitionError: no project, or an address that needs a token.
        ExecutionError: the address cannot be listened on.
    """
    import anyio

    project = LiveProject(root)
    if transport == "streamable-http":
        app = http_app(create_server(project), access_for(host, token))
        listening = bound_socket(host, port)
    start_queue(project.current(), launcher_for(project, _RUNS, _WAITING))
    try:
        if transport == "streamable-http":
            _serve_http(app, listening)
        else:
            for number in _END_CODES:
                signal.signal(number, _end)
            anyio.run(_serve_stdio, create_server(project))
    finally:
        close_queues()


def access_for(host: str, token: str) -> Access:
    """Who may ask a server that listens on `host`.

    Raises:
        DefinitionError: it can be reached from elsewhere and has no token, or a short one.
    """
    if not is_loopback(host) and len(token) < _SHORTEST_TOKEN:
        raise DefinitionError(
            f"{host} can be reached from other machines, so a token of {_SHORTEST_TOKEN} or more characters "
            "is required",
            where="daeda mcp",
            hint="Put one into DAEDALUS_MCP_TOKEN, or listen on 127.0.0.1",
        )
    remember_secret(token)
    names = {*_LOOPBACK_NAMES, host.lower()} if is_loopback(host) else set()
    return Access(token=token, hosts=frozenset(names))


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


def _serve_http(app: ASGIApp, listening: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws="none",
    )
    with contextlib.redirect_stdout(sys.stderr):
        run_until_told(config, listening)


def _end(number: int, _frame: FrameType | None) -> None:
    """End the runs, then the process, at once: a thread waits for the client's next line, and cannot be woken."""
    for one in _END_CODES:
        signal.signal(one, signal.SIG_DFL)  # a second one is not waited for
    close_queues()
    os._exit(_END_CODES[signal.Signals(number)])
