"""Who may ask the daemon, for what, and how much: `config/serving.yaml`.

    identities:
      - {name: recommender, token: "${RECOMMENDER_TOKEN}", services: [dssm_ranking], expires: "2027-01-01"}
    limits: {rows: 100000, seconds: 5}

Without the file there is one identity, `default`: its token stands in `DAEDALUS_SERVE_TOKEN` and it may read every
service that allows serving.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from daedalus.catalog.sections import Section
from daedalus.catalog.yaml_reader import read_yaml
from daedalus.errors import DefinitionError, did_you_mean
from daedalus.secrets import ENV_REFERENCE, remember_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SETTINGS_FILE = "config/serving.yaml"
TOKEN_VARIABLE = "DAEDALUS_SERVE_TOKEN"  # noqa: S105 - the variable's name
SHORTEST_TOKEN = 16
DEFAULT_IDENTITY = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One that may ask.

    Attributes:
        digest: SHA-256 of its token; the token itself is not kept.
        services: what it may read; None is everything that is served.
        expires: from then on the token is refused; None is never.
    """

    name: str
    digest: bytes
    services: frozenset[str] | None = None
    expires: dt.datetime | None = None

    def expired(self, now: dt.datetime) -> bool:
        """Whether the token has run out."""
        return self.expires is not None and now >= self.expires

    def may_read(self, service: str) -> bool:
        """Whether the service is on its list."""
        return self.services is None or service in self.services


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one statement, and all of them together, may cost.

    Attributes:
        rows: of one result.
        result_bytes: of one result, as Arrow.
        seconds: how long one statement may wait and run.
        concurrent: statements that run at a time; others wait.
        statement_bytes: of one statement's text.
        memory: DuckDB's memory limit; nothing is spilled.
        threads: of DuckDB.
    """

    rows: int = 100_000
    result_bytes: int = 64 << 20
    seconds: float = 5.0
    concurrent: int = 8
    statement_bytes: int = 64 << 10
    memory: str = "1GB"
    threads: int = 2

    @property
    def bytes_per_batch(self) -> int:
        """What one statement may make of a batch of rows: its part of the memory, which DuckDB does not count."""
        found = re.fullmatch(r"([\d.]+) ?([KMGT])(i?)B", self.memory)
        if found is None:
            return 128 << 20
        unit = (1024 if found[3] else 1000) ** (" KMGT".index(found[2]))
        return int(float(found[1]) * unit) // self.concurrent


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """The whole file."""

    identities: tuple[Identity, ...]
    limits: Limits = Limits()


def token_digest(token: str) -> bytes:
    """What is compared instead of the token."""
    return hashlib.sha256(token.encode()).digest()


def load_settings(
    root: Path, known_services: Iterable[str], *, environ: Mapping[str, str] | None = None
) -> ServingSettings:
    """The settings of a project.

    Raises:
        DefinitionError: every problem of the file; a token that is not set, too short, or shared.
    """
    env = os.environ if environ is None else environ
    path = root / SETTINGS_FILE
    if not path.is_file():
        token = env.get(TOKEN_VARIABLE, "")
        problem = _token_problem(token)
        if problem:
            raise DefinitionError(
                f"{TOKEN_VARIABLE} {problem}",
                where="daeda serve",
                hint=f"export {TOKEN_VARIABLE}=$(openssl rand -hex 32), or write {SETTINGS_FILE}",
            )
        remember_secret(token)
        return ServingSettings(identities=(Identity(name=DEFAULT_IDENTITY, digest=token_digest(token)),))
    document = read_yaml(path, file=SETTINGS_FILE)
    problems = list(document.problems)
    if document.tree is not None:
        section = Section(document, document.tree, (), problems)
        section.allow(("identities", "limits"))
        settings = ServingSettings(
            identities=_identities(section, frozenset(known_services), env), limits=_limits(section)
        )
        if not problems:
            return settings
    raise DefinitionError.gather(problems or [DefinitionError("the file is empty", where=SETTINGS_FILE)])


def _identities(section: Section, known: frozenset[str], env: Mapping[str, str]) -> tuple[Identity, ...]:
    found: list[Identity] = []
    for one in section.sections("identities"):
        one.allow(("name", "token", "services", "expires"))
        name = one.name("name")
        digest = _digest(one, env)
        services = frozenset(one.texts("services")) if one.has("services") else None
        for service in sorted((services or frozenset()) - known):
            one.problem(
                f"{service!r} is no service that allows serving",
                "services",
                hint=did_you_mean(service, known),
            )
        if any(other.name == name for other in found):
            one.problem(f"the identity {name!r} stands twice", "name")
        if digest and any(other.digest == digest for other in found):
            one.problem("another identity has the same token", "token", hint="Give each its own")
        found.append(Identity(name=name, digest=digest, services=services, expires=_expiry(one)))
    if not found:
        section.problem("identities is missing or empty", hint="Name at least one with its token")
    return tuple(found)


def _digest(section: Section, env: Mapping[str, str]) -> bytes:
    """The token's digest; the file may hold nothing but the name of its variable."""
    text = section.text("token", required=True)
    reference = ENV_REFERENCE.fullmatch(text)
    if reference is None:
        if text:
            section.problem("a token stands in the environment", "token", hint='Write token: "${NAME}"')
        return b""
    token = env.get(reference[1], "")
    problem = _token_problem(token)
    if problem:
        section.problem(f"{reference[1]} {problem}", "token", hint=f"export {reference[1]}=...")
        return b""
    remember_secret(token)
    return token_digest(token)


def _token_problem(token: str) -> str:
    if not token:
        return "is not set"
    return "" if len(token) >= SHORTEST_TOKEN else f"is shorter than {SHORTEST_TOKEN} characters"


def _expiry(section: Section) -> dt.datetime | None:
    text = section.text("expires")
    if not text:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
        return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # OverflowError: an offset leads out of the years 1 to 9999
        section.problem(f"{text!r} is no time", "expires", hint="Write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ")
        return None


def _limits(section: Section) -> Limits:
    part = section.section("limits")
    if part is None:
        return Limits()
    part.allow([one.name for one in fields(Limits)])
    whole = {
        key: value
        for key in ("rows", "result_bytes", "concurrent", "statement_bytes", "threads")
        if (value := part.whole(key, least=1)) is not None
    }
    seconds = part.number("seconds", above=0.0)
    memory = part.text("memory")
    if memory and not re.fullmatch(r"\d+(\.\d+)? ?([KMGT]i?B)", memory):
        part.problem(f"{memory!r} is no amount of memory", "memory", hint="Write 1GB or 512MiB")
        memory = ""
    default = Limits()
    return Limits(
        rows=whole.get("rows", default.rows),
        result_bytes=whole.get("result_bytes", default.result_bytes),
        seconds=default.seconds if seconds is None else seconds,
        concurrent=whole.get("concurrent", default.concurrent),
        statement_bytes=whole.get("statement_bytes", default.statement_bytes),
        memory=memory or default.memory,
        threads=whole.get("threads", default.threads),
    )
