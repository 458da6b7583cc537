"""A Snowflake on loopback: fakesnow, behind what Snowflake itself does and fakesnow leaves out.

Added here: the key pair's JWT is verified, roles are checked, large results come in parts that are fetched by URL,
tables can be read AT an earlier instant, NULL timestamps stay NULL; and faults on demand.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import gzip
import json
import re
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from support.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_AT = re.compile(r"(\S+) AT\(TIMESTAMP => '([^']+) \+00:00'::TIMESTAMP_TZ\)")


class SnowflakeServer:
    """The server, and what it was asked for.

    Attributes:
        statements: the text of every statement, in order.
        chunk_rows: rows per part of a result.
        chunks: the URLs of the parts that were fetched.
        fault: called with "login", "query" or "chunk" and its text; may answer, raise `ConnectionError` to drop the
            connection, or return None.
        time_travel: whether tables keep their history.
    """

    account, user, role, database, schema = "TESTACCOUNT", "SVC_TRAIN", "TRAINER", "LAKE", "EVENTS"

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.passphrase = "phrase-" + secrets.token_hex(8)
        self.port = free_port()
        self.parts: dict[str, bytes] = {}
        self.versions: list[tuple[str, dt.datetime, str]] = []
        self.reset()

    def reset(self) -> None:
        """As a new test finds it."""
        self.statements: list[str] = []
        self.chunks: list[str] = []
        self.chunk_rows = 100_000
        self.fault: Callable[[str, str], Any] | None = None
        self.time_travel = True

    @property
    def url(self) -> str:
        """What `endpoint` is set to."""
        return f"http://127.0.0.1:{self.port}"

    def pem(self, key: Any = None, passphrase: str = "") -> str:
        """A private key as text."""
        from cryptography.hazmat.primitives import serialization as form

        lock: Any = form.BestAvailableEncryption(passphrase.encode()) if passphrase else form.NoEncryption()
        return (key or self.key).private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock).decode()

    def environ(self) -> dict[str, str]:
        """The environment of a user."""
        return {
            "SNOWFLAKE_USER": self.user,
            "SNOWFLAKE_PRIVATE_KEY": self.pem(passphrase=self.passphrase),
            "SNOWFLAKE_PASSPHRASE": self.passphrase,
            "SNOWFLAKE_ENDPOINT": self.url,
        }

    def source(self, table: str = "", **more: Any) -> dict[str, Any]:
        """The `source` of a view over a table of this server."""
        named = {"table_name": table} if table else {}
        return {
            "database_path": f"snowflake://{self.account}/{self.database}/{self.schema}",
            **named,
            "credentials": {
                "user": "${SNOWFLAKE_USER}",
                "private_key": "${SNOWFLAKE_PRIVATE_KEY}",
                "private_key_passphrase": "${SNOWFLAKE_PASSPHRASE}",
                "endpoint": "${SNOWFLAKE_ENDPOINT}",
                "role": self.role,
            },
            **more,
        }

    # ------------------------------------------------------------------ tables

    def execute(self, sql: str) -> None:
        """Run Snowflake SQL as the owner of everything."""
        from fakesnow.server import shared_fs

        connection = shared_fs.connect(self.database, self.schema)
        connection.cursor().execute(sql)

    def table(self, data: pa.Table, name: str = "", casts: Mapping[str, str] | None = None) -> str:
        """A table with these rows and column names exactly; returns its name."""
        from fakesnow.server import shared_fs

        shared_fs.connect(self.database, self.schema)
        name = name or "T_" + secrets.token_hex(4).upper()
        kinds = {"SMALLINT": "BIGINT", "INTEGER": "BIGINT", "FLOAT": "DOUBLE"} | dict(casts or {})
        with shared_fs.duck_conn.cursor() as cursor:
            cursor.register("rows_of_test", data)
            items = []
            for column, kind, *_ in cursor.execute("DESCRIBE rows_of_test").fetchall():
                quoted = '"' + column.replace('"', '""') + '"'
                items.append(f"CAST({quoted} AS {kinds.get(column, kinds.get(kind, kind))}) AS {quoted}")
            place = f'"{self.database}"."{self.schema}"."{name}"'
            cursor.execute(f"CREATE OR REPLACE TABLE {place} AS SELECT {', '.join(items)} FROM rows_of_test")
        return name

    def change(self, table: str, sql: str) -> None:
        """Change a table; its earlier state can be read AT instants before."""
        kept = f"{table}_BEFORE_{secrets.token_hex(4).upper()}"
        self.execute(f'CREATE TABLE "{kept}" AS SELECT * FROM "{table}"')
        self.versions.append((table, dt.datetime.now(dt.UTC).replace(tzinfo=None), kept))
        self.execute(sql)

    def _at_instant(self, match: re.Match[str]) -> str:
        if not self.time_travel:
            return match[0]
        instant = dt.datetime.fromisoformat(match[2])
        table = match[1].rsplit('"."', 1)[-1].strip('"')
        for changed, when, kept in self.versions:
            if changed == table and when > instant:
                return match[1].replace(table, kept)
        return match[1]

    # ------------------------------------------------------------------ HTTP

    def app(self, inner: Any) -> Any:
        """fakesnow's application with the rest around it."""
        from starlette.responses import JSONResponse, Response

        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return await inner(scope, receive, send)
            body = b""
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            path = scope["path"]
            zipped = dict(scope["headers"]).get(b"content-encoding") == b"gzip"
            plain = gzip.decompress(body) if zipped and body else body
            kind, text = self._kind(path, plain)
            try:
                answer = self.fault(kind, text) if self.fault and kind else None
            except ConnectionError:
                # A body shorter than announced: the connection breaks in mid-answer.
                await send(
                    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99999")]}
                )
                await send({"type": "http.response.body", "body": b"\x00\x01"})
                return None
            if answer is None and kind == "login":
                answer = self._refusal(json.loads(plain)["data"], scope["query_string"].decode())
            if kind == "chunk":
                self.chunks.append(path)
                response: Any = Response(self.parts[path.rsplit("/", 1)[-1]])
            elif answer is not None:
                response = JSONResponse(answer)
            else:
                return await self._forward(inner, scope, send, plain, kind)
            return await response(scope, receive, send)

        return wrapped

    @staticmethod
    def _kind(path: str, body: bytes) -> tuple[str, str]:
        if path.startswith("/parts/"):
            return "chunk", path
        if path.endswith("/login-request"):
            return "login", ""
        if path.endswith("/query-request"):
            return "query", json.loads(body)["sqlText"]
        return "", ""

    def _refusal(self, data: dict[str, Any], query: str) -> dict[str, Any] | None:
        """Why a login fails, as Snowflake says it."""
        import jwt

        def refused(code: str, message: str) -> dict[str, Any]:
            return {"data": {}, "code": code, "message": message, "success": False}

        if data.get("AUTHENTICATOR") != "SNOWFLAKE_JWT":
            return refused("390100", "Incorrect username or password was specified.")
        try:
            claims = jwt.decode(data["TOKEN"], self.key.public_key(), algorithms=["RS256"])
        except jwt.PyJWTError:
            return refused("390144", f"JWT token is invalid. [{data['TOKEN']}]")
        if claims["sub"] != f"{self.account}.{self.user}":
            return refused("390144", "JWT token is invalid.")
        if f"roleName={self.role}" not in query and "roleName=" in query:
            return refused(
                "390189", "Role 'X' specified in the connect string does not exist or not authorized."
            )
        return None

    async def _forward(self, inner: Any, scope: Any, send: Any, body: bytes, kind: str) -> None:
        if kind == "query":
            request = json.loads(body)
            self.statements.append(request["sqlText"])
            request["sqlText"] = _AT.sub(self._at_instant, request["sqlText"])
            body = json.dumps(request).encode()
        headers = [(k, v) for k, v in scope["headers"] if k not in (b"content-encoding", b"content-length")]
        headers.append((b"content-length", str(len(body)).encode()))
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def keep(message: dict[str, Any]) -> None:
            sent.append(message)

        await inner({**scope, "headers": headers}, receive, keep)
        start = sent[0]
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        if kind == "query" and start["status"] == 200:
            answer = self._in_parts(answer)
        others = [(k, v) for k, v in start["headers"] if k != b"content-length"]
        await send({**start, "headers": [*others, (b"content-length", str(len(answer)).encode())]})
        await send({"type": "http.response.body", "body": answer})

    def _in_parts(self, answer: bytes) -> bytes:
        """Leave the first rows in the answer, and the others behind URLs."""
        plain = json.loads(answer)
        data = plain.get("data") or {}
        if not data.get("rowsetBase64") or data["total"] <= self.chunk_rows:
            return answer
        table = pa.ipc.open_stream(base64.b64decode(data["rowsetBase64"])).read_all()
        data["rowsetBase64"] = base64.b64encode(_ipc(table.slice(0, self.chunk_rows))).decode()
        data["chunks"] = []
        for start in range(self.chunk_rows, table.num_rows, self.chunk_rows):
            rows = table.slice(start, self.chunk_rows)
            name, content = secrets.token_hex(8), _ipc(rows)
            self.parts[name] = content
            size = {"uncompressedSize": len(content), "compressedSize": len(content)}
            data["chunks"].append({"url": f"{self.url}/parts/{name}", "rowCount": rows.num_rows, **size})
        return json.dumps(plain).encode()


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _with_nulls(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """fakesnow sends NULL timestamps as 1970: its structs have no validity."""

    def struct(values: Any) -> Any:
        whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        made = original(whole)
        fields = [made.type.field(at) for at in range(made.type.num_fields)]
        parts = [part.fill_null(0) for part in made.flatten()]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=whole.is_null())

    return struct


@pytest.fixture(scope="session")
def _snowflake_process() -> Iterator[SnowflakeServer]:
    import fakesnow.arrow
    import fakesnow.server
    import uvicorn

    server = SnowflakeServer()
    before = fakesnow.arrow.timestamp_to_sf_struct
    fakesnow.arrow.timestamp_to_sf_struct = _with_nulls(before)
    config = uvicorn.Config(
        server.app(fakesnow.server.app), host="127.0.0.1", port=server.port, log_config=None, lifespan="off"
    )
    http = uvicorn.Server(config)
    thread = threading.Thread(target=http.run, daemon=True)
    thread.start()
    while not http.started:
        time.sleep(0.01)
    try:
        yield server
    finally:
        http.should_exit = True
        thread.join()
        fakesnow.arrow.timestamp_to_sf_struct = before


@pytest.fixture
def snowflake_server(
    _snowflake_process: SnowflakeServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SnowflakeServer]:
    """The server, with its user's environment set."""
    _snowflake_process.reset()
    for name, value in _snowflake_process.environ().items():
        monkeypatch.setenv(name, value)
    yield _snowflake_process
    with contextlib.suppress(AttributeError):
        _snowflake_process.reset()
