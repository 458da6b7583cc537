"""Snowflake's own client: a connection by key pair, statements in bounded time, and its errors without secrets.

Nothing else imports the connector, and this module only when a view of Snowflake is read.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daedalus.errors import DefinitionError, MissingExtraError, SourceError
from daedalus.secrets import MASK, expand_env, mask, remember_secret
from daedalus.storage.sources.settings import resolve_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daedalus.catalog.model import DataSourceDef

#: Seconds: to log in, to get an answer to one request (a running query is polled by requests), for one socket.
LOGIN_SECONDS = 30
REQUEST_SECONDS = 120
SOCKET_SECONDS = 60
#: Seconds between tries of one request or one part of a result; the connector tries a part ten times.
LONGEST_PAUSE = 4.0

_SETTINGS = ("warehouse", "role", "database", "schema")
_KNOWN = {
    *("account", "user", "username", "private_key", "private_key_path", "private_key_passphrase"),
    *("authenticator", "endpoint", "host", "port", *_SETTINGS),
}
_NO_OBJECT = {2003, 2043}
_NO_COLUMN = {904}
_NO_LOGIN = {250001, 250003, 251005, 390100, 390144, 390186, 390189, 394300, 394304}


class Settings:
    """A source's connection settings, resolved from the environment; lives no longer than the connection does.

    Raises:
        DefinitionError: names a variable that is not set, or a setting that Snowflake sources do not have.
    """

    def __init__(self, source: DataSourceDef, where: str) -> None:
        self._where = where
        given = dict(source.credentials)
        unknown = sorted(set(given) - _KNOWN)
        if unknown:
            raise DefinitionError(
                f"{unknown[0]} is no setting of a Snowflake source",
                where=where,
                hint="Snowflake is read with a key pair: set user and private_key (or private_key_path), as ${ENV}",
            )
        values = resolve_settings(given, where=where, known=_KNOWN)
        for line in values.get("private_key", "").replace("\\n", "\n").splitlines():
            remember_secret(line.strip())
        self.params = self._params(source, values)

    def _params(self, source: DataSourceDef, values: dict[str, str]) -> dict[str, Any]:
        place = expand_env(source.database_path, where=self._where).partition("://")[2].strip("/")
        account, *folders = place.split("/") if place else [""]
        params: dict[str, Any] = {key: values[key] for key in _SETTINGS if key in values}
        params |= dict(zip(("database", "schema"), folders, strict=False))
        params["account"] = account or values.get("account", "")
        params["user"] = values.get("user") or values.get("username", "")
        for key in ("account", "user"):
            if not params[key]:
                raise DefinitionError(
                    f"a Snowflake source needs {key}",
                    where=self._where,
                    hint="Write database_path: snowflake://<account> and user: ${SNOWFLAKE_USER}",
                )
        if values.get("authenticator", "SNOWFLAKE_JWT").upper() != "SNOWFLAKE_JWT":
            raise DefinitionError(
                "authenticator can only be SNOWFLAKE_JWT (a key pair)", where=f"{self._where}.authenticator"
            )
        params["authenticator"] = "SNOWFLAKE_JWT"
        params["private_key"] = self._key(values)
        if "endpoint" in values:
            url = urlsplit(values["endpoint"])
            params |= {"protocol": url.scheme or "https", "host": url.hostname, "port": url.port or 443}
        params |= {key: values[key] for key in ("host", "port") if key in values}
        return params

    def _key(self, values: dict[str, str]) -> bytes:
        """The private key as DER, from PEM or base64 text or a PEM file."""
        text = values.get("private_key", "")
        path = values.get("private_key_path", "")
        if not text and not path:
            raise DefinitionError(
                "a Snowflake source needs a private key",
                where=self._where,
                hint="Set private_key: ${SNOWFLAKE_PRIVATE_KEY} (PEM text) or private_key_path: ${SNOWFLAKE_KEY_FILE}",
            )
        try:
            data = text.encode() if text else Path(path).expanduser().read_bytes()
        except OSError as error:
            raise SourceError(
                f"the private key file cannot be read: {error.strerror}",
                where=f"{self._where}.private_key_path",
            ) from None
        key = _load_key(data, values.get("private_key_passphrase", ""))
        if key is None:
            raise SourceError(
                "the private key cannot be read: it is no PKCS#8 or PKCS#1 key, or its passphrase is wrong",
                where=f"{self._where}.{'private_key' if text else 'private_key_path'}",
                hint="Give PEM text, and private_key_passphrase: ${...} when the key is encrypted",
            )
        return key


def _without_secrets(text: str) -> str:
    """The text without what was resolved, tokens, and the signatures of signed URLs."""
    text = re.sub(r"eyJ[\w-]+\.[\w-]+(\.[\w-]+)?", MASK, mask(text))
    return re.sub(r"(https?://[^\s?]+)\?\S+", rf"\1?{MASK}", text)


def _load_key(data: bytes, passphrase: str) -> bytes | None:
    """The key as unencrypted PKCS#8; None when it cannot be read. Its exceptions may quote the key: they end here."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    # An environment variable often has its line breaks written out.
    data = data.strip().replace(b"\\n", b"\n")
    password = passphrase.encode() or None
    try:
        if data.startswith(b"-----"):
            key = serialization.load_pem_private_key(data, password)
        else:
            key = serialization.load_der_private_key(base64.b64decode(data, validate=True), password)
        return key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        return None


def _pauses() -> Iterator[float]:
    pause = LONGEST_PAUSE / 16
    while True:
        yield pause
        pause = min(pause * 2, LONGEST_PAUSE)


class SnowflakeClient:
    """One session.

    Args:
        source: where and as whom, with `${ENV}` references.
        where: how messages name the source.
    """

    def __init__(self, source: DataSourceDef, where: str) -> None:
        self._where = where
        params = Settings(source, where).params
        connector = _connector()
        try:
            self._connection = connector.connect(
                **params,
                login_timeout=LOGIN_SECONDS,
                network_timeout=REQUEST_SECONDS,
                socket_timeout=SOCKET_SECONDS,
                backoff_policy=_pauses,
                # Without this a NUMBER with decimals arrives as a double.
                arrow_number_to_decimal=True,
                client_prefetch_threads=2,
                application="Daedalus",
                log_imported_packages_in_telemetry=False,
                session_parameters={
                    "TIMEZONE": "UTC",
                    "QUERY_TAG": "daedalus",
                    "CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED": False,
                    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "ARROW",
                },
            )
        except _failures() as error:
            raise self._refused(error) from None
        finally:
            del params

    @property
    def database(self) -> str:
        """The session's database; empty when there is none."""
        return self._connection.database or ""

    @property
    def schema(self) -> str:
        """The session's schema; empty when there is none."""
        return self._connection.schema or ""

    def execute(self, sql: str) -> Any:
        """Run one statement; returns its cursor.

        Raises:
            SourceError: what Snowflake says, without secrets.
        """
        try:
            return self._connection.cursor().execute(sql)
        except _failures() as error:
            raise self._refused(error) from None

    def batches(self, cursor: Any) -> Iterator[Any]:
        """A result's Arrow tables, one at a time while the next ones are fetched.

        Raises:
            SourceError: a part could not be fetched.
        """
        try:
            yield from cursor.fetch_arrow_batches()
        except _failures() as error:
            raise self._refused(error) from None

    def close(self) -> None:
        """End the session; a server that is gone is no error."""
        with contextlib.suppress(*_failures()):
            self._connection.close(retry=False)

    def _refused(self, error: Exception) -> SourceError:
        number = getattr(error, "errno", None) or 0
        text = getattr(error, "raw_msg", None) or getattr(error, "msg", None) or str(error)
        first = next((line.strip() for line in str(text).splitlines() if line.strip()), type(error).__name__)
        hint = "Check the network and the service's state, then run again; finished days are kept"
        if number in _NO_OBJECT:
            hint = "Check table_name, database and schema, and that the role may read it"
        elif number in _NO_COLUMN:
            hint = "A column was renamed or dropped: change the view's field_mapping"
        elif number in _NO_LOGIN:
            hint = "Check account, user and the key: its public half must be set with ALTER USER ... SET RSA_PUBLIC_KEY"
        elif getattr(error, "sqlstate", None) and not isinstance(error, OSError):
            hint = "Check the source's table_name or query, and the role's rights"
        return SourceError(f"Snowflake: {_without_secrets(first)}", where=self._where, hint=hint)


def _failures() -> tuple[type[Exception], ...]:
    """What the connector raises: its own errors, and those of the network that it lets through."""
    import requests

    return (_connector().errors.Error, requests.RequestException, OSError)


def _connector() -> Any:
    try:
        import snowflake.connector
    except ImportError as error:
        raise MissingExtraError(
            "Snowflake's connector is not installed", hint='pip install "daedalus[snowflake]"'
        ) from error
    # It logs each failure that it also raises, requests and their URLs among them.
    log = logging.getLogger("snowflake.connector")
    if log.level == logging.NOTSET:
        log.setLevel(logging.CRITICAL)
    return snowflake.connector
