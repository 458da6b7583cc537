"""The server process of `daeda serve-api`."""

from __future__ import annotations

import datetime as dt
import json
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from daedalus.api.app import Limits, create_app
from daedalus.api.guard import access_for
from daedalus.api.tokens import API_TOKEN
from daedalus.errors import ExecutionError
from daedalus.metadata.plain import cleaned
from daedalus.platform.live import LiveProject
from daedalus.platform.run_queue import launcher_for, start_queue
from daedalus.secrets import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import FrameType

    import uvicorn


#: What requests under way get to be answered when the server is told to end.
GRACE_SECONDS = 5
_BACKLOG = 512


def serve(
    root: Path | str = ".",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str = "",
    token_variable: str = API_TOKEN,
    allowed_hosts: Iterable[str] = (),
    workers: int = 1,
    queue_size: int = 32,
    limits: Limits | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve a project until SIGTERM or SIGINT; then end the runs that were started here.

    Args:
        root: the project's folder.
        host: where to listen.
        port: 0 takes a free one.
        token: what callers must show; empty asks for none.
        token_variable: where it was read from; errors name it.
        allowed_hosts: further names that requests may be addressed to.
        workers: runs at a time.
        queue_size: runs that may wait.
        limits: how much at once.
        started: told the address once it is bound.

    Raises:
        DefinitionError: no project, or an address that needs a token.
        ExecutionError: the address cannot be listened on.
    """
    import uvicorn

    access = access_for(
        host, token, where="daeda serve-api", token_variable=token_variable, allowed_hosts=allowed_hosts
    )
    project = LiveProject(root)
    app = create_app(project, access=access, limits=limits)
    listening = bound_socket(host, port)
    start_queue(project.current(), launcher_for(project.current(), workers=workers, capacity=queue_size))
    log_as_json()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=30,
        limit_concurrency=512,
        ws="none",
    )
    # Operations in threads give way to the event loop sooner.
    sys.setswitchinterval(0.001)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"
    run_until_told(config, listening, begin=lambda: started(url) if started is not None else None)


def run_until_told(
    config: uvicorn.Config, listening: socket.socket, *, begin: Callable[[], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, also one that comes while the server starts; then return.

    Args:
        config: what is served.
        listening: where.
        begin: called once signals are heeded.
    """
    import uvicorn

    server = uvicorn.Server(config)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # Until uvicorn has handlers of its own; it raises the signal again once it is done, and then this is harmless.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if begin is not None:
        begin()
    server.run(sockets=[listening])


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket at the address, before anything else is started."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)  # whoever is told the address can connect
    except OSError as error:
        listening.close()
        raise ExecutionError(
            f"the address cannot be listened on: {error.strerror or error}",
            where=f"{host}:{port}",
            hint="Choose another one with --port",
        ) from None
    return listening


class _JsonLines(logging.Formatter):
    """One JSON object per line, ASCII, secrets masked."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # ASCII: no character that ends a line for whoever reads it.
        return json.dumps(cleaned(line), default=lambda value: mask(str(value)))


def log_as_json() -> None:
    """Send the log of the server and of this process to standard error, one JSON object per line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
