"""`MetadataStore`: what was run, as one append-only SQLite file under the run root.

    <output_root>/metadata.sqlite     the runs and what happened to them
    <output_root>/_runs/RUN_ID.jsonl  each run's log

A run is a row; everything that happens to it is a row in `events`: its status, its days, facts that are known
later, notes of others. No row is ever changed or removed: triggers refuse it. Each append is a transaction of its
own, flushed to disk, and waits for those of other processes. A run without an end whose process is gone is
`interrupted`; one that did not succeed after somebody asked to stop it is `cancelled`.

Definitions never stand here, only their digests; texts that look like secrets are masked on the way in.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets as random_source
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.metadata.plain import cleaned
from daedalus.metadata.process import ProcessMark
from daedalus.metadata.record_file import FORMAT, LOGS_FOLDER, RecordFile
from daedalus.metadata.run_log import RunLog

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["FORMAT", "MetadataStore", "RunEvent", "RunStatus", "StoredRun"]


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen to the run any more."""
        return self not in _UNDER_WAY


_UNDER_WAY = frozenset({RunStatus.QUEUED, RunStatus.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """One run as the store knows it.

    Attributes:
        kind: `train`, `materialize`, ... as its writer calls it.
        version: the service's version when it ran.
        attempt: 1, or one more than the run of the same request before it that did not succeed.
        started_at: ISO, UTC, of its work, or of its request while it is queued; so is `ended_at`, which is empty
            while there is no end.
        facts: what was known at its start and found out later, as plain data.
        error: what ended it, as `DaedalusError.to_dict`; None when nothing did.
    """

    run_id: str
    kind: str
    service: str
    version: str
    status: RunStatus
    attempt: int
    started_at: str
    ended_at: str
    facts: dict[str, Any]
    error: dict[str, Any] | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took; None without an end. Not less than nothing, should the clock have been set back."""
        if not self.ended_at:
            return None
        span = dt.datetime.fromisoformat(self.ended_at) - dt.datetime.fromisoformat(self.started_at)
        return max(0.0, span.total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """Something that was appended to a run.

    Attributes:
        kind: `status`, `facts`, `day`, `note`.
        name: the day's `stage/YYYY-MM-DD`, or the note's kind.
    """

    at: str
    kind: str
    name: str
    payload: dict[str, Any]


class MetadataStore:
    """The runs under one run root.

    Args:
        root: the run root, `output_root`; the file is made when the first run begins.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._file = RecordFile(root)
        self.path = self._file.path

    # ------------------------------------------------------------------ writing

    def begin(
        self,
        kind: str,
        *,
        service: str = "",
        version: str = "",
        facts: Mapping[str, Any] | None = None,
        request: Mapping[str, Any] | None = None,
        queued: bool = False,
    ) -> str:
        """Record that a run begins now, in this process; returns its id.

        Args:
            kind: what kind of run.
            service: what it is for.
            version: that service's version.
            facts: what is known about it already.
            request: what was asked for; runs of an equal request are attempts at the same thing.
            queued: it only waits in this process; `start` is when its work begins.

        Raises:
            ExecutionError: the record cannot be kept: the folder is read-only, the disk full, or the file there
                is not a whole metadata file of this version. Nothing was changed.
        """
        self._file.create()
        now = dt.datetime.now(dt.UTC)
        run_id = f"{now:%Y%m%dT%H%M%S}-{random_source.token_hex(3)}"
        wanted = json.dumps(cleaned(request or {}), sort_keys=True)
        known = cleaned(dict(facts or {})) | {"process": ProcessMark.here().to_dict()}
        with self._file.connected(write=True) as connection:
            self._file.check_whole(connection)
            attempt = self._attempt(connection, (kind, service, wanted))
            connection.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run_id, kind, service, version, wanted, attempt, _text(now), json.dumps(known, default=str)),
            )
            if queued:
                _insert_event(connection, run_id, "status", {"status": RunStatus.QUEUED.value, "error": None})
        self.log(run_id).write(
            "queued" if queued else "begin", run_kind=kind, service=service, attempt=attempt
        )
        return run_id

    def start(self, run_id: str, *, facts: Mapping[str, Any] | None = None) -> StoredRun:
        """Record that a queued run's work begins now, in this process; returns the run.

        Raises:
            DefinitionError: no such run.
            ExecutionError: it does not wait any more: somebody stopped it, or has begun it.
        """
        run = self.find(run_id)
        known = dict(facts or {}) | {"process": ProcessMark.here().to_dict()}
        with self._file.connected(write=True) as connection:
            row = connection.execute("SELECT * FROM runs WHERE run_id = ?", (run.run_id,)).fetchone()
            # Whoever queued it may be gone meanwhile: that is no reason not to begin.
            status = self._stored(connection, row).status
            if status not in (RunStatus.QUEUED, RunStatus.INTERRUPTED):
                raise ExecutionError(f"the run is {status.value}, it does not wait", where=f"run {run_id}")
            _insert_event(connection, run.run_id, "facts", known)
            _insert_event(
                connection, run.run_id, "status", {"status": RunStatus.RUNNING.value, "error": None}
            )
        self.log(run.run_id).write("begin", run_kind=run.kind, service=run.service, attempt=run.attempt)
        return self.find(run.run_id)

    def append(self, run_id: str, kind: str, payload: Mapping[str, Any], *, name: str = "") -> None:
        """Append an event to a run; ExecutionError when it cannot be kept."""
        with self._file.connected(write=True) as connection:
            _insert_event(connection, run_id, kind, payload, name=name)

    def append_day(self, run_id: str, stage: str, day: str, payload: Mapping[str, Any]) -> None:
        """Record what is known of a day; said twice, the later keys win."""
        self.append(run_id, "day", payload, name=f"{stage}/{day}")

    def attach(self, run_id: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Keep a note with a run: the verdict of a check, a tracker's link, ...; any number of each kind."""
        self.append(self.find(run_id).run_id, "note", payload, name=kind)

    def finish(self, run_id: str, status: RunStatus, *, error: Mapping[str, Any] | None = None) -> None:
        """Record how a run ended."""
        self.append(run_id, "status", {"status": status.value, "error": error})
        self.log(run_id).write("end", status=status.value)

    def ask_to_stop(self, run_id: str) -> StoredRun:
        """Record that somebody wants a run to end; returns the run as it stands then."""
        self.append(run_id, "facts", {"stop_asked_at": _text(dt.datetime.now(dt.UTC))})
        self.log(run_id).write("stop asked", level="warning")
        return self.find(run_id)

    def log(self, run_id: str) -> RunLog:
        """The run's log."""
        return RunLog(self.root / LOGS_FOLDER / f"{run_id}.jsonl")

    # ------------------------------------------------------------------ reading

    def runs(self, *, service: str = "", kind: str = "", limit: int | None = None) -> list[StoredRun]:
        """The runs, newest first, whatever the clock said; those of a service or kind alone where one is given."""
        if not self.path.exists():
            return []
        clauses = [f"{name} = ?" for name, value in (("service", service), ("kind", kind)) if value]
        where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
        with self._file.connected() as connection:
            rows = connection.execute(
                f"SELECT * FROM runs {where} ORDER BY rowid DESC LIMIT ?",
                (*(value for value in (service, kind) if value), -1 if limit is None else limit),
            ).fetchall()
            return [self._stored(connection, row) for row in rows]

    def find(self, run_id: str) -> StoredRun:
        """The run of this id, of a unique beginning of it, or the newest one for `latest`.

        Raises:
            DefinitionError: there is no such run, or several; with near matches.
        """
        if run_id == "latest":
            newest = self.runs(limit=1)
            if newest:
                return newest[0]
        elif run_id and self.path.exists():
            with self._file.connected() as connection:
                found = connection.execute(
                    "SELECT * FROM runs WHERE substr(run_id, 1, length(?1)) = ?1 ORDER BY started_at LIMIT 5",
                    (run_id,),
                ).fetchall()
                if len(found) == 1:
                    return self._stored(connection, found[0])
            if found:
                some = ", ".join(row["run_id"] for row in found)
                raise DefinitionError(f"several runs begin with {run_id!r}", where=str(self.path), hint=some)
        known = [run.run_id for run in self.runs(limit=200)]
        raise DefinitionError(
            f"unknown run {run_id!r}",
            where=str(self.path),
            hint=did_you_mean(run_id, known) or "No run is recorded here; is this the run root?",
        )

    def days(self, run_id: str) -> dict[tuple[str, str], dict[str, Any]]:
        """What is recorded of each (stage, day) of a run, ascending."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for event in self.events(run_id, kind="day"):
            stage, _, day = event.name.partition("/")
            found[stage, day] = found.get((stage, day), {}) | event.payload
        return dict(
            sorted(found.items(), key=lambda item: (item[0][1], item[0][0] != "skeleton", item[0][0]))
        )

    def recorded_days(self, service: str) -> frozenset[tuple[str, str, str]]:
        """(stage, day, content hash) of the days of a service that a run recorded with their columns' statistics."""
        with self._file.connected() as connection:
            rows = connection.execute(
                "SELECT DISTINCT name, json_extract(payload, '$.content_hash') FROM events JOIN runs USING (run_id) "
                "WHERE service = ? AND events.kind = 'day' AND json_extract(payload, '$.columns') NOT IN ('{}', '')",
                (service,),
            ).fetchall()
        found = ((*name.partition("/"), content_hash) for name, content_hash in rows)
        return frozenset((stage, day, str(content_hash)) for stage, _, day, content_hash in found)

    def notes(self, run_id: str, kind: str = "") -> list[RunEvent]:
        """The notes of a run, oldest first; those of one kind where it is given."""
        return [note for note in self.events(run_id, kind="note") if kind in ("", note.name)]

    def events(self, run_id: str, *, kind: str = "") -> list[RunEvent]:
        """Everything that was appended to a run, in order."""
        with self._file.connected() as connection:
            rows = connection.execute(
                "SELECT * FROM events WHERE run_id = ? AND (? = '' OR kind = ?) ORDER BY event_id",
                (run_id, kind, kind),
            ).fetchall()
        return [
            RunEvent(at=row["at"], kind=row["kind"], name=row["name"], payload=json.loads(row["payload"]))
            for row in rows
        ]

    # ------------------------------------------------------------------ rows to runs

    def _stored(self, connection: sqlite3.Connection, row: sqlite3.Row) -> StoredRun:
        facts = json.loads(row["facts"])
        status, started_at, ended_at, error = RunStatus.RUNNING, row["started_at"], "", None
        for event in connection.execute(
            "SELECT at, kind, payload FROM events WHERE run_id = ? AND kind IN ('status', 'facts') "
            "ORDER BY event_id",
            (row["run_id"],),
        ):
            payload = json.loads(event["payload"])
            if event["kind"] == "facts":
                facts |= payload
                continue
            status, error = RunStatus(payload["status"]), payload["error"]
            if status is RunStatus.RUNNING:
                started_at = event["at"]
            elif status.is_over:
                ended_at = event["at"]
        if "stop_asked_at" in facts and status in (RunStatus.QUEUED, RunStatus.FAILED, RunStatus.INTERRUPTED):
            status = RunStatus.CANCELLED
        elif not status.is_over and not self._is_alive(row["run_id"], facts):
            status = RunStatus.CANCELLED if "stop_asked_at" in facts else RunStatus.INTERRUPTED
        return StoredRun(
            run_id=row["run_id"],
            kind=row["kind"],
            service=row["service"],
            version=row["version"],
            status=status,
            attempt=row["attempt"],
            started_at=started_at,
            ended_at=ended_at,
            facts=facts,
            error=error,
        )

    def _is_alive(self, run_id: str, facts: Mapping[str, Any]) -> bool:
        return ProcessMark.from_dict(facts.get("process", {})).is_alive(self.log(run_id).last_written())

    def _attempt(self, connection: sqlite3.Connection, request: tuple[str, str, str]) -> int:
        rows = connection.execute(
            "SELECT * FROM runs WHERE kind = ? AND service = ? AND request = ? ORDER BY rowid DESC", request
        )
        for row in rows:
            before = self._stored(connection, row)
            if before.status is RunStatus.SUCCEEDED:
                return 1
            if before.status.is_over:
                return before.attempt + 1
        return 1


def _insert_event(
    connection: sqlite3.Connection, run_id: str, kind: str, payload: Mapping[str, Any], *, name: str = ""
) -> None:
    text = json.dumps(cleaned(dict(payload)), default=str)
    row = (run_id, _text(dt.datetime.now(dt.UTC)), kind, name, text)
    connection.execute("INSERT INTO events (run_id, at, kind, name, payload) VALUES (?, ?, ?, ?, ?)", row)


def _text(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
