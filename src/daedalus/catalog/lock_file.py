"""`registry.lock.json`: the logical schema of every service, reviewed and committed with the definitions.

One line per column, join and step, services and names in a fixed order: an edit is a small git diff. The file is
written beside itself and moved in, under a lock that two writers cannot hold at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import VERSION
from daedalus.errors import DefinitionError, ExecutionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from daedalus.catalog.logical_schema import Schema

LOCK_NAME = "registry.lock.json"
FORMAT = 1

_KINDS: dict[str, type] = {
    "version": str,
    "owner": str,
    "description": str,
    "tags": list,
    "serving_allowed": bool,
    "spine": str,
    "grain": list,
    "session_column": str,
    "session_filter": dict,
    "views": dict,
    "histories": dict,
    "columns": list,
    "computed": dict,
    "curation": list,
    "content_filter": list,
}
_NEEDED = ("version", "spine", "views", "columns")
_STEP: dict[str, type] = {"name": str, "sql": str, "column": str, "reads": dict}
_TIMES: dict[str, type] = {"timestamp_field": str, "created_field": str, "sequence_field": str}
#: The keys of a section's entries; of computations those that are more than compared.
_ENTRIES: dict[str, dict[str, Any]] = {
    "columns": {
        "name": str,
        "dtype": str,
        "dimension": int,
        "ref": str,
        "nullable": bool,
        "default": object,
        "default_sql": str,
    },
    "views": _TIMES
    | {"view": str, "join": str, "on": dict, "keys": dict}
    | {"delay_seconds": int | float, "ttl_seconds": int | float},
    "histories": _TIMES,
    "computed": {"sql": str, "condition": str, "created": str, "source_id_column": str}
    | {"value_column": str, "group_by": list, "on": dict, "reads": dict},
    "curation": _STEP,
    "content_filter": _STEP,
}
_OF_TEXTS = ("reads", "on", "keys")
_RESTORE = "Take the committed file back (git checkout -- {name}), or remove it and make it anew: daeda registry lock"
#: How deep the entries of a service's sections lie, such as its columns; each stands on one line.
_INLINE_DEPTH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLock:
    """A lock file as it was read.

    Attributes:
        services: the logical schemas, by service.
    """

    services: Mapping[str, Schema]
    file: str = ""


def read_lock(path: Path) -> RegistryLock | None:
    """The lock file; None when there is none.

    Raises:
        DefinitionError: it is no lock file of this version: cut off, edited by hand, of a newer Daedalus.
    """
    try:
        if path.is_char_device() or path.is_fifo():  # may never answer, or never end
            raise OSError("it is a pipe or a device")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"the lock file cannot be read: {error}", where=str(path)) from error
    return RegistryLock(services=_parsed(text, path), file=str(path))


def update_lock(path: Path, change: Callable[[RegistryLock | None], Mapping[str, Schema] | None]) -> bool:
    """Read, change and write the lock file while nobody else does; whether its text changed.

    Args:
        path: the lock file.
        change: given what is locked now, the services to lock; None, or an error raised in it, leaves the file.

    Raises:
        DefinitionError: the file is broken.
        ExecutionError: the folder does not let it be written.
    """
    with _held(path):
        services = change(read_lock(path))
        if services is None:
            return False
        text = lock_text(services)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return False
        _write(path, text)
    return True


def lock_text(services: Mapping[str, Schema]) -> str:
    """The text of a lock file."""
    ordered = {name: services[name] for name in sorted(services)}
    return _dump({"format": FORMAT, "services": ordered}, 0) + "\n"


def version_key(version: str) -> tuple[str, int]:
    """Orders versions `YYYY-MM-DD[.N]`.

    >>> version_key("2026-06-27") < version_key("2026-06-27.2") < version_key("2026-06-27.10")
    True
    """
    day, _, number = version.partition(".")
    return day, int(number) if number.isdigit() else 0


# ---------------------------------------------------------------------- reading


def _parsed(text: str, path: Path) -> dict[str, Schema]:
    data = _json(text, path)
    if not isinstance(data, dict) or "format" not in data:
        raise _broken("it has no format", path)
    found = data["format"]
    if isinstance(found, int) and not isinstance(found, bool) and found > FORMAT:
        raise DefinitionError(
            f"the lock file was written by a newer Daedalus (format {found}; this one reads {FORMAT})",
            where=str(path),
            hint="Upgrade Daedalus here: writing it with this version would lose what it does not know",
        )
    if found != FORMAT:
        raise _broken(f"its format is {found!r}", path)
    services = data.get("services")
    if set(data) != {"format", "services"} or not isinstance(services, dict):
        raise _broken("it must hold format and services, and nothing else", path)
    for name, schema in services.items():
        _check(name, schema, path)
    return services


def _json(text: str, path: Path) -> Any:
    if any(line.startswith(("<<<<<<<", "=======", ">>>>>>>")) for line in text.splitlines()):
        raise DefinitionError(
            "the lock file holds an unresolved merge",
            where=str(path),
            hint="Merge the definitions, take either side of this file, then run: daeda registry lock",
        )
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _broken(f"it is not JSON: {error}", path) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _check(name: str, schema: Any, path: Path) -> None:
    place = f"services.{name}"
    if not isinstance(schema, dict):
        raise _broken(f"{place} is no mapping", path)
    for key, value in schema.items():
        if key not in _KINDS:
            raise _broken(f"{place} has an unknown key {key!r}. {did_you_mean(key, _KINDS)}", path)
        if type(value) is not _KINDS[key]:
            raise _broken(f"{place}.{key} is {type(value).__name__}, not {_KINDS[key].__name__}", path)
    for key in _NEEDED:
        if key not in schema:
            raise _broken(f"{place} has no {key}", path)
    if VERSION.fullmatch(schema["version"]) is None:
        raise _broken(f"{place}.version is {schema['version']!r}, not YYYY-MM-DD[.N]", path)
    for section, kinds in _ENTRIES.items():
        entries = schema.get(section, [])
        named = entries.items() if isinstance(entries, dict) else enumerate(entries)
        for key, entry in named:
            _check_entry(f"{place}.{section}[{key}]", entry, kinds, path, closed=section != "computed")
    names = [column["name"] for column in schema["columns"]]
    if len(set(names)) < len(names):
        raise _broken(f"{place}.columns names a column twice", path)


def _check_entry(place: str, entry: Any, kinds: Mapping[str, Any], path: Path, *, closed: bool) -> None:
    """One column, step, view or computation; `closed`: it has no other keys than those of `kinds`."""
    if not isinstance(entry, dict):
        raise _broken(f"{place} is no mapping", path)
    missing = [key for key in ("name", "sql") if key in kinds and closed and key not in entry]
    if missing:
        raise _broken(f"{place} has no {' and '.join(missing)}", path)
    for key, value in entry.items():
        kind = kinds.get(key, None if closed else object)
        if kind is None:
            raise _broken(f"{place} has an unknown key {key!r}. {did_you_mean(key, kinds)}", path)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
            raise _broken(
                f"{place}.{key} is {type(value).__name__}, not {getattr(kind, '__name__', 'a number')}", path
            )
        texts = value.values() if isinstance(value, dict) and key in _OF_TEXTS else ()
        if not all(isinstance(one, str) for one in texts):
            raise _broken(f"{place}.{key} holds what is no text", path)


def _broken(what: str, path: Path) -> DefinitionError:
    return DefinitionError(
        f"the lock file is broken: {what.rstrip('.')}", where=str(path), hint=_RESTORE.format(name=path.name)
    )


# ---------------------------------------------------------------------- writing


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the lock file's folder against other writers; leaves nothing behind, not even after a kill."""
    import fcntl

    try:
        handle = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, text: str) -> None:
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


def _unwritable(path: Path, error: OSError) -> ExecutionError:
    return ExecutionError(
        f"the lock file cannot be written: {error.strerror or error}",
        where=str(path),
        hint="Nothing was changed. Make the project's folder writable, then run it again",
    )


def _dump(value: Any, depth: int) -> str:
    """JSON with one line per entry of a section, and one per list of words."""
    words = isinstance(value, list) and not any(isinstance(item, dict) for item in value)
    if depth >= _INLINE_DEPTH or not isinstance(value, dict | list) or not value or words:
        return json.dumps(value, ensure_ascii=False)
    pad, end = "  " * (depth + 1), "  " * depth
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"{pad}{_dump(item, depth + 1)}" for item in value) + f"\n{end}]"
    items = (
        f"{pad}{json.dumps(key, ensure_ascii=False)}: {_dump(item, depth + 1)}" for key, item in value.items()
    )
    return "{\n" + ",\n".join(items) + f"\n{end}}}"
