"""What a backend's refusal means, in words, with the mend; never with a secret."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from daedalus.errors import SourceError
from daedalus.secrets import mask

if TYPE_CHECKING:
    from collections.abc import Iterator

_AGAIN = "Run again; finished days are kept"
_LOGIN = "Check the user and password that the view's ${ENV} references give"
_REACH = "Check host, port and the network, then run again; finished days are kept"
_KEYS = "Check the keys that the view or the environment gives, and that they may read this path"
#: (what DuckDB or the backend says, what it means, the mend), the telling ones first.
_FAULTS: tuple[tuple[str, str, str], ...] = (
    (
        r"password authentication failed|no password supplied|no pg_hba\.conf entry|role .* does not exist",
        "the database refuses the login",
        _LOGIN,
    ),
    (
        r"permission denied for",
        "the database user may not read this",
        "GRANT SELECT on it to the view's user, or name the columns that the user may read in source.query",
    ),
    (r"database \"[^\"]*\" does not exist", "there is no such database", "Check database_path"),
    (
        r"connection refused|could not translate host name|timeout expired|no route to host|unable to connect",
        "the database does not answer",
        _REACH,
    ),
    (
        r"snapshot \"[^\"]*\" does not exist|invalid snapshot identifier",
        "the snapshot that the run reads is gone: the connection that held it was cut",
        _AGAIN,
    ),
    (
        r"relation \"[^\"]*\" does not exist|table with name|schema with name|table .* does not exist",
        "there is no such table",
        "Check table_name or query; a table outside the schema is written schema.table",
    ),
    (
        r"column \"[^\"]*\" (?:of relation \S+ )?does not exist|referenced column .* not found",
        "the source has no such column (any more)",
        "A column was renamed or dropped: change the view's query or field_mapping",
    ),
    (
        r"has duplicate column name",
        "two columns have names that differ only in case",
        "Write source.query with the columns that are needed, each under a name of its own",
    ),
    (
        r"expected an array with \d+ dimension",
        "an array holds arrays, which nothing says beforehand",
        "Write to_jsonb(column) in source.query; JSON becomes the declared lists",
    ),
    (
        r"lock timeout|canceling statement due to lock",
        "another session holds a lock on the table",
        "Wait until it is done, then run again",
    ),
    (
        r"due to statement timeout",
        "the server ends a statement that takes longer than its statement_timeout",
        "Raise it for the view's user: ALTER ROLE ... SET statement_timeout = ...",
    ),
    (
        r"could not set lock|conflicting lock|unique file handle|database is locked",
        "the lake's catalog is locked by a writer",
        "A catalog in a DuckDB file has one writer and no readers beside it: wait, or keep it in SQLite or Postgres",
    ),
    (
        r"no snapshot found",
        "the lake has no such snapshot",
        "Check source.snapshot; FROM lake.snapshots() lists them",
    ),
    (
        r"server closed the connection|copy data from postgres|terminating connection|connection reset"
        r"|ssl connection has been closed|no connection to the server|could not receive data|lost synchronization",
        "the connection to the database was cut while it was read",
        _AGAIN,
    ),
    (
        r"http 40[13]|access ?denied|invalidaccesskeyid|signaturedoesnotmatch",
        "the object store refuses the keys",
        _KEYS,
    ),
    (r"nosuchbucket", "the bucket does not exist", "Check the path and the endpoint"),
    (
        r"http 404|nosuchkey",
        "an object that the run wants to read is gone",
        "Restore it, or run again without it",
    ),
    (
        r"etag on reading file|file has changed|precondition failed",
        "an object was changed while the run was reading it",
        "Run again; write new files beside old ones rather than over them",
    ),
    (
        r"http error|server returned nothing|could not establish connection|io error: .*http",
        "the object store stopped answering",
        _AGAIN,
    ),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), what, hint) for pattern, what, hint in _FAULTS)


def backend_fault(text: str) -> tuple[str, str] | None:
    """What a backend's message means and the mend; None when no backend says such a thing.

    >>> backend_fault('FATAL:  password authentication failed for user "me"')[0]
    'the database refuses the login'
    >>> backend_fault("Conversion Error: x") is None
    True
    """
    for pattern, what, hint in _COMPILED:
        if pattern.search(text):
            return what, hint
    return None


def source_error(error: Exception, *, where: str) -> SourceError:
    """A backend's exception as one of ours; raise it `from None`, for the original may hold a secret."""
    text = str(error)
    what, hint = backend_fault(text) or ("it cannot be read", "Check the source's place, table_name or query")
    return SourceError(f"{what}: {said(text)}", where=where, hint=hint)


def said(text: str) -> str:
    """The telling line of a backend's message, without secrets and without the statement."""
    # libpq's own words come after DuckDB's, which may repeat the connection string.
    lines = [line.strip() for line in mask(text).splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"FATAL:|ERROR:|failed:|HTTP|Error", line)] or lines
    first = telling[0] if telling else "no reason given"
    for mark in ("FATAL:", "ERROR:", "failed: "):
        if mark in first:
            return first.split(mark, 1)[1].strip()
    return re.sub(r'at "[^"]*"', "at the database", first)


@contextlib.contextmanager
def plain_faults(where: str) -> Iterator[None]:
    """Turn what DuckDB raises over a backend into a `SourceError` of this place."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise source_error(error, where=where) from None
