"""Service versions: the lock of the logical schemas, and what changed against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.catalog.versioning import (
    LOCK_NAME,
    RegistryLock,
    Schema,
    SchemaChange,
    diff_schemas,
    read_lock,
    unversioned,
    update_lock,
)
from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.platform.project import RunOptions
    from daedalus.platform.registry import PlatformRegistry

_NO_LOCK = "Write one and commit it: daeda registry lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryDiff:
    """What changed against the lock.

    Attributes:
        refused: the breaking changes without a newer version.
        locked: whether there is a lock file.
    """

    file: str
    locked: bool
    changes: tuple[SchemaChange, ...]
    refused: tuple[SchemaChange, ...]
    services: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether a check passes."""
        return self.locked and not self.refused

    def mends(self) -> tuple[str, ...]:
        """What to do, one sentence per service or file; empty when there is nothing to do."""
        if not self.locked:
            return (f"There is no {Path(self.file).name}. {_NO_LOCK}",)
        found = dict.fromkeys(change.service for change in self.refused)
        gone = {change.service for change in self.refused if not change.path and change.after is None}
        mends = [
            f"Service {name} is locked but not defined: take it back, or give it up with "
            f"daeda registry lock --force"
            if name in gone
            else f"Give service {name} a new version (YYYY-MM-DD[.N], later than the locked one), or undo the change"
            for name in found
        ]
        if not mends and self.changes:
            mends.append("The lock is behind the definitions: daeda registry lock, and commit the file")
        return tuple(mends)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for programs."""
        return {
            "file": self.file,
            "locked": self.locked,
            "ok": self.ok,
            "changes": [change.to_dict() | {"refused": change in self.refused} for change in self.changes],
            "mends": list(self.mends()),
            "services": list(self.services),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LockReport:
    """What locking did."""

    file: str
    written: bool
    services: tuple[str, ...]
    changes: tuple[SchemaChange, ...]


def lock_path(registry: PlatformRegistry, lock_file: Path | None = None) -> Path:
    """Where the lock lies: `registry.lock.json` in the project's folder."""
    return registry.project_root / LOCK_NAME if lock_file is None else Path(lock_file).absolute()


def current_schemas(registry: PlatformRegistry, options: RunOptions | None = None) -> dict[str, Schema]:
    """Every service's logical schema as definitions and configuration make it now.

    Raises:
        DefinitionError: a service does not resolve; every problem of all services.
    """
    return registry.facade(registry.config(options)).schemas()


def diff_registry(
    registry: PlatformRegistry, *, lock_file: Path | None = None, options: RunOptions | None = None
) -> RegistryDiff:
    """Every change of every service against the lock."""
    path = lock_path(registry, lock_file)
    current = current_schemas(registry, options)
    lock = read_lock(path)
    if lock is None and lock_file is not None:
        raise DefinitionError("there is no such lock file", where=str(path), hint=_NO_LOCK)
    locked = None if lock is None else lock.services
    changes = diff_schemas(locked, current)
    return RegistryDiff(
        file=str(path),
        locked=lock is not None,
        changes=changes,
        refused=unversioned(changes, locked, current),
        services=tuple(sorted(current)),
    )


def lock_registry(
    registry: PlatformRegistry, *, services: Iterable[str] = (), force: bool = False
) -> LockReport:
    """Write the lock: every service as the definitions make it now, or only the named ones.

    Args:
        registry: the project.
        services: only these; the others stay as they are locked.
        force: also lock breaking changes without a new version, and give up services that are gone.

    Raises:
        DefinitionError: a breaking change without a new version, a broken lock file, a folder that cannot be written.
    """
    path = lock_path(registry)
    current = current_schemas(registry)
    wanted = tuple(dict.fromkeys(services))
    known = {*current, *((read_lock(path) or RegistryLock(services={})).services if force else ())}
    for name in wanted:
        if name not in known:
            registry.catalog.service(name)  # refuses it, with near matches
    changes: tuple[SchemaChange, ...] = ()

    def locked_now(lock: RegistryLock | None) -> Mapping[str, Schema]:
        nonlocal changes
        before = dict(lock.services) if lock is not None else {}
        after = _chosen(before, current, wanted)
        changes = diff_schemas(before, after)
        refused = unversioned(changes, before, after)
        if refused and not force:
            raise _refusal(refused, path)
        return after

    written = update_lock(path, locked_now)
    return LockReport(file=str(path), written=written, services=tuple(sorted(current)), changes=changes)


def _chosen(
    before: Mapping[str, Schema], current: Mapping[str, Schema], wanted: tuple[str, ...]
) -> dict[str, Schema]:
    if not wanted:
        return dict(current)
    kept = {name: schema for name, schema in before.items() if name not in wanted}
    return kept | {name: current[name] for name in wanted if name in current}


def _refusal(refused: tuple[SchemaChange, ...], path: Path) -> DefinitionError:
    return DefinitionError.gather(
        DefinitionError(
            f"breaking change without a new version: {change.path or 'the service'} ({change.reason})",
            where=f"service {change.service}",
            hint="Give the service a new version, undo the change, or lock it all the same with --force"
            if change.after is not None or change.path
            else f"Take the service back, or give it up with --force ({path.name})",
        )
        for change in refused
    )
