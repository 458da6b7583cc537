"""Where a Postgres database is and as whom it is read: a URL with `${ENV}` references, resolved when it is used."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from daedalus.errors import DefinitionError
from daedalus.secrets import ENV_REFERENCE, expand_env, mask, mask_written, remember_secret
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.sources.settings import first_of, resolve_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

SETTINGS = frozenset({"user", "username", "password", "host", "port", "database", "schema"})
#: A server that does not answer is given up; one that went away without a word is noticed within a minute.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "application_name": "daedalus",
}
_URL = re.compile(
    # What stands before the last @ says who; a password may hold an @ or a slash.
    r"^postgres(?:ql)?://(?:(?P<user>[^:@/?]*)(?::(?P<password>[^?]*))?@)?(?P<hosts>[^/?@]*)"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<parameters>(?:[A-Za-z_]+=[^&]*&?)*))?$",
    re.IGNORECASE | re.DOTALL,
)
_HOST = re.compile(r"^(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>\d*|(?:\$\{[^}]*\})*))?$")
#: Names of libpq's parameters in DuckDB's secret; the others go into the connection string.
_SECRET_PARTS = ("host", "port", "user", "password", "database")


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """A database, unresolved.

    Attributes:
        url: `postgresql://...`, with `${ENV}` references; or one reference that is such a URL.
        settings: the view's own, over the URL's parts.
        field: which field of the definition it is, for messages.
    """

    url: str
    settings: tuple[tuple[str, str], ...]
    where: str
    field: str = "database_path"

    @property
    def label(self) -> str:
        """The place as it is written, for messages and records; without secrets."""
        return mask_written(self.url)

    @property
    def key(self) -> str:
        """A name that is the same for equal places, and tells nothing."""
        text = repr((self.url, sorted(self.settings)))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def parameters(self) -> dict[str, str]:
        """The connection's parameters, resolved; the password is hidden by `secrets.mask` from here on."""
        text = self.url
        whole = ENV_REFERENCE.fullmatch(text) is not None
        if whole:
            text = expand_env(text, where=f"{self.where}.{self.field}")
        match = _URL.match(text)
        hosts = [_HOST.match(one) for one in match["hosts"].split(",")] if match else [None]
        if match is None or not all(hosts):
            # What it is, is not shown: a password that confuses would stand in the wrong part.
            raise DefinitionError(
                "the database's place is no Postgres URL",
                where=f"{self.where}.{self.field}",
                hint="Write postgresql://${PGUSER}:${PGPASSWORD}@host:5432/database. In a variable that is the whole "
                "URL, what is no letter or digit in the password is percent-encoded",
            )
        places = [(one["host"].strip("[]"), one["port"] or "") for one in hosts if one is not None]
        written = {
            key: ",".join(part) for key, part in zip(("host", "port"), zip(*places, strict=True), strict=True)
        }
        written["port"] = written["port"].strip(",")
        written |= {key: match[key] or "" for key in ("user", "password", "database")}
        found = {key: self._part(value, whole=whole) for key, value in written.items()}
        for key, value in parse_qsl((match["parameters"] or "").replace("+", "%2B")):
            found["database" if key == "dbname" else key] = self._part(value, whole=True)
        given = resolve_settings(dict(self.settings), where=self.where, known=SETTINGS)
        found |= {
            key: value
            for key, value in {
                "user": first_of(given, "user", "username"),
                **{key: given.get(key, "") for key in ("password", "host", "port", "database")},
            }.items()
            if value
        }
        for key in ("password", "sslpassword"):
            remember_secret(found.get(key, ""))
        return {key: value for key, value in found.items() if value}

    def _part(self, text: str, *, whole: bool) -> str:
        """A part of the URL: what is written is percent-encoded, what a variable holds is as it is."""
        if whole:
            return unquote(text)
        pieces = re.split(r"(\$\{[^}]*\})", text)
        where = f"{self.where}.{self.field}"
        return "".join(
            expand_env(one, where=where) if one.startswith("${") else unquote(one) for one in pieces
        )

    def create_secret(
        self, connection: duckdb.DuckDBPyConnection, name: str, *, lock_seconds: float | None = None
    ) -> str:
        """Give the connection user and password as a temporary secret; returns the rest of the connection string.

        Args:
            connection: gets the secret.
            name: of the secret.
            lock_seconds: how long a lock is waited for where DuckDB alone speaks to the database.
        """
        import duckdb

        parameters = self.parameters()
        parts = [
            f"{key.upper()} {quote_literal(parameters[key])}" for key in _SECRET_PARTS if key in parameters
        ]
        try:
            connection.execute(
                f"CREATE SECRET IF NOT EXISTS {quote_ident(name)} (TYPE postgres, {', '.join(parts)})"
                if parts
                else f"CREATE SECRET IF NOT EXISTS {quote_ident(name)} (TYPE postgres)"
            )
        except duckdb.Error as error:
            # The statement, which DuckDB may quote, holds the password.
            raise DefinitionError(
                f"DuckDB refuses the connection settings: {mask(str(error).splitlines()[0])}",
                where=self.where,
            ) from None
        rest = _PATIENCE | {key: value for key, value in parameters.items() if key not in _SECRET_PARTS}
        if lock_seconds is not None:
            rest.setdefault("options", f"-c lock_timeout={max(1, round(lock_seconds * 1000))}")
        return " ".join(f"{key}={_conninfo(value)}" for key, value in rest.items())


def _conninfo(value: str) -> str:
    """A value of a connection string.

    >>> _conninfo("10"), _conninfo("two words")
    ('10', "'two words'")
    """
    if re.fullmatch(r"[\w./:-]+", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def place_of(
    url: str, credentials: Mapping[str, str], where: str, field: str = "database_path"
) -> PostgresPlace:
    """The place that a source or a sink names."""
    return PostgresPlace(url, tuple(sorted(credentials.items())), where, field)
