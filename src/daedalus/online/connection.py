"""Connecting to Redis or Valkey: URLs, time limits, retries, and its errors as ours."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.secrets import expand_env, looks_like_secret, mask, remember_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daedalus.pipelines.settings import OnlineStoreConfig

_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
_CLUSTER = "+cluster"
WHERE = "online_store.url"


def connect(config: OnlineStoreConfig) -> tuple[Any, bool]:
    """A client, and whether it is a cluster's; nothing is sent yet, but by a cluster's.

    Raises:
        DefinitionError: there is no URL, it spells out a secret, or its scheme is unknown.
    """
    url, cluster = _resolved(config)
    import redis
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {
        "socket_timeout": config.timeout_seconds,
        "socket_connect_timeout": config.timeout_seconds,
        "health_check_interval": 30,
        "client_name": "daedalus",
    }
    backoff = ExponentialWithJitterBackoff(base=0.05, cap=1.0)
    with store_errors(config):
        if cluster:
            return redis.RedisCluster.from_url(url, retry=Retry(backoff, config.retries), **options), True
        # A server that restarts answers BUSYLOADING first; a replica that is promoted, READONLY.
        also = [redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, redis.ReadOnlyError]
        return redis.Redis.from_url(
            url, retry=Retry(backoff, config.retries, supported_errors=tuple(also)), **options
        ), False


def _resolved(config: OnlineStoreConfig) -> tuple[str, bool]:
    if not config.url:
        raise DefinitionError(
            "no online store is configured",
            where="config/training/runtime.yaml",
            hint="Write online_store: {url: redis://localhost:6379/0}, secrets as ${ENV}",
        )
    if looks_like_secret(config.url):
        raise DefinitionError(
            "the URL spells out a secret",
            where=WHERE,
            hint="Write ${ENV} in its place and export the variable",
        )
    url = expand_env(config.url, where=WHERE)
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        raise DefinitionError("the URL cannot be read", where=WHERE) from None
    if password:
        remember_secret(password)
    scheme = parts.scheme.lower()
    cluster = scheme.endswith(_CLUSTER)
    plain = scheme.removesuffix(_CLUSTER)
    if plain not in _SCHEMES:
        raise DefinitionError(
            f"unknown scheme {parts.scheme!r}",
            where=WHERE,
            hint="Use redis://, rediss://, redis+cluster://, rediss+cluster:// or unix://",
        )
    plain = plain.replace("valkeys", "rediss").replace("valkey", "redis")
    return f"{plain}{url[len(scheme) :]}", cluster


def shown_url(config: OnlineStoreConfig) -> str:
    """The URL as messages show it."""
    return mask(config.url)


@contextlib.contextmanager
def store_errors(config: OnlineStoreConfig) -> Iterator[None]:
    """The client's errors as ours, without secrets."""
    import redis

    where = f"online store {shown_url(config)}"
    try:
        yield
    except redis.AuthenticationError as error:
        raise ExecutionError(
            f"it refuses the user or password: {mask(str(error))}", where=where, hint="Check the URL's ${ENV}"
        ) from None
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ExecutionError(
            f"it does not answer: {mask(str(error))}",
            where=where,
            hint="Start it, or mend online_store.url; then run again, nothing is lost",
        ) from None
    except redis.ResponseError as error:
        text = mask(str(error))
        if text.startswith("FORMAT"):
            raise ExecutionError(
                f"what is stored under {text.split()[1]} is no record of this version",
                where=where,
                hint="Use another online_store.namespace, or upgrade Daedalus",
            ) from None
        raise ExecutionError(f"it refuses: {text}", where=where) from None
    except redis.RedisError as error:
        raise ExecutionError(f"it failed: {mask(str(error))}", where=where) from None
