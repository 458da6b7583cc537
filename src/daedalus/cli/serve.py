"""`daeda serve`: approved services over Quack."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from daedalus.cli.options import ServedRootOption, run_options
from daedalus.cli.render import Format, FormatOption, notices, print_json, print_table, say


def serve(
    *,
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="SERVICE", help="Only these; default: every service that allows serving."),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="On localhost; 0 takes a free one.")
    ] = 9696,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=0,
            max=65535,
            help="Serve /metrics, /healthz and /readyz on 127.0.0.1; 0 takes a free port.",
        ),
    ] = None,
    output_root: ServedRootOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Serve materialized services over Quack.

    On localhost, with a token. Only services with serving_allowed: true are there. Identities and limits stand in
    config/serving.yaml; without it, the token in DAEDALUS_SERVE_TOKEN may read every one of them. SIGTERM ends it.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.serving import serve as run

    def started(facts: dict[str, Any]) -> None:
        if output is Format.JSON:
            print_json(facts)
        else:
            columns = ("service", "version", "as_of", "rows")
            print_table(columns, [[one[column] for column in columns] for one in facts["services"]])
            say(f"listening on {facts['uri']}")
            if facts["metrics"]:
                say(f"metrics: {facts['metrics']}")
            notices(facts["notices"])
        sys.stdout.flush()  # whoever started this waits for the line

    run(
        PlatformRegistry.open(),
        services=services or (),
        port=port,
        metrics_port=metrics_port,
        options=run_options(output_root=output_root),
        started=started,
    )
