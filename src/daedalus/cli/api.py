"""`daeda serve-api`: the operations of a project over JSON-RPC."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from daedalus.api.tokens import API_TOKEN
from daedalus.cli.render import Format, FormatOption, print_json, say


def serve_api(
    *,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; another machine's reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_env: Annotated[
        str,
        typer.Option(
            "--token-env",
            metavar="NAME",
            help="The environment variable that holds the bearer token; the token itself is no argument.",
        ),
    ] = API_TOKEN,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A further name that requests may use; may be repeated."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Runs at a time.")] = 1,
    queue_size: Annotated[
        int, typer.Option("--queue-size", min=1, max=10_000, help="Runs that may wait.")
    ] = 32,
    max_body_bytes: Annotated[
        int, typer.Option("--max-body-bytes", min=1024, help="The largest request.")
    ] = 1 << 20,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="The largest batch of calls.")] = 50,
    output: FormatOption = Format.TABLE,
) -> None:
    """Serve the project over JSON-RPC 2.0.

    POST /rpc, GET /healthz and GET /readyz. Runs go on in processes of their own; SIGTERM ends the server and them.
    """
    from daedalus.api import serve
    from daedalus.api.app import Limits

    def started(url: str) -> None:
        if output is Format.JSON:
            print_json({"url": url, "rpc": f"{url}/rpc", "pid": os.getpid()})
        else:
            say(f"listening on {url}/rpc")
        sys.stdout.flush()  # whoever started this waits for the line

    serve(
        host=host,
        port=port,
        token_variable=token_env,
        token=os.environ.pop(token_env, ""),  # runs inherit the environment, and have no business with it
        allowed_hosts=allowed_host or (),
        workers=workers,
        queue_size=queue_size,
        limits=Limits(body_bytes=max_body_bytes, batch_calls=max_batch),
        started=started,
    )
