"""The Quack daemon of a project: what it serves, to whom, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daedalus.platform.project import RunOptions
    from daedalus.platform.registry import PlatformRegistry
    from daedalus.serving.daemon import QuackDaemon


def open_daemon(
    registry: PlatformRegistry,
    *,
    services: Sequence[str] = (),
    port: int = 0,
    options: RunOptions | None = None,
) -> tuple[QuackDaemon, tuple[str, ...]]:
    """A daemon over the newest materializations, listening; and notices on what is left out.

    Args:
        registry: the project.
        services: only these; empty is every one that allows serving.
        port: on localhost; 0 takes a free one.
        options: settings, for the output root.

    Raises:
        DefinitionError: `config/serving.yaml` is wrong, or no token is set.
        ExecutionError: nothing to serve, or the port is taken.
    """
    from daedalus.serving.daemon import QuackDaemon
    from daedalus.serving.relations import find_served
    from daedalus.serving.settings import load_settings

    config = registry.config(options)
    catalog = registry.facade(config).catalog
    allowed = [name for name, one in catalog.services.items() if one.serving_allowed]
    settings = load_settings(registry.project_root, allowed)
    served, notices = find_served(catalog, config.output_path, services)
    return QuackDaemon(served, settings, port=port), tuple(notices)


def serve(
    registry: PlatformRegistry,
    *,
    services: Sequence[str] = (),
    port: int = 9696,
    metrics_port: int | None = None,
    options: RunOptions | None = None,
    started: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. The audit log goes to standard error, one JSON object per statement.

    Args:
        registry: the project.
        services: only these.
        port: on localhost; 0 takes a free one.
        metrics_port: for /metrics, /healthz and /readyz on 127.0.0.1; None serves none.
        options: settings, for the output root.
        started: told the address, what is served and the notices.
    """
    from daedalus.serving.metrics import MetricsServer

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    log_audit()
    daemon, notices = open_daemon(registry, services=services, port=port, options=options)
    with daemon:
        metrics = None if metrics_port is None else MetricsServer(daemon.metrics, daemon.ready, metrics_port)
        try:
            if started is not None:
                started(
                    {
                        "uri": daemon.uri,
                        "metrics": "" if metrics is None else f"http://127.0.0.1:{metrics.port}/metrics",
                        "services": [
                            {
                                "service": one.name,
                                "version": one.version,
                                "as_of": f"{one.as_of.isoformat()}Z",
                                "rows": one.row_count,
                            }
                            for one in daemon.served
                        ],
                        "notices": list(notices),
                    }
                )
            ended.wait()
        finally:
            if metrics is not None:
                metrics.close()


def log_audit() -> None:
    """Send the audit log to standard error."""
    from daedalus.serving.gate import AUDIT

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    AUDIT.addHandler(handler)
    AUDIT.setLevel(logging.INFO)
    AUDIT.propagate = False
