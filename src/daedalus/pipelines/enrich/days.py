"""One day of enrichment: what it is made from, whether it must be made again and why, and its manifest."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.catalog.dtypes import from_arrow
from daedalus.errors import ExecutionError, SourceError
from daedalus.metadata.days import DayManifest
from daedalus.pipelines.enrich.plan import BATCH_ROWS, SHARD_ROWS, enriched_schema
from daedalus.pipelines.enrich.shards import shard_tasks
from daedalus.pipelines.function_code import code_digests
from daedalus.storage.column_sketches import merge_sketches
from daedalus.storage.embedding_sources import footer_hash
from daedalus.storage.embedding_store import open_store

if TYPE_CHECKING:
    import contextlib
    import datetime as dt
    from collections.abc import Sequence
    from pathlib import Path

    from daedalus.metadata.days import DayStore
    from daedalus.pipelines.enrich.plan import EnrichPlan, Transform
    from daedalus.pipelines.enrich.shards import ShardReport, ShardTask

NULL_COUNTER = "null "
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DayInput:
    """A skeleton day that is there and fits the plan.

    Attributes:
        files: in row order.
        schema: of the enriched day, (column, Arrow type).
        fingerprint: everything the enriched day depends on, as plain data.
    """

    day: dt.date
    skeleton: DayManifest
    files: tuple[Path, ...]
    schema: tuple[tuple[str, str], ...]
    fingerprint: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleDay:
    """A day that is being written.

    Attributes:
        folder: temporary, until the day is committed.
        lock: holds the day; closed when it is committed.
    """

    input: DayInput
    folder: Path
    reason: str
    tasks: tuple[ShardTask, ...]
    lock: contextlib.ExitStack

    def manifest(self, shards: Sequence[ShardReport]) -> DayManifest:
        """The finished day's manifest."""
        nulls: dict[str, int] = {}
        for shard in shards:
            for column, count in shard.nulls:
                nulls[column] = nulls.get(column, 0) + count
        return DayManifest(
            day=self.input.day.isoformat(),
            schema=self.input.schema,
            row_count=sum(shard.rows for shard in shards),
            ts_min=self.input.skeleton.ts_min,
            ts_max=self.input.skeleton.ts_max,
            content_hash=combined_hash([shard.content_hash for shard in shards]),
            fingerprint=self.input.fingerprint,
            files=tuple((shard.file, shard.size_bytes) for shard in shards),
            counters={f"{NULL_COUNTER}{column}": count for column, count in nulls.items()},
            columns=self._columns(shards),
        )

    def _columns(self, shards: Sequence[ShardReport]) -> dict[str, dict[str, Any]]:
        """The statistics of the day's columns: those that enrichment does not fill are the skeleton's."""
        filled = merge_sketches(shard.sketches for shard in shards)
        made = {
            name: sketch.stats(combined_hash([shard.digests[name] for shard in shards])).to_mapping()
            for name, sketch in filled.items()
        }
        known = {**self.input.skeleton.columns, **made}
        return {name: known[name] for name, _ in self.input.schema if name in known}


def combined_hash(shard_hashes: Sequence[str]) -> str:
    """An enriched day's content hash: that of its shards' content hashes, in order.

    Shards have a fixed number of rows, so this too depends on the rows alone, and workers hash in parallel.
    """
    return hashlib.sha256("".join(shard_hashes).encode()).hexdigest()[:32]


def day_input(skeleton: DayStore, day: dt.date, plan: EnrichPlan) -> DayInput:
    """Look at one day's skeleton.

    Raises:
        ExecutionError: the day has none, or it cannot be read.
        DefinitionError: its columns do not fit the plan.
    """
    manifest = skeleton.manifest(day)
    if manifest is None:
        raise ExecutionError(
            "there is no skeleton to enrich",
            where=str(skeleton.path(day)),
            hint="Run the skeleton stage for it first: leave out --enrich-only",
            day=day.isoformat(),
        )
    files = tuple(
        skeleton.path(day) / name for name in sorted((name for name, _ in manifest.files), key=_natural)
    )
    try:
        read = pq.read_schema(files[0])
        footers = [footer_hash(file) for file in files]
    except (OSError, pa.ArrowInvalid) as problem:
        raise SourceError(
            f"cannot read the skeleton: {problem}", where=str(files[0]), day=day.isoformat()
        ) from problem
    opened = {pinned.definition.name: open_store(pinned.definition, pinned.version) for pinned in plan.stores}
    schema = enriched_schema(plan, read, opened)
    return DayInput(
        day=day,
        skeleton=manifest,
        files=files,
        schema=tuple((field.name, str(field.type)) for field in schema),
        fingerprint={
            "format": [_FORMAT, SHARD_ROWS, BATCH_ROWS],
            "skeleton": {"content": manifest.content_hash, "footers": footers},
            "transforms": {transform.column: _described(transform) for transform in plan.transforms},
            "stores": {pinned.definition.name: pinned.snapshot for pinned in plan.stores},
        },
    )


def stale_day(one: DayInput, folder: Path, reason: str, lock: contextlib.ExitStack) -> StaleDay:
    """The day with its shards."""
    tasks = shard_tasks(one.day.isoformat(), one.files, one.skeleton.row_count, folder)
    return StaleDay(input=one, folder=folder, reason=reason, tasks=tuple(tasks), lock=lock)


def stale_reason(made: DayManifest | None, fingerprint: dict[str, Any]) -> str:
    """Why a day must be written; empty when it was made from exactly this."""
    if made is None:
        return "not there yet"
    old = made.fingerprint
    if old == fingerprint:
        return ""
    if old.get("format") != fingerprint["format"]:
        return "written by another version of the enrich stage"
    if old.get("skeleton") != fingerprint["skeleton"]:
        return "its skeleton changed"
    for kind, label in (("transforms", "column"), ("stores", "store")):
        before, now = old.get(kind, {}), fingerprint[kind]
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if changed:
            return "; ".join(_change(label, name, before.get(name), now.get(name)) for name in changed)
    return "its manifest is of another form"


def _change(label: str, name: str, before: Any, now: Any) -> str:
    if before is None or now is None:
        return f"{label} {name} is {'new' if before is None else 'gone'}"
    if label == "store":
        return f"store {name} changed, version {before.split('@')[0]} to {now.split('@')[0]}"
    differing = ", ".join(
        f"{key} {before.get(key)} to {now[key]}" for key in now if before.get(key) != now[key]
    )
    return f"column {name} changed ({differing})"


def _described(transform: Transform) -> dict[str, Any]:
    code = code_digests([transform.udf.name]).get(transform.udf.name, "") if ":" in transform.udf.name else ""
    return {
        "source_id_column": transform.source_id_column,
        "store_name": transform.store_name,
        "udf_name": transform.udf.name,
        "dtype": from_arrow(transform.contract),
        "dimension": transform.dimension,
        **({"code": code} if code else {}),
    }


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts part-10 after part-9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
