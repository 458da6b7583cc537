"""What a training run leaves behind: the record of a day from its manifest, and the record of a run.

Records hold digests of definitions, never their text, and paths relative to the data root, so that they mean the
same on another machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from daedalus.metadata.provenance import digest
from daedalus.pipelines.days.counts import KEYED, NULL_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.metadata.days import DayManifest
    from daedalus.metadata.store import MetadataStore, StoredRun


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDayRecord:
    """One day of a run after one stage.

    Attributes:
        stage: `skeleton`, `enrich`, `sink` (the copy into a table) or `materialize`, whose day is an instant.
        state: `written`, or `up to date`; empty when the run ended before that was known.
        files: (file name, bytes) pairs: the day's output manifest.
        counters: rows that came in, and dropped by each filter.
        columns: the columns' statistics (`ColumnStats.to_mapping`) of a day that this run wrote.
        inputs: digests of what the day was made from: `pipeline`, `views`, `sources`, `functions`, `transforms`; and
            `stores`, the embedding stores' snapshots.
        snapshot: of a copy into a lake: the snapshot that its commit made.
    """

    stage: str
    day: str
    state: str = ""
    reason: str = ""
    rows: int = 0
    ts_min: str = ""
    ts_max: str = ""
    content_hash: str = ""
    seconds: float = 0.0
    schema: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, int], ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    snapshot: int | None = None

    @classmethod
    def from_payload(cls, stage: str, day: str, payload: Mapping[str, Any]) -> TrainingDayRecord:
        """What `day_payload` made and the store kept; keys of a later version are passed over."""
        known = {name: payload[name] for name in cls.__dataclass_fields__ if name in payload}
        for name in ("schema", "files"):
            known[name] = tuple((first, second) for first, second in known.get(name, ()))
        return cls(**known | {"stage": stage, "day": day})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRunRecord:
    """One recorded run: what ran, on what, from what, and what came out.

    Attributes:
        status: `queued`, `running`, `succeeded`, `failed`, `interrupted` or `cancelled`.
        attempt: how often this was tried, counted since it last succeeded.
        git_sha: the project's commit; empty outside a repository. `git_dirty`: whether files differed from it.
        config_files: (path, digest) of the configuration files that were read; `definition_files` likewise.
        grain: the columns that say what one row is.
        sources: per scan what it read: (path, bytes, digest) of files, or a snapshot of another backend.
        stores: (embedding store, snapshot) pairs.
        row_count: rows of the final stage over all days.
        ts_min: the smallest event time of any day; `ts_max` the largest.
        null_rates: per column over the days that this run wrote.
        key_null_rates: per join key of the spine, over the same days.
        output_path: the final stage's folder; with the days' `files` the output manifest.
        error: what ended the run; None when nothing did.
    """

    run_id: str
    kind: str
    service: str
    version: str
    status: str
    attempt: int
    started_at: str
    ended_at: str
    git_sha: str
    git_dirty: bool
    config_files: tuple[tuple[str, str], ...]
    definition_files: tuple[tuple[str, str], ...]
    versions: Mapping[str, str]
    request: Mapping[str, Any]
    grain: tuple[str, ...]
    sources: Mapping[str, tuple[Any, ...]]
    stores: tuple[tuple[str, str], ...]
    row_count: int
    ts_min: str
    ts_max: str
    null_rates: Mapping[str, float]
    key_null_rates: Mapping[str, float]
    output_path: str
    days: tuple[TrainingDayRecord, ...]
    error: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, run: StoredRun, store: MetadataStore | None) -> TrainingRunRecord:
        """The record of a stored run; without a store it has no days."""
        facts = run.facts
        recorded = {} if store is None else store.days(run.run_id)
        days = tuple(
            TrainingDayRecord.from_payload(stage, day, payload) for (stage, day), payload in recorded.items()
        )
        final = final_days(days)
        git = facts.get("git") or {}
        return cls(
            run_id=run.run_id,
            kind=run.kind,
            service=run.service,
            version=run.version,
            status=run.status.value,
            attempt=run.attempt,
            started_at=run.started_at,
            ended_at=run.ended_at,
            git_sha=git.get("sha", ""),
            git_dirty=git.get("dirty", False),
            config_files=tuple(facts.get("config_files", {}).items()),
            definition_files=tuple(facts.get("definition_files", {}).items()),
            versions=facts.get("versions", {}),
            request=facts.get("request", {}),
            grain=tuple(facts.get("grain", ())),
            sources={name: tuple(items) for name, items in facts.get("sources", {}).items()},
            stores=tuple(sorted(_stores(days).items())),
            row_count=sum(day.rows for day in final),
            ts_min=min((day.ts_min for day in final if day.ts_min), default=""),
            ts_max=max((day.ts_max for day in final if day.ts_max), default=""),
            null_rates=_null_rates(final),
            key_null_rates=_key_null_rates(days),
            output_path=facts.get("output_path", ""),
            days=days,
            error=run.error,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, days included."""
        return asdict(self)

    def day(self, stage: str, day: str) -> TrainingDayRecord | None:
        """The record of one day; None when the run did not come to it."""
        return next((one for one in self.days if (one.stage, one.day) == (stage, day)), None)


def final_days(days: Iterable[TrainingDayRecord]) -> list[TrainingDayRecord]:
    """Each day once, after the last stage that is recorded of it; copies into tables aside."""
    last = {day.day: day for day in days if day.stage in ("skeleton", "enrich", "materialize")}
    return list(last.values())


def day_payload(manifest: DayManifest, roots: Iterable[str], *, columns: bool = True) -> dict[str, Any]:
    """What a record keeps of a finished day.

    Args:
        manifest: the day's.
        roots: folders that paths are shown relative to.
        columns: keep the columns' statistics; a day that was up to date has them in the run that wrote it.
    """
    payload: dict[str, Any] = {
        "rows": manifest.row_count,
        "ts_min": manifest.ts_min,
        "ts_max": manifest.ts_max,
        "content_hash": manifest.content_hash,
        "schema": manifest.schema,
        "files": manifest.files,
        "counters": manifest.counters,
        "inputs": input_digests(manifest.fingerprint, roots),
    }
    return payload | ({"columns": manifest.columns} if columns else {})


def input_digests(fingerprint: Mapping[str, Any], roots: Iterable[str]) -> dict[str, Any]:
    """A day's fingerprint without any definition: digests, by what it is made from."""
    roots = tuple(roots)
    digests: dict[str, Any] = {}
    if "pipeline" in fingerprint:
        digests["pipeline"] = digest(fingerprint["pipeline"])
    for kind in ("views", "transforms", "functions"):
        if kind in fingerprint:
            digests[kind] = {name: digest(_text(text)) for name, text in fingerprint[kind].items()}
    if "sources" in fingerprint:
        digests["sources"] = {
            scan: digest(_text(portable(identity, roots)))
            for scan, identity in fingerprint["sources"].items()
            if identity  # the session map is the run's own
        }
    return digests | ({"stores": fingerprint["stores"]} if "stores" in fingerprint else {})


def source_items(fingerprints: Iterable[Mapping[str, Any]], roots: Iterable[str]) -> dict[str, list[Any]]:
    """Per scan everything that any of the days read: files with size and digest, or snapshots."""
    roots = tuple(roots)
    found: dict[str, dict[str, Any]] = {}
    for fingerprint in fingerprints:
        for scan, identity in fingerprint.get("sources", {}).items():
            known = found.setdefault(scan, {})
            for item in identity if isinstance(identity, list) else [identity]:
                plain = portable(item, roots)
                known[_text(plain)] = plain
        for view, snapshot in fingerprint.get("snapshots", {}).items():
            # What a database was read at: its place alone, which the scans give, says nothing of its rows.
            item = {**snapshot["record"], "exact": snapshot["exact"]}
            found.setdefault(view, {})[_text(item)] = item
    return {scan: list(items.values()) for scan, items in sorted(found.items()) if items}


def lake_pins(sources: Mapping[str, Iterable[Any]]) -> dict[str, Mapping[str, Any]]:
    """By view the lake snapshot that a recorded run read: `ExecutionRequest.pins` of a run that repeats it."""
    return {
        name: item
        for name, items in sources.items()
        for item in items
        if isinstance(item, dict) and item.get("backend") == "ducklake"
    }


def portable(value: Any, roots: tuple[str, ...]) -> Any:
    """Plain data with paths under one of `roots` made relative.

    >>> portable([["/data/x/a.parquet", 3]], ("/data/x",))
    [['a.parquet', 3]]
    """
    if isinstance(value, str):
        for root in roots:
            if value.startswith(root.rstrip("/") + "/"):
                return value[len(root.rstrip("/")) + 1 :]
        return value
    if isinstance(value, list | tuple):
        return [portable(item, roots) for item in value]
    if isinstance(value, dict):
        return {key: portable(item, roots) for key, item in value.items()}
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _stores(days: Iterable[TrainingDayRecord]) -> dict[str, str]:
    return {name: str(snapshot) for day in days for name, snapshot in day.inputs.get("stores", {}).items()}


def _null_rates(days: Iterable[TrainingDayRecord]) -> dict[str, float]:
    totals: dict[str, tuple[int, int]] = {}
    for day in days:
        for name, stats in day.columns.items():
            nulls, rows = totals.get(name, (0, 0))
            totals[name] = (nulls + stats["nulls"], rows + stats["rows"])
    return {name: nulls / rows if rows else 0.0 for name, (nulls, rows) in totals.items()}


def _key_null_rates(days: Iterable[TrainingDayRecord]) -> dict[str, float]:
    rows, nulls = 0, dict[str, int]()
    for day in days:
        if day.stage == "skeleton" and day.columns and KEYED in day.counters:
            rows += day.counters[KEYED]
            for name, count in day.counters.items():
                if name.startswith(NULL_KEY):
                    key = name.removeprefix(NULL_KEY)
                    nulls[key] = nulls.get(key, 0) + count
    return {key: count / rows if rows else 0.0 for key, count in sorted(nulls.items())}
