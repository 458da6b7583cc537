"""DuckDB extensions from their wheels, loaded by path: nothing is installed or downloaded at run time."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from daedalus.errors import MissingExtraError
from daedalus.sql.identifiers import quote_literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

#: Every extension that Daedalus uses: its name, the wheel's suffix, and what needs it.
EXTENSIONS = {
    "httpfs": ("httpfs", "s3:// and r2:// paths"),
    "postgres": ("postgres_scanner", "Postgres sources, DuckLake catalogs in Postgres"),
    "sqlite": ("sqlite_scanner", "DuckLake catalogs in SQLite"),
    "ducklake": ("ducklake", "DuckLake sources and sinks"),
    "quack": ("quack", "daeda serve"),
}
#: Every connection has these: nothing is installed or downloaded, and no secret of the user's own is read.
SAFE_CONFIG: Mapping[str, str] = MappingProxyType(
    {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        # Only files whose signature was checked are loaded, see _check_signature; no statement of a user's can LOAD.
        "allow_unsigned_extensions": "true",
        "secret_directory": str(Path(__file__).parent / "no-secrets-here"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionStatus:
    """Whether one extension can be used here.

    Attributes:
        needed_for: what does not work without it.
        path: the file that is loaded; empty when there is none.
        problem: why it cannot be used; empty when it can.
        install: the line that mends it.
    """

    name: str
    needed_for: str
    usable: bool
    path: str
    problem: str
    install: str


def load_extensions(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    """Load the extensions, in this order; one that is loaded already is left alone.

    Raises:
        MissingExtraError: the wheel is not installed or does not fit DuckDB; the hint is the install line.
    """
    import duckdb

    for name in names:
        path = _file(name)
        if path is None:
            raise MissingExtraError(f"DuckDB's extension {name} is not installed", hint=_install_line(name))
        try:
            _check_signature(path)
            connection.execute(f"LOAD {quote_literal(str(path))}")
        except duckdb.Error as error:
            raise MissingExtraError(
                f"DuckDB's extension {name} cannot be loaded: {str(error).splitlines()[0]}",
                where=str(path),
                hint=_install_line(name),
            ) from error


@functools.cache
def _check_signature(path: Path) -> None:
    """Have DuckDB check the file's signature, once per process: it takes 0.1 to 0.2 s, and loading takes 1 ms."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        **SAFE_CONFIG,
        "allow_unsigned_extensions": "false",
    }
    with duckdb.connect(config=config) as connection:
        connection.execute(f"LOAD {quote_literal(str(path))}")


def bare_connection() -> duckdb.DuckDBPyConnection:
    """An empty DuckDB in UTC with the defaults of every connection."""
    import duckdb

    connection = duckdb.connect(config=dict(SAFE_CONFIG))
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def extension_status() -> list[ExtensionStatus]:
    """Every extension that Daedalus uses, tried in a DuckDB of its own."""
    found = []
    with bare_connection() as connection:
        for name, (_, needed_for) in EXTENSIONS.items():
            problem = ""
            try:
                load_extensions(connection, name)
            except MissingExtraError as error:
                problem = error.what
            found.append(
                ExtensionStatus(
                    name=name,
                    needed_for=needed_for,
                    usable=not problem,
                    path=str(_file(name) or ""),
                    problem=problem,
                    install=_install_line(name),
                )
            )
    return found


@functools.cache
def _file(name: str) -> Path | None:
    """The extension's file for this DuckDB; None when its wheel is absent or made for another version."""
    import duckdb

    package = importlib.util.find_spec(f"duckdb_extension_{EXTENSIONS[name][0]}")
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(next(iter(package.submodule_search_locations)))
    suffix = EXTENSIONS[name][0]
    path = folder / "extensions" / f"v{duckdb.__version__}" / f"{suffix}.duckdb_extension"
    return path if path.is_file() else None


def _install_line(name: str) -> str:
    """The exact wheel for the DuckDB that runs.

    >>> _install_line("postgres").split("==")[0]
    'pip install "duckdb-extension-postgres-scanner'
    """
    import duckdb

    wheel = EXTENSIONS[name][0].replace("_", "-")
    return f'pip install "duckdb-extension-{wheel}=={duckdb.__version__}"'
