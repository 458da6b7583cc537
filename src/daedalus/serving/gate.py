"""The two questions that Quack asks before anything else: who is it, and what may run.

Both fail closed: whatever goes wrong in them, the answer is no.
"""

from __future__ import annotations

import datetime as dt
import hmac
import json
import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from daedalus.secrets import mask
from daedalus.serving.authorization import Approved, RefusedError, admit
from daedalus.serving.settings import Identity, ServingSettings, token_digest
from daedalus.serving.staging import LimitError, Stage
from daedalus.sql.identifiers import quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daedalus.serving.metrics import ServingMetrics

AUDIT = logging.getLogger("daedalus.serving.audit")
_MOST_SESSIONS = 100_000
_SHOWN_STATEMENT = 2_000


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Gate:
    """Knows the identities, remembers which session is whose, admits statements and writes the audit log.

    Args:
        settings: identities and limits.
        relations: what is served, by lower-case name.
        stage: runs what is admitted.
        metrics: counts.
        now: the clock that tokens expire by.
    """

    def __init__(
        self,
        settings: ServingSettings,
        relations: Mapping[str, Approved],
        stage: Stage,
        metrics: ServingMetrics,
        *,
        now: Callable[[], dt.datetime] = _utc_now,
    ) -> None:
        self._settings = settings
        self._stage = stage
        self._metrics = metrics
        self._now = now
        self._sessions: OrderedDict[str, Identity] = OrderedDict()
        self._lock = threading.Lock()
        self._relations = {
            identity.name: {key: one for key, one in relations.items() if identity.may_read(one.service)}
            for identity in settings.identities
        }

    # ------------------------------------------------------------------ who

    def authenticate(self, session: str | None, token: str | None, _server_token: str | None) -> bool:
        """Whether the token is somebody's and has not expired."""
        try:
            identity, why = self._identity(token or "")
            if identity is None or not session:
                self._metrics.refused_logins.labels(why).inc()
                self._audit("login refused", session, reason=why)
                return False
            with self._lock:
                self._sessions[session] = identity
                while len(self._sessions) > _MOST_SESSIONS:
                    self._sessions.popitem(last=False)
            return True
        except Exception:  # noqa: BLE001 - the answer to anything unforeseen is no
            AUDIT.exception("authentication failed")
            return False

    def _identity(self, token: str) -> tuple[Identity | None, str]:
        """The token's owner; every digest is compared, so that time tells nothing."""
        digest = token_digest(token)
        found = None
        for identity in self._settings.identities:
            if hmac.compare_digest(identity.digest, digest):
                found = identity
        if found is None:
            return None, "unknown token" if token else "no token"
        return (None, "expired token") if found.expired(self._now()) else (found, "")

    # ------------------------------------------------------------------ what

    def authorize(self, session: str | None, statement: str | None) -> str | None:
        """The SQL to run instead of the statement; None refuses it.

        A refusal that the client may read is a SELECT that raises it. Quack asks the same question, in words of its
        own (`INSERT INTO ...`), before it appends rows, and takes any SQL for a yes: so only what DuckDB parsed as
        one SELECT gets such an answer.
        """
        started = time.perf_counter()
        try:
            with self._lock:
                identity = self._sessions.get(session or "")
            return self._decide(session, identity, statement or "", started)
        except Exception:  # noqa: BLE001 - the answer to anything unforeseen is no
            AUDIT.exception("authorization failed")
            return None

    def _decide(
        self, session: str | None, identity: Identity | None, statement: str, started: float
    ) -> str | None:
        facts: dict[str, Any] = {"statement": mask(statement[:_SHOWN_STATEMENT]), "bytes": len(statement)}
        if identity is None or identity.expired(self._now()):
            why = "no session" if identity is None else "expired token"
            self._outcome("refused", session, identity, started, reason=why, **facts)
            return None
        limits = self._settings.limits
        try:
            admitted = admit(
                statement,
                self._relations[identity.name],
                rows=limits.rows,
                longest=limits.statement_bytes,
                heaviest=limits.bytes_per_batch,
            )
        except RefusedError as error:
            self._outcome("refused", session, identity, started, reason=str(error), **facts)
            return _raising(f"refused: {error}") if error.parsed else None
        facts["relation"] = admitted.relation.name
        try:
            staged = self._stage.run(admitted)
        except LimitError as error:
            self._outcome("failed", session, identity, started, reason=str(error), **facts)
            return _raising(str(error))
        self._metrics.rows.inc(staged.rows)
        self._outcome(
            "answered",
            session,
            identity,
            started,
            rows=staged.rows,
            result_bytes=staged.result_bytes,
            **facts,
        )
        return staged.sql

    # ------------------------------------------------------------------ the record

    def _outcome(
        self, outcome: str, session: str | None, identity: Identity | None, started: float, **facts: Any
    ) -> None:
        seconds = time.perf_counter() - started
        self._metrics.statements.labels(outcome).inc()
        self._metrics.seconds.observe(seconds)
        name = None if identity is None else identity.name
        self._audit(outcome, session, identity=name, ms=round(seconds * 1000, 2), **facts)

    def _audit(self, event: str, session: str | None, **facts: Any) -> None:
        line = {
            "at": self._now().isoformat(timespec="milliseconds"),
            "event": event,
            "session": (session or "")[:8],
            **{key: value for key, value in facts.items() if value is not None},
        }
        AUDIT.info(json.dumps(line))  # ASCII: no character that ends a line for whoever reads it


def _raising(message: str) -> str:
    return f"SELECT error({quote_literal(message)})"
