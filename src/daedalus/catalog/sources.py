"""The `source` block of a view: where its rows live, and never a secret in it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import TICKS_PER_SECOND
from daedalus.catalog.model import DataSourceDef
from daedalus.catalog.sections import shown
from daedalus.secrets import ENV_REFERENCE, looks_like_secret, sql_holds_secret

if TYPE_CHECKING:
    from daedalus.catalog.sections import Section

#: Connection settings that identify or authenticate: `${ENV}` references only.
SECRET_KEYS = (
    "access_key",
    "access_key_id",
    "account",
    "account_id",
    "connection_string",
    "key",
    "key_id",
    "password",
    "private_key",
    "private_key_passphrase",
    "secret",
    "secret_access_key",
    "session_token",
    "token",
    "user",
    "username",
)
#: Connection settings that are no secret; a plain value is fine.
SETTING_KEYS = (
    "authenticator",
    "catalog",
    "database",
    "endpoint",
    "host",
    "port",
    "private_key_path",
    "profile",
    "provider",
    "region",
    "role",
    "schema",
    "scope",
    "url_style",
    "use_ssl",
    "warehouse",
)
_KEYS = (
    "path",
    "database_path",
    "table_name",
    "query",
    "timestamp_field",
    "timestamp_unit",
    "created_field",
    "sequence_field",
    "data_path",
    "snapshot",
    "credentials",
)
_SNAPSHOT_KEYS = ("version", "as_of")


def read_source(view: Section) -> DataSourceDef:
    """The source of a view, field names as they are written."""
    section = view.section("source")
    if section is None:
        view.problem(
            "source is missing",
            hint="Write source: {path: folder_or_file}, or {database_path: ..., table_name: ...}.",
        )
        return DataSourceDef()
    section.allow((*_KEYS, *SECRET_KEYS, *SETTING_KEYS))
    _check_backend(section)
    version, as_of = _snapshot(section)
    places = {key: _place(section, key) for key in ("path", "database_path", "data_path")}
    return DataSourceDef(
        **places,
        table_name=_sql(section, "table_name"),
        query=_sql(section, "query"),
        timestamp_field=section.column_name("timestamp_field", required=False),
        timestamp_unit=section.choice("timestamp_unit", TICKS_PER_SECOND, "ms"),
        created_field=section.column_name("created_field", required=False),
        sequence_field=section.column_name("sequence_field", required=False),
        snapshot_version=version,
        snapshot_as_of=as_of,
        credentials=_credentials(section),
    )


def _check_backend(section: Section) -> None:
    if not isinstance(section.value, dict):
        return
    path, database = section.has("path"), section.has("database_path")
    table, query = section.has("table_name"), section.has("query")
    if not path and not database:
        section.problem(
            "the source names no place",
            hint="Set path (a Parquet file, folder, glob or s3:// URL), "
            "or database_path with table_name or query.",
        )
    elif path and database:
        return  # path wins: a view can keep its database's keys while it is read from files
    elif database and table == query:
        what = "needs table_name or query" if not table else "takes table_name or query, not both"
        section.problem(f"database_path {what}", "database_path")
    elif path:
        for key in ("table_name", "query", "data_path"):
            if section.has(key):
                section.problem(f"{key} goes with database_path, not with path", key, hint="Remove it.")


def _snapshot(section: Section) -> tuple[int | None, str]:
    """Which state of a lake is read: `{version: 3}`, or `{as_of: "2026-05-01T00:00:00Z"}`."""
    pinned = section.section("snapshot")
    if pinned is None:
        return None, ""
    pinned.allow(_SNAPSHOT_KEYS)
    if not section.text("database_path").lower().startswith(("ducklake:", "${")):
        section.problem("snapshot goes with a ducklake: database_path", "snapshot", hint="Remove it.")
    if pinned.has("version") == pinned.has("as_of"):
        section.problem("snapshot takes version or as_of, one of them", "snapshot")
        return None, ""
    if pinned.has("version"):
        return pinned.whole("version", least=0), ""
    return None, _instant(pinned)


def _instant(pinned: Section) -> str:
    """An ISO instant as UTC text; one without a zone is UTC."""
    value = pinned.raw("as_of")
    try:
        moment = dt.datetime.fromisoformat(value if isinstance(value, str) else "")
        utc = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # OverflowError: an offset leads out of the years 1 to 9999
        pinned.problem(
            f"as_of is {shown(value)}, not an instant", "as_of", hint='Write as_of: "2026-05-01T00:00:00Z".'
        )
        return ""
    return utc.isoformat()


def _place(section: Section, key: str) -> str:
    value = section.text(key)
    # Only where a connection is spelled out: a long file name alone is no secret.
    if ("://" in value or "=" in value) and looks_like_secret(value):
        section.problem(
            f"{key} holds a credential",
            key,
            hint="Write it as a reference to an environment variable: ${DB_PASSWORD}.",
        )
        return ""
    return value


def _sql(section: Section, key: str) -> str:
    value = section.text(key)
    if sql_holds_secret(value):
        section.problem(
            f"{key} holds a credential",
            key,
            hint="Say who connects under credentials, by references to environment variables: ${NAME}.",
        )
        return ""
    return value


def _credentials(section: Section) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    nested = section.section("credentials")
    if nested is not None:
        nested.allow((*SECRET_KEYS, *SETTING_KEYS))
    for part in (section, nested):
        for key in part.names() if part is not None else ():
            if part is None or key not in (*SECRET_KEYS, *SETTING_KEYS) or not part.has(key):
                continue
            if key in found:
                part.problem(f"{key} is given twice", key, hint="Keep it under credentials.")
                continue
            found[key] = _credential(part, key)
    return tuple((key, value) for key, value in found.items() if value)


def _credential(section: Section, key: str) -> str:
    value = section.raw(key)
    if key in SECRET_KEYS:
        if isinstance(value, str) and ENV_REFERENCE.fullmatch(value.strip()):
            return value.strip()
        # The value itself is never repeated: it may be the secret.
        section.problem(
            f"{key} must not stand in the file",
            key,
            hint=f"Write {key}: ${{MY_{key.upper()}}} and set that environment variable.",
        )
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        section.problem(f"{key} is {shown(value)}, not text", key)
        return ""
    if looks_like_secret(value):
        section.problem(f"{key} holds a credential", key, hint="Write it as ${NAME}.")
        return ""
    return value.strip()
