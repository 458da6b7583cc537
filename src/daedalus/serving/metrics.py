"""What the daemon counts, and the small HTTP server on loopback that shows it: /metrics, /healthz, /readyz."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from daedalus.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable


class ServingMetrics:
    """Counters of one daemon."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.statements = Counter(
            "daedalus_serving_statements", "Statements by outcome", ["outcome"], registry=self.registry
        )
        self.refused_logins = Counter(
            "daedalus_serving_refused_logins", "Logins that were refused", ["reason"], registry=self.registry
        )
        self.rows = Counter("daedalus_serving_rows", "Rows in results", registry=self.registry)
        self.seconds = Histogram(
            "daedalus_serving_statement_seconds",
            "Time from the question to the finished result",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
            registry=self.registry,
        )
        self.kept_bytes = Gauge(
            "daedalus_serving_result_bytes", "Results that are not dropped yet", registry=self.registry
        )
        self.as_of = Gauge(
            "daedalus_serving_as_of_seconds",
            "The instant of a service's values, Unix time",
            ["service"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class MetricsServer:
    """Serves the counters and the daemon's health on loopback, in a thread.

    Args:
        metrics: what to show.
        ready: whether statements are answered.
        port: 0 takes a free one.
    """

    def __init__(self, metrics: ServingMetrics, ready: Callable[[], bool], port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = _answer(self.path, metrics, ready)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: it is asked every few seconds."""

            timeout = 10

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise ExecutionError(
                f"the metrics cannot be served: {error.strerror or error}",
                where=f"127.0.0.1:{port}",
                hint="Choose another port with --metrics-port",
            ) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _answer(path: str, metrics: ServingMetrics, ready: Callable[[], bool]) -> tuple[int, str, bytes]:
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, metrics.text()
    if path == "/healthz":
        return 200, "text/plain", b"ok\n"
    if path == "/readyz":
        return (200, "text/plain", b"ready\n") if ready() else (503, "text/plain", b"not ready\n")
    return 404, "text/plain", b"not found\n"
