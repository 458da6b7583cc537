"""Secrets: `${ENV}` references, what looks like a secret, and how text is masked before anyone sees it.

Configuration and definitions hold the reference, never the value; the value is read from the environment at
the moment it is used.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from daedalus.errors import DefinitionError

MASK = "***"

#: `${NAME}`. A project constant is `${base.name}`: its dot cannot be part of an environment name.
ENV_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)|secret|token|credential|bearer|api_?key|access_?key|private_?key|auth_?key",
    re.IGNORECASE,
)
#: What names a secret in a connection string, an option or a URL's query.
_KEY = (
    r"(?<![A-Za-z0-9])(?:[a-z0-9]+[_-])*(?:(?:ssl|pg|db)?password|passwd|passphrase|pwd|secret"
    r"|secret_?(?:access_?)?key|token|access_?key|api_?key|private_?key|signature|sig|credential)"
)
#: What follows a colon in a URL is a password up to the @, slashes and all, unless it is a port and the @ stands in
#: the query (`?key=...`) or in other text (quotes, commas).
_NO_PORT = r"(?!\d+(?:/[^\s@?]*)?\?\w+=)(?!\d+[/?][^\s@]*[\"'<>,;])"
#: Unmistakable wherever they stand, in SQL, too.
_CREDENTIALS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@'\"]*:" + _NO_PORT + r"[^\s@]+@", re.IGNORECASE),
    re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"\b(ghp|gho|ghs|github_pat|glpat|xox[abprs]|sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
)
_SECRET_VALUES = (*_CREDENTIALS, re.compile(_KEY + r"\s*=\s*[^&;\s]", re.IGNORECASE))
#: The same within SQL, where `token = 'x'` compares a column: in a text literal (a pattern for LIKE is none), or as
#: an option of a statement.
_SQL_LITERAL = re.compile(r"'((?:[^']|'')*)'")
_IN_LITERAL = re.compile(_KEY + r"\s*=\s*'?[^'&;\s%]", re.IGNORECASE)
_SQL_OPTION = re.compile(
    r"\b(?:password|secret|secret_key|key_id|private_key|session_token)\s*(?:=>|:=)?\s+'[^']+'", re.IGNORECASE
)
#: Names and paths are words between separators; keys and tokens are one long run of letters and digits.
_OPAQUE = re.compile(r"[A-Za-z0-9+=]{24,}")
#: A secret key of AWS: 40 characters, slashes among them. Paths have a dot, a dash or a blank somewhere.
_AWS_SECRET = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[A-Za-z0-9+/]{39}[A-Za-z0-9+/=]")
#: Values that a source resolved in this process; `mask` replaces them wherever they turn up.
_resolved: set[str] = set()
_SHORTEST = 4
#: Words of our own, which records and messages are made of: hidden, they would tell nothing, and be needed.
_OWN_WORDS = frozenset(
    {"parquet", "postgres", "postgresql", "ducklake", "duckdb", "sqlite", "snowflake", "redis", "valkey"}
    | {"daedalus", "skeleton", "enrich", "enriched", "training", "materialize", "public", "main"}
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)" + _NO_PORT + r"([^\s@]+)(@)")
_NAMED_VALUE = re.compile(f"({_KEY}\\s*=\\s*)('[^']*'|\"[^\"]*\"|[^&;\\s]+)", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name usually holds a secret.

    >>> is_secret_name("s3_secret_access_key"), is_secret_name("memory_limit")
    (True, False)
    """
    return _SECRET_NAME.search(name) is not None


def looks_like_secret(value: str) -> bool:
    """Whether the text looks like a credential; a `${ENV}` reference does not.

    >>> looks_like_secret("postgresql://me:hunter2@host/db"), looks_like_secret("postgresql://me:${PG}@host/db")
    (True, False)
    """
    bare = ENV_REFERENCE.sub("", value)
    if any(pattern.search(bare) for pattern in _SECRET_VALUES) or _AWS_SECRET.fullmatch(bare.strip()):
        return True
    runs = _OPAQUE.findall(bare)
    return any(any(c.isdigit() for c in run) and any(c.isalpha() for c in run) for run in runs)


def sql_holds_secret(sql: str) -> bool:
    """Whether SQL spells a credential out: a connection string, an option, a key, a token.

    >>> sql_holds_secret("SELECT * FROM t WHERE token = 'x'")
    False
    >>> sql_holds_secret("SELECT * FROM dblink('host=h password=hunter2', 'SELECT 1')")
    True
    """
    bare = ENV_REFERENCE.sub("", sql)
    literals = (literal[1].replace("''", "'") for literal in _SQL_LITERAL.finditer(bare))
    return any(pattern.search(bare) for pattern in (*_CREDENTIALS, _SQL_OPTION)) or any(
        map(_IN_LITERAL.search, literals)
    )


def remember_secret(value: str) -> None:
    """Have `mask` replace this value wherever it turns up in this process.

    Very short ones would hide everything, and some are words that everything is made of, such as `postgres`.

    >>> remember_secret("hunter-22")
    >>> mask("refused: hunter-22")
    'refused: ***'
    """
    if len(value) >= _SHORTEST and value.lower() not in _OWN_WORDS:
        _resolved.update((value, quote(value, safe="")))


def mask(text: str) -> str:
    """The text with passwords in URLs and `password=...` pairs replaced; `${ENV}` references stay readable.

    >>> mask("postgresql://me:hunter2@host/db password=x")
    'postgresql://me:***@host/db password=***'
    """
    masked = text
    for value in sorted(_resolved, key=len, reverse=True):
        masked = masked.replace(value, MASK)
    return mask_written(masked)


def mask_written(text: str) -> str:
    """The same for what stands in a file, where no resolved value can be: equal texts give equal texts, always."""
    masked = _URL_PASSWORD.sub(
        lambda m: m[0] if ENV_REFERENCE.fullmatch(m[2]) else f"{m[1]}{MASK}{m[3]}", text
    )
    return _NAMED_VALUE.sub(lambda m: m[0] if ENV_REFERENCE.fullmatch(m[2]) else f"{m[1]}{MASK}", masked)


def expand_env(text: str, *, where: str) -> str:
    """The text with every `${ENV}` replaced; DefinitionError names a variable that is not set.

    >>> expand_env("${NO_SUCH_NAME}/x", where="source.path")
    Traceback (most recent call last):
    daedalus.errors.DefinitionError: source.path: environment variable NO_SUCH_NAME is not set. export NO_SUCH_NAME=...
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise DefinitionError(
                f"environment variable {name} is not set", where=where, hint=f"export {name}=..."
            )
        return os.environ[name]

    return ENV_REFERENCE.sub(value, text)
