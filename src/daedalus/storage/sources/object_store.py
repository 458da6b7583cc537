"""Parquet in S3 or R2: listed and described by Arrow, read in place by DuckDB.

Keys come from the view's `${ENV}` references, else from the variables that AWS's own tools read. DuckDB gets them as
a temporary secret that holds for this path only.
"""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, SourceError
from daedalus.secrets import mask, remember_secret
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.duckdb_extensions import load_extensions
from daedalus.storage.sources.parquet_files import TAIL_BYTES, ParquetFile, footer_length, parse_footer
from daedalus.storage.sources.settings import first_of, resolve_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import duckdb

_URL = re.compile(r"^(s3|r2)://([^/]+)(?:/(.*))?$", re.IGNORECASE | re.DOTALL)
_GLOB = re.compile(r"[*?\[]")
SETTINGS = frozenset(
    {"key_id", "access_key_id", "access_key", "secret", "secret_access_key", "session_token", "token"}
    | {"account_id", "region", "endpoint", "url_style", "use_ssl"}
)
CONNECT_SECONDS, REQUEST_SECONDS, TRIES = 10, 30, 3
_FOOTER_GUESS = 64 * 1024
_PARALLEL = 16
_MENDS = {
    "NO_SUCH_BUCKET": ("the bucket does not exist", "Check source.path and the endpoint"),
    "INVALID_ACCESS_KEY_ID": (
        "the access key is refused",
        "Check the key that the view or the environment gives",
    ),
    "SIGNATURE_DOES_NOT_MATCH": (
        "the secret key is wrong",
        "Check the secret that the view or the environment gives",
    ),
    "ACCESS_DENIED": ("access is denied", "Check the keys, and that they may list and read this path"),
    "NETWORK_CONNECTION": ("the endpoint does not answer", "Check endpoint, use_ssl and the network"),
}


def is_object_store(path: str) -> bool:
    """Whether the path is a URL of S3 or R2.

    >>> is_object_store("s3://bucket/x"), is_object_store("/data/x")
    (True, False)
    """
    return _URL.match(path) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAccess:
    """How an object store is reached; lives no longer than the call that needs it."""

    key_id: str
    secret: str
    session_token: str
    region: str
    endpoint: str
    use_ssl: bool
    path_style: bool

    @classmethod
    def of(cls, scheme: str, settings: Mapping[str, str], where: str) -> StoreAccess:
        """The access that a view's settings, or else the environment, give."""
        given = resolve_settings(settings, where=where, known=SETTINGS)
        endpoint = first_of(given, "endpoint", environ=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
        if scheme == "r2" and not given.get("endpoint"):
            account = given.get("account_id", "")
            if not account and not endpoint:
                raise DefinitionError(
                    "an r2:// path needs its account or endpoint",
                    where=where,
                    hint="Set account_id: ${R2_ACCOUNT_ID}, or endpoint: https://...",
                )
            endpoint = f"https://{account}.r2.cloudflarestorage.com" if account else endpoint
        use_ssl = given.get("use_ssl", "false" if endpoint.lower().startswith("http://") else "true")
        bare = re.sub(r"^https?://", "", endpoint, flags=re.IGNORECASE).rstrip("/")
        default = "path" if bare else "vhost"
        own_key = first_of(given, "key_id", "access_key_id", "access_key")
        # A view's own key goes with its own secret and token, never with the environment's.
        fallback = {
            "secret": () if own_key else ("AWS_SECRET_ACCESS_KEY",),
            "token": () if own_key else ("AWS_SESSION_TOKEN",),
        }
        access = cls(
            key_id=own_key or first_of({}, environ=("AWS_ACCESS_KEY_ID",)),
            secret=first_of(given, "secret", "secret_access_key", environ=fallback["secret"]),
            session_token=first_of(given, "session_token", "token", environ=fallback["token"]),
            region=first_of(
                given,
                "region",
                environ=("AWS_REGION", "AWS_DEFAULT_REGION") if scheme == "s3" else (),
                default="us-east-1" if scheme == "s3" else "auto",
            ),
            endpoint=bare,
            use_ssl=use_ssl.lower() != "false",
            path_style=given.get("url_style", default).lower() == "path",
        )
        for value in (access.key_id, access.secret, access.session_token):
            remember_secret(value)
        return access

    def filesystem(self) -> Any:
        """Arrow's client, with bounded patience."""
        from pyarrow import fs

        options: dict[str, Any] = (
            {
                "access_key": self.key_id,
                "secret_key": self.secret,
                "session_token": self.session_token or None,
            }
            if self.key_id
            else {"anonymous": True}
        )
        return fs.S3FileSystem(
            **options,
            region=self.region,
            endpoint_override=self.endpoint or None,
            scheme="https" if self.use_ssl else "http",
            force_virtual_addressing=not self.path_style,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=REQUEST_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
        )

    def create_secret(
        self, connection: duckdb.DuckDBPyConnection, scheme: str, scope: str, where: str
    ) -> None:
        """Give the connection these keys for the paths that begin with `scope`; again is no harm.

        Raises:
            DefinitionError: another view reads the same path with other keys.
        """
        import duckdb

        options = {
            "SCOPE": scope,
            "KEY_ID": self.key_id,
            "SECRET": self.secret,
            "SESSION_TOKEN": self.session_token,
            "REGION": self.region,
            "ENDPOINT": self.endpoint,
            "USE_SSL": self.use_ssl,
            "URL_STYLE": "path" if self.path_style else "vhost",
        }
        given = {name: value for name, value in options.items() if value != ""}
        text = ", ".join(f"{name} {quote_literal(value)}" for name, value in given.items())
        name = "daedalus_" + hashlib.sha256(repr(sorted(given.items())).encode()).hexdigest()[:24]
        others = connection.execute(
            "SELECT 1 FROM duckdb_secrets() WHERE scope = [?] AND type = ? AND name <> ?",
            [scope, scheme, name],
        ).fetchall()
        if others:
            raise DefinitionError(
                f"two views read {scope} with different keys or endpoints",
                where=where,
                hint="Give both the same credentials, or one of them a path of its own",
            )
        try:
            connection.execute(f"CREATE SECRET IF NOT EXISTS {quote_ident(name)} (TYPE {scheme}, {text})")
        except duckdb.Error as error:
            # The statement, which DuckDB may quote, holds the keys.
            raise DefinitionError(
                f"DuckDB refuses the store's settings: {mask(str(error).splitlines()[0])}", where=where
            ) from None


def prepare_object_store(connection: duckdb.DuckDBPyConnection) -> None:
    """Load what reads object stores, with bounded patience."""
    load_extensions(connection, "httpfs")
    connection.execute(f"SET http_timeout = {REQUEST_SECONDS}")
    connection.execute(f"SET http_retries = {TRIES}")


class ObjectStoreFiles:
    """The Parquet files that a URL of an object, a prefix or a glob names.

    Args:
        url: `s3://bucket/...` or `r2://bucket/...`.
        where: how messages name the source.
        settings: of the view's source, `${ENV}` references unresolved.
    """

    def __init__(self, url: str, where: str, settings: Mapping[str, str]) -> None:
        match = _URL.match(url)
        if match is None:
            raise DefinitionError(f"{url} is no URL of an object store", where=where)
        self._scheme, self._bucket, self._key = match[1].lower(), match[2], (match[3] or "").rstrip("/")
        self._where = where
        self._settings = dict(settings)
        self._is_folder = False

    def __repr__(self) -> str:
        return f"ObjectStoreFiles({self._url(self._key)})"

    @property
    def folder(self) -> str:
        """The URL when it is a prefix, else empty: Hive keys are looked for below it."""
        return self._url(self._key) if self._is_folder else ""

    def _url(self, key: str) -> str:
        return f"{self._scheme}://{self._bucket}/{key}"

    def _access(self) -> StoreAccess:
        return StoreAccess.of(self._scheme, self._settings, self._where)

    def setup(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Load the extension, and give the connection this path's keys."""
        prepare_object_store(connection)
        fixed = _GLOB.split(self._key, maxsplit=1)[0]
        scope = self._url(f"{fixed}/" if self._is_folder and fixed else fixed)
        self._access().create_secret(connection, self._scheme, scope, self._where)

    # ------------------------------------------------------------------ listing

    def describe(self) -> tuple[ParquetFile, ...]:
        """Every object with its footer; two requests each, several at a time.

        Raises:
            SourceError: there is none, one cannot be read, or the store refuses.
        """
        files = self._access().filesystem()
        found = self._list(files)
        if not found:
            raise SourceError(
                f"{self._url(self._key)} holds no .parquet object",
                where=self._where,
                hint="Set source.path to an object, a prefix or a glob",
            )
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return tuple(pool.map(lambda info: self._describe(files, info), found))

    def _list(self, files: Any) -> list[Any]:
        """The objects, sorted by key: the one of that very name, else those below it, else those that match."""
        from pyarrow import fs

        pattern = _GLOB.search(self._key)
        base = self._key[: pattern.start()].rpartition("/")[0] if pattern else self._key
        try:
            exact = files.get_file_info(f"{self._bucket}/{self._key}") if self._key else None
            if exact is not None and exact.type == fs.FileType.File:
                self._is_folder = False
                return [exact]
            self._is_folder = pattern is None
            below = files.get_file_info(fs.FileSelector(f"{self._bucket}/{base}".rstrip("/"), recursive=True))
        except FileNotFoundError:
            below = []
        except OSError as error:
            raise self._refused(error, self._key) from None
        wanted = re.compile(_as_regex(self._key)) if pattern else None
        found = []
        for info in below:
            key = info.path.partition("/")[2]
            relative = key[len(base) :].strip("/")
            hidden = any(part.startswith((".", "_")) for part in relative.split("/"))
            matches = wanted.fullmatch(key) if wanted else key.endswith(".parquet")
            if info.type == fs.FileType.File and matches and not hidden:
                found.append(info)
        return sorted(found, key=lambda info: info.path)

    def _describe(self, files: Any, info: Any) -> ParquetFile:
        key = info.path.partition("/")[2]
        if "?" in key:
            raise SourceError(
                f"{self._url(key)} cannot be read: DuckDB takes what follows ? in a URL for settings",
                where=self._where,
                hint="Give the object a name without ?",
            )
        try:
            with files.open_input_file(info.path) as object_:
                size = object_.size()
                etag = (object_.metadata() or {}).get("ETag", b"").decode().strip('"')
                tail = object_.read_at(min(size, _FOOTER_GUESS), max(size - _FOOTER_GUESS, 0))
                length = footer_length(tail, size) if size > TAIL_BYTES else size + 1
                if length > len(tail):
                    tail = object_.read_at(length, size - length)
            return parse_footer(self._url(key), size, info.mtime_ns, tail[-length:], etag)
        except ValueError as error:
            raise SourceError(
                f"{self._url(key)} cannot be read as Parquet: {error}",
                where=self._where,
                hint="The object is truncated, corrupt or not Parquet: restore or remove it",
            ) from None
        except OSError as error:
            raise self._refused(error, key) from None

    def _refused(self, error: Exception, key: str) -> SourceError:
        text = str(error).splitlines()[0]
        for code, (what, hint) in _MENDS.items():
            if code in text:
                return SourceError(f"{self._url(key)}: {what}", where=self._where, hint=hint)
        return SourceError(
            f"{self._url(key)} cannot be read: {mask(text)}",
            where=self._where,
            hint="Check the store's state, then run again; finished days are kept",
        )

    def changed(self, files: Iterable[ParquetFile]) -> str:
        """The first object whose size or time is not what it was; empty when all are. One listing."""
        now = {
            self._url(info.path.partition("/")[2]): info for info in self._list(self._access().filesystem())
        }
        for file in files:
            info = now.get(file.path)
            if info is None or (info.size, info.mtime_ns) != (file.size, file.modified_ns):
                return file.path
        return ""

    @staticmethod
    def literal(path: str) -> str:
        """The URL as `read_parquet` takes it: what it would take for a pattern stands in brackets."""
        return quote_literal(re.sub(r"[*\[]", lambda match: f"[{match[0]}]", path))


def _as_regex(pattern: str) -> str:
    """A glob over keys as a regular expression: `*` stays within a folder, `**` crosses them.

    >>> import re
    >>> bool(re.fullmatch(_as_regex("a/*/x.parquet"), "a/b/x.parquet"))
    True
    >>> bool(re.fullmatch(_as_regex("a/*.parquet"), "a/b/x.parquet"))
    False
    >>> bool(re.fullmatch(_as_regex("a/**/*.parquet"), "a/x.parquet"))
    True
    """
    parts = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern):
        match part:
            case "**/":
                parts.append("(?:.*/)?")
            case "**":
                parts.append(".*")
            case "*":
                parts.append("[^/]*")
            case "?":
                parts.append("[^/]")
            case _ if part.startswith("[") and part.endswith("]"):
                parts.append("[" + part[1:-1].replace("!", "^", 1).replace("\\", "\\\\") + "]")
            case _:
                parts.append(re.escape(part))
    return "".join(parts)
