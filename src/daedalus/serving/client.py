"""`ServingClient`: a service's features by key, from whatever serves them.

client = ServingClient(QuackServingBackend("quack:localhost:9696", token=os.environ["TOKEN"]))
answer = client.get("dssm_ranking", [{"user_id": 1, "artwork_id": 7}], columns=["age", "liked"])
answer.table, answer.found, answer.as_of
"""

from __future__ import annotations

import datetime as dt
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import pyarrow as pa

from daedalus.errors import ExecutionError, ParameterError, did_you_mean
from daedalus.secrets import remember_secret
from daedalus.serving import transport
from daedalus.serving.relations import ABOUT
from daedalus.sql.identifiers import quote_ident, quote_literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import duckdb

#: What a client meets when nobody listens, or the daemon has just been restarted.
_GONE = (
    "could not connect",
    "connection refused",
    "connection error",
    "failed to connect",
    "could not establish",
)


class ServingBackend(Protocol):
    """Runs one admitted statement: a single SELECT of one approved relation."""

    def query(self, sql: str) -> pa.Table:
        """The statement's result.

        Raises:
            ExecutionError: it was refused, took too long, or nobody answers.
        """

    def close(self) -> None:
        """Let go of connections."""


#: Connections that still wait for an answer: closing one would wait, too, and so would dropping it.
_LEFT: list[Any] = []


class QuackServingBackend:
    """A Quack daemon on this machine, or behind a tunnel that ends here.

    Safe to share between threads: each asks on a cursor of its own.

    Args:
        uri: `quack:localhost:9696`.
        token: of the identity that asks.
        timeout_seconds: how long to wait for an answer.
        attempts: how often to try while nobody listens; a refusal or a failure is never tried again.
        backoff_seconds: before the second attempt; doubled for each further one.
    """

    def __init__(
        self,
        uri: str,
        *,
        token: str,
        timeout_seconds: float = 10.0,
        attempts: int = 3,
        backoff_seconds: float = 0.1,
    ) -> None:
        remember_secret(token)
        self._uri = uri
        self._token = token
        self._attempts = attempts
        self._backoff = backoff_seconds
        self._timeout = timeout_seconds
        # Quack's own retries would try refusals again.
        self._connection = transport.connect(threads=1)
        self._connection.execute("SET GLOBAL http_retries = 0")
        self._local = threading.local()
        self._left = False

    def query(self, sql: str) -> pa.Table:
        """The statement's result."""
        import duckdb
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential(multiplier=self._backoff, max=2),
            retry=retry_if_exception_type(_NobodyThereError),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    try:
                        return self._asked(sql)
                    except duckdb.Error as error:
                        text = _plain(error)
                        if any(sign in text.lower() for sign in _GONE):
                            raise _NobodyThereError(text) from None
                        raise ExecutionError(text, where=self._uri, hint=_hint(text)) from None
        except _NobodyThereError as error:
            raise ExecutionError(
                f"nobody answers: {error}", where=self._uri, hint="Is daeda serve running there?"
            ) from None
        raise AssertionError("unreachable")

    def _asked(self, sql: str) -> pa.Table:
        """The result, within the time; Quack's client has no limit, and cannot be interrupted while it waits."""
        answers: queue.SimpleQueue[pa.Table | Exception] = queue.SimpleQueue()
        cursor = self._cursor()

        def ask() -> None:
            try:
                answers.put(transport.ask(cursor, self._uri, sql, self._token))
            except Exception as error:  # noqa: BLE001 - raised where the answer is awaited
                answers.put(error)

        # Not from a pool: one that never hears an answer is left behind, and must not keep the process.
        threading.Thread(target=ask, name="quack-client", daemon=True).start()
        try:
            answer = answers.get(timeout=self._timeout)
        except queue.Empty:
            self._local.cursor, self._left = None, True
            raise ExecutionError(
                f"it did not answer within {self._timeout:g} s",
                where=self._uri,
                hint="Ask for less at a time, or look at the daemon",
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        cursor: duckdb.DuckDBPyConnection | None = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connection.cursor()
        return cursor

    def close(self) -> None:
        """Let go of the connection."""
        if self._left:
            _LEFT.append(self._connection)
        else:
            self._connection.close()


class _NobodyThereError(Exception):
    """Nothing listens at the address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAbout:
    """Where a service's values come from."""

    service: str
    version: str
    as_of: dt.datetime
    row_count: int
    content_hash: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingAnswer:
    """One batch of features.

    Attributes:
        table: a row per key asked, in that order: the keys, then the columns; NULL where there is no such entity.
        found: per row, whether the entity is there.
        about: where the values come from.
    """

    table: pa.Table
    found: tuple[bool, ...]
    about: ServedAbout

    @property
    def as_of(self) -> dt.datetime:
        """The instant of the values, UTC."""
        return self.about.as_of

    @property
    def missing(self) -> int:
        """How many of the keys are not there."""
        return len(self.found) - sum(self.found)


@dataclass(slots=True)
class ServingClient:
    """Features by key.

    Args:
        backend: what answers.
        batch_keys: keys per statement; a longer batch is asked in parts.
        about_seconds: how long the daemon's word on where values come from is taken for true. One that was started
            again may serve newer values: an answer names the instant of the older ones for no longer than this.
    """

    backend: ServingBackend
    batch_keys: int = 500
    about_seconds: float = 10.0
    _about: dict[str, tuple[float, ServedAbout]] = field(default_factory=dict)

    def about(self, service: str) -> ServedAbout:
        """Where the service's values come from, asked anew."""
        rows = self.backend.query(f"SELECT * FROM {quote_ident(service + ABOUT)}").to_pylist()
        row = rows[0]
        found = ServedAbout(
            service=row["service"],
            version=row["version"],
            as_of=row["as_of"].replace(tzinfo=dt.UTC),
            row_count=row["row_count"],
            content_hash=row["content_hash"],
            keys=tuple(row["keys"]),
        )
        self._about[service] = time.monotonic(), found
        return found

    def _known(self, service: str) -> ServedAbout:
        """The same, unless it was asked lately."""
        known = self._about.get(service)
        if known is None or time.monotonic() - known[0] >= self.about_seconds:
            return self.about(service)
        return known[1]

    def get(
        self,
        service: str,
        keys: Sequence[Mapping[str, Any]],
        columns: Sequence[str] | None = None,
    ) -> ServingAnswer:
        """The features of the entities, one row for each, in the order asked.

        Args:
            service: its name.
            keys: one mapping of every entity key to its value per entity; the same one may be asked twice.
            columns: None is all of them, in the contract's order.

        Raises:
            ParameterError: a key is missing or too much.
            ExecutionError: the daemon refuses, or does not answer.
        """
        about = self._known(service)
        asked = [_checked(one, about.keys, service) for one in keys]
        names = None if columns is None else list(dict.fromkeys((*about.keys, *columns)))
        unique = list(dict.fromkeys(asked))
        parts = [
            self.backend.query(_lookup_sql(service, about.keys, unique[at : at + self.batch_keys], names))
            for at in range(0, max(len(unique), 1), self.batch_keys)
        ]
        return _arranged(pa.concat_tables(parts), asked, about)

    def close(self) -> None:
        """Let go of the backend."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked(one: Mapping[str, Any], keys: tuple[str, ...], service: str) -> tuple[Any, ...]:
    if set(one) != set(keys):
        unknown = sorted(set(one) - set(keys))
        raise ParameterError(
            f"{unknown[0]} is no key" if unknown else f"the key {sorted(set(keys) - set(one))[0]} is missing",
            where=f"service {service}",
            hint=did_you_mean(unknown[0], keys) if unknown else f"Its keys: {', '.join(keys)}",
        )
    return tuple(one[key] for key in keys)


def _lookup_sql(
    service: str, keys: tuple[str, ...], asked: Sequence[tuple[Any, ...]], names: Sequence[str] | None
) -> str:
    """The statement that reads the rows of the keys."""
    columns = "*" if names is None else ", ".join(quote_ident(name) for name in names)
    if not asked:
        return f"SELECT {columns} FROM {quote_ident(service)} LIMIT 0"
    first = ", ".join(dict.fromkeys(quote_literal(one[0]) for one in asked))
    where = f"{quote_ident(keys[0])} IN ({first})"  # this is what the index answers
    if len(keys) > 1:
        pair = ", ".join(quote_ident(key) for key in keys)
        pairs = ", ".join(f"({', '.join(quote_literal(value) for value in one)})" for one in asked)
        where += f" AND ({pair}) IN ({pairs})"
    return f"SELECT {columns} FROM {quote_ident(service)} WHERE {where}"


def _arranged(rows: pa.Table, asked: Sequence[tuple[Any, ...]], about: ServedAbout) -> ServingAnswer:
    """The rows in the order asked; a key that has none gets a row of NULLs beside its key."""
    given = [
        _typed([one[position] for one in asked], rows.schema.field(key).type, key)
        for position, key in enumerate(about.keys)
    ]
    held = zip(*(rows.column(key).to_pylist() for key in about.keys), strict=True)
    places = {key: at for at, key in enumerate(held)}
    at = [places.get(key) for key in zip(*(one.to_pylist() for one in given), strict=True)]
    table = rows.take(pa.array(at, pa.int64()))
    for key, column in zip(about.keys, given, strict=True):
        index = table.schema.get_field_index(key)
        table = table.set_column(index, table.schema.field(index), column)
    return ServingAnswer(table=table, found=tuple(one is not None for one in at), about=about)


def _typed(values: list[Any], dtype: pa.DataType, key: str) -> pa.Array:
    try:
        return pa.array(values, dtype)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ParameterError(f"a value of the key {key} is no {dtype}: {error}", where="keys") from None


def _plain(error: Exception) -> str:
    """DuckDB's message without the statement that it quotes, in which the token stands."""
    first = str(error).partition("\n")[0].strip()
    return first.removeprefix("Invalid Input Error: ").removeprefix("IO Error: ")


def _hint(text: str) -> str:
    if "Authentication failed" in text:
        return "The token is unknown or has expired"
    if "Authorization failed" in text:
        return "Only a single SELECT of an approved relation is admitted"
    return ""
