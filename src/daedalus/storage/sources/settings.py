"""Connection settings of a source, resolved from the environment when they are used and never kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daedalus.catalog.sources import SECRET_KEYS
from daedalus.errors import DefinitionError, did_you_mean
from daedalus.secrets import expand_env, remember_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: What object stores fall back on where a view gives nothing: the variables of AWS's own tools.
STORE_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
#: Secret keys that name someone: hiding them everywhere would hide ordinary words.
_NAMES = {"user", "username", "account", "account_id"}


def resolve_settings(settings: Mapping[str, str], *, where: str, known: Collection[str]) -> dict[str, str]:
    """The settings with their `${ENV}` references resolved; `secrets.mask` hides the secret ones from here on.

    Raises:
        DefinitionError: names a variable that is not set, or a setting that the backend does not have.
    """
    found: dict[str, str] = {}
    for key, text in settings.items():
        if key not in known:
            raise DefinitionError(
                f"{key} is no setting of this backend", where=where, hint=did_you_mean(key, known)
            )
        found[key] = expand_env(text, where=f"{where}.{key}")
        if key in SECRET_KEYS and key not in _NAMES:
            remember_secret(found[key])
    return found


def first_of(
    settings: Mapping[str, str], *keys: str, environ: tuple[str, ...] = (), default: str = ""
) -> str:
    """The first setting that is there, else the first variable that is set; a variable's value is not shown."""
    for key in keys:
        if settings.get(key):
            return settings[key]
    for name in environ:
        if os.environ.get(name):
            return os.environ[name]
    return default
