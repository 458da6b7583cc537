"""What is different now from when a run was recorded, and so may be why its result would be."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from daedalus.errors import DaedalusError
from daedalus.pipelines.records import input_digests, source_items
from daedalus.platform.records import project_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.pipelines.records import TrainingDayRecord, TrainingRunRecord
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.registry import PlatformRegistry

_SHOWN = 5


class Inputs(Protocol):
    """What a run would be made from now; `RunInputs` of a training run."""

    def fingerprint(self, day: dt.date) -> dict[str, Any]:
        """What the day, or the instant's rows, would be made from."""

    def store_scans(self) -> frozenset[str]:
        """The scans of embedding stores' ids."""

    def stores(self) -> dict[str, str]:
        """The snapshot of each embedding store that would be read."""


class CauseKind(StrEnum):
    """Where a difference lies."""

    DEFINITIONS = "definitions"
    CONFIGURATION = "configuration"
    CODE = "code"
    SOURCES = "source snapshot"
    STORE = "store"
    ENGINES = "engine version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One difference.

    Attributes:
        what: a sentence that names what differs, then and now.
        decides: whether it changes what the days are made from; else it may, or may not.
    """

    kind: CauseKind
    what: str
    decides: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": self.kind.value, "what": self.what, "decides": self.decides}


def project_causes(
    registry: PlatformRegistry,
    record: TrainingRunRecord,
    git: Mapping[str, Any] | None,
    config: TrainingRunConfig,
) -> list[Cause]:
    """What differs in code, engines and files; whether a file's difference means anything is not known here.

    Args:
        registry: the project as it is now.
        record: the run.
        git: the run's `git` fact.
        config: the configuration now.
    """
    now = project_facts(registry, config, record.service)
    return [
        *_git_causes(git, now["git"]),
        *_version_causes(record.versions, now["versions"]),
        *_file_causes(CauseKind.DEFINITIONS, record.definition_files, now["definition_files"]),
        *_file_causes(CauseKind.CONFIGURATION, record.config_files, now["config_files"]),
    ]


def _git_causes(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[Cause]:
    if not then or not now:
        if not then and not now:
            return []
        side = "the run was made outside a git repository" if not then else "this is no git repository"
        return [Cause(kind=CauseKind.CODE, what=f"{side}: its commit cannot be compared", decides=False)]
    causes = []
    if then["sha"] != now["sha"]:
        what = f"the run was made at commit {then['sha'][:12]}, this is {now['sha'][:12]}"
        causes.append(Cause(kind=CauseKind.CODE, what=what, decides=False))
    if then.get("changes", "") != now.get("changes", ""):
        if then["dirty"]:
            what = "the run was made with uncommitted changes, which are not the ones here"
        else:
            what = "there are uncommitted changes here, there were none when the run was made"
        causes.append(Cause(kind=CauseKind.CODE, what=what, decides=False))
    return causes


def _version_causes(then: Mapping[str, str], now: Mapping[str, str]) -> list[Cause]:
    causes = []
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            kind = CauseKind.CODE if name == "daedalus" else CauseKind.ENGINES
            what = f"{name} was {then.get(name, 'absent')}, is {now.get(name, 'absent')}"
            causes.append(Cause(kind=kind, what=what, decides=False))
    return causes


def _file_causes(kind: CauseKind, then: Iterable[tuple[str, str]], now: Mapping[str, str]) -> list[Cause]:
    before = dict(then)
    causes = []
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            how = "is new" if name not in before else "is gone" if name not in now else "has changed"
            found = CauseKind.CODE if name.endswith(".py") else kind
            causes.append(Cause(kind=found, what=f"{name} {how}", decides=False))
    return causes


def input_causes(record: TrainingRunRecord, inputs: Inputs, config: TrainingRunConfig) -> list[Cause]:
    """What differs in what the recorded days are made from.

    A source that cannot be read any more is a cause like any other.
    """
    roots = (config.source_root, str(config.project_root))
    days = [day for day in record.days if day.stage in ("skeleton", "materialize")]
    causes: dict[tuple[CauseKind, str], Cause] = {}

    def add(kind: CauseKind, what: str) -> None:
        causes.setdefault((kind, what), Cause(kind=kind, what=what))

    fingerprints = []
    for day in days:
        try:
            fingerprint = inputs.fingerprint(dt.date.fromisoformat(day.day[:10]))
        except DaedalusError as error:
            kind = CauseKind.STORE if "store" in error.where or "store" in error.what else CauseKind.SOURCES
            add(kind, f"cannot be read: {error}")
            break
        fingerprints.append(fingerprint)
        for kind, what in _digest_causes(day, input_digests(fingerprint, roots), inputs):
            add(kind, what)
    if len(fingerprints) == len(days):
        items = source_items(fingerprints, roots)
        for kind, what in _source_causes(record.sources, items, inputs.store_scans()):
            add(kind, what)
    for kind, what in _store_causes(record, inputs):
        add(kind, what)
    return list(causes.values())


def _digest_causes(
    day: TrainingDayRecord, now: Mapping[str, Any], inputs: Inputs
) -> list[tuple[CauseKind, str]]:
    then = day.inputs
    found = []
    if then.get("pipeline") != now.get("pipeline"):
        found.append((CauseKind.DEFINITIONS, "the compiled pipeline is another one"))
    views, views_now = then.get("views", {}), now.get("views", {})
    found += [
        (CauseKind.DEFINITIONS, f"view {view} means something else")
        for view in sorted({*views, *views_now})
        if views.get(view) != views_now.get(view)
    ]
    functions, functions_now = then.get("functions", {}), now.get("functions", {})
    found += [
        (CauseKind.CODE, f"the code of {name} is another one")
        for name in sorted({*functions, *functions_now})
        if functions.get(name) != functions_now.get(name)
    ]
    for scan in sorted({*then.get("sources", {}), *now.get("sources", {})}):
        if then.get("sources", {}).get(scan) != now.get("sources", {}).get(scan):
            kind = CauseKind.STORE if scan in inputs.store_scans() else CauseKind.SOURCES
            found.append((kind, f"what {scan} reads has changed"))
    return found


def _source_causes(
    then: Mapping[str, Iterable[Any]], now: Mapping[str, Iterable[Any]], stores: Iterable[str]
) -> list[tuple[CauseKind, str]]:
    """The files, or other parts of snapshots, that are not the same."""
    found = []
    for scan in sorted({*then, *now}):
        if scan in stores:
            continue
        before = {_name(item): _state(item) for item in then.get(scan, ())}
        after = {_name(item): _state(item) for item in now.get(scan, ())}
        changed = [name for name in after if name in before and before[name] != after[name]]
        gone = [name for name in before if name not in after]
        new = [name for name in after if name not in before]
        parts = [
            f"{label}: {', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"
            for label, names in (("changed", changed), ("gone", gone), ("new", new))
            if names
        ]
        if parts:
            found.append((CauseKind.SOURCES, f"what {scan} reads has changed: {'; '.join(parts)}"))
    return found


def _store_causes(record: TrainingRunRecord, inputs: Inputs) -> list[tuple[CauseKind, str]]:
    if not record.stores:
        return []
    try:
        now = inputs.stores()
    except DaedalusError as error:
        return [(CauseKind.STORE, f"cannot be read: {error}")]
    return [
        (CauseKind.STORE, f"{name} was snapshot {snapshot}, is {now.get(name, 'gone')}")
        for name, snapshot in record.stores
        if str(now.get(name)) != snapshot
    ]


def without_repeats(causes: Iterable[Cause]) -> list[Cause]:
    """The causes, general sentences left out where a more precise one follows."""
    found = list(causes)
    return [
        one
        for one in found
        if not any(other is not one and other.what.startswith(f"{one.what}:") for other in found)
    ]


def _state(item: Any) -> str:
    """What of an item tells whether its rows are the same: of a database's record, what is exact about it."""
    exact = item.get("exact") if isinstance(item, dict) else None
    return _text(item if exact is None else exact)


def _name(item: Any) -> str:
    if isinstance(item, dict) and "backend" in item:
        return f"{item['backend']} {item.get('place', '')} {item.get('relation', '')}".rstrip()
    return str(item[0]) if isinstance(item, list) and item else _text(item)


def _text(item: Any) -> str:
    return json.dumps(item, sort_keys=True, default=str)
