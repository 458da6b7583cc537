"""`QuackDaemon`: a DuckDB session that holds nothing but approved relations, and listens on loopback."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from daedalus.errors import ExecutionError
from daedalus.serving import transport
from daedalus.serving.authorization import DATABASE
from daedalus.serving.gate import Gate
from daedalus.serving.metrics import ServingMetrics
from daedalus.serving.relations import ServedService, approved_relations, build_database
from daedalus.serving.staging import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from daedalus.serving.settings import ServingSettings

DEFAULT_PORT = 9696
_PREFIX = "daedalus-serving-"
_LOCK = "lock"


class QuackDaemon:
    """Serves materialized services until it is closed.

        with QuackDaemon(served, settings, port=0) as daemon:
            print(daemon.uri)

    Args:
        served: what to serve.
        settings: who may ask, and how much.
        port: on localhost; 0 takes a free one.
        folder: where the served file is kept while the daemon runs; None is the system's temporary folder.
        now: the clock that tokens expire by.

    Raises:
        ExecutionError: the port is taken, the values cannot be read, or Quack does not obey its hooks.
    """

    def __init__(
        self,
        served: Sequence[ServedService],
        settings: ServingSettings,
        *,
        port: int = DEFAULT_PORT,
        folder: Path | None = None,
        now: Callable[[], dt.datetime] | None = None,
    ) -> None:
        self.served = tuple(served)
        self.metrics = ServingMetrics()
        self.port = _free_port(port)
        self._open = False
        relations = approved_relations(served)
        self._folder = _own_folder(Path(tempfile.gettempdir()) if folder is None else folder)
        self._held = FileLock(self._folder / _LOCK)
        self._held.acquire(timeout=0)
        limits = settings.limits
        try:
            file = self._folder / "served.duckdb"
            widths = build_database(file, served, memory=limits.memory, threads=limits.threads)
            relations = {key: replace(one, widths=widths.get(one.name, {})) for key, one in relations.items()}
            self._connection = transport.connect(
                memory_limit=limits.memory,
                threads=limits.threads,
                temp_directory="",  # nothing is spilled: what does not fit fails
            )
            transport.seal(self._connection, DATABASE, str(file))
            self._stage = Stage(self._connection, limits)
            self.metrics.kept_bytes.set_function(lambda: self._stage.kept_bytes)
            clock = {} if now is None else {"now": now}
            self.gate = Gate(settings, relations, self._stage, self.metrics, **clock)
            self._start()
        except BaseException:
            self.close()
            raise
        for one in self.served:
            self.metrics.as_of.labels(one.name).set(one.as_of.replace(tzinfo=dt.UTC).timestamp())

    @property
    def uri(self) -> str:
        """Where it listens."""
        return transport.quack_uri(self.port)

    def ready(self) -> bool:
        """Whether statements are answered."""
        import duckdb

        if not self._open:
            return False
        try:
            with self._connection.cursor() as cursor:
                found = cursor.execute("SELECT count(*) FROM quack_server_list()").fetchone()
        except duckdb.Error:
            return False
        return found is not None and found[0] == 1

    def _start(self) -> None:
        import duckdb

        transport.install_hooks(
            self._connection, authenticate=self.gate.authenticate, authorize=self.gate.authorize
        )
        try:
            # Identities show tokens of their own; Quack's is never given to anybody.
            transport.listen(self._connection, self.uri, secrets.token_hex(32))
        except duckdb.Error as error:
            raise ExecutionError(
                f"the daemon cannot listen: {str(error).splitlines()[0]}",
                where=self.uri,
                hint="Choose another port with --port",
            ) from None
        self._open = True
        transport.lock(self._connection)
        self._check_hooks()

    def _check_hooks(self) -> None:
        """Ask as a stranger; a DuckDB whose Quack does not call the hooks must not be served from."""
        import duckdb

        with transport.connect(threads=1) as client:
            try:
                transport.ask(client, self.uri, "SELECT 1", secrets.token_hex(16))
            except duckdb.Error as error:
                if "Authentication failed" in str(error):
                    return
                raise ExecutionError(
                    f"the daemon does not answer: {str(error).splitlines()[0]}", where=self.uri
                ) from None
        raise ExecutionError(
            "Quack let a stranger in: this DuckDB does not ask for authentication as it should",
            where=f"DuckDB {duckdb.__version__}",
            hint="Install the DuckDB that Daedalus pins",
        )

    def close(self) -> None:
        """Stop listening, let go of everything, remove the served file."""
        import duckdb

        if self._open:
            self._open = False
            with contextlib.suppress(duckdb.Error):
                transport.stop(self._connection, self.uri)
        if hasattr(self, "_stage"):
            self._stage.drain()
            self._stage.sweep(everything=True)
        if hasattr(self, "_connection"):
            self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _own_folder(parent: Path) -> Path:
    """A folder that nobody else reads; those of daemons that were killed are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_PREFIX}*/"):
        with contextlib.suppress(Timeout, OSError), FileLock(left / _LOCK, timeout=0):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))


def _free_port(port: int) -> int:
    """The port, or a free one for 0; Quack itself reports a taken one only in its log."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ExecutionError(
                f"the address cannot be listened on: {error.strerror or error}",
                where=f"localhost:{port}",
                hint="Choose another one with --port",
            ) from None
        return int(probe.getsockname()[1])
