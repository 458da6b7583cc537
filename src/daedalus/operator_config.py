"""The operator's own defaults: a small TOML file with six keys, never definitions and never secrets."""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, did_you_mean
from daedalus.secrets import looks_like_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULTS: Mapping[str, str] = {
    "dagster_graphql_url": "http://localhost:3000/graphql",
    "api_url": "http://localhost:8000",
    "feature_views_dir": "feature_views",
    "feature_services_dir": "feature_services",
    "default_service": "dssm_ranking",
    "output_root": "data/training_output",
}


def config_path() -> Path:
    """The file's place: `$DAEDALUS_CONFIG`, else `~/.daedalus/config.toml`."""
    given = os.environ.get("DAEDALUS_CONFIG")
    return Path(given).expanduser() if given else Path.home() / ".daedalus" / "config.toml"


def read_config() -> dict[str, str]:
    """What the file sets; empty when there is no file."""
    path = config_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise DefinitionError(f"the file cannot be read: {exc}", where=str(path)) from exc
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise DefinitionError(f"not valid TOML: {exc}", where=str(path)) from exc
    problems = [problem for key, value in data.items() for problem in _problems(key, value, where=str(path))]
    if problems:
        raise DefinitionError.gather(problems)
    return data


def effective_config() -> dict[str, str]:
    """Every key, from the file or by default."""
    return dict(DEFAULTS) | read_config()


def write_defaults(*, force: bool = False) -> Path:
    """Write the file with every default; an existing one only with `force`."""
    path = config_path()
    if path.exists() and not force:
        raise DefinitionError("the file exists", where=str(path), hint="Use --force to overwrite it.")
    _write(path, DEFAULTS)
    return path


def set_key(key: str, value: str) -> Path:
    """Set one key, keep the others; unknown keys, empty values and secrets are refused."""
    path = config_path()
    problems = _problems(key, value, where="")
    if problems:
        raise DefinitionError.gather(problems)
    _write(path, read_config() | {key: value})
    return path


def _problems(key: str, value: object, *, where: str) -> list[DefinitionError]:
    if key not in DEFAULTS:
        return [DefinitionError(f"unknown key {key!r}", where=where, hint=did_you_mean(key, DEFAULTS))]
    if not isinstance(value, str) or not value.strip():
        return [DefinitionError(f"the value of {key!r} must be a text that is not empty", where=where)]
    if looks_like_secret(value):
        return [
            DefinitionError(
                f"the value of {key!r} looks like a secret",
                where=where,
                hint="Keep secrets in the environment; definitions refer to them as ${NAME}.",
            )
        ]
    return []


def _write(path: Path, values: Mapping[str, str]) -> None:
    import tomli_w

    text = tomli_w.dumps({key: values[key] for key in DEFAULTS if key in values})
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # A link stays a link: the file it names is replaced.
        Path(temporary).replace(path.resolve())
    except OSError as exc:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise DefinitionError(f"the file cannot be written: {exc}", where=str(path)) from exc
