"""Connecting to Redis or Valkey: URLs, time limits, retries, and its errors as ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.secrets import expand_env, looks_like_secret, mask, remember_secret

if TYPE_CHECKING:
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
    try:
        with store_errors(config):
            if cluster:
                return redis.RedisCluster.from_url(url, retry=Retry(backoff, config.retries), **options), True
            # A server that restarts answers BUSYLOADING first; a replica that is promoted, READONLY.
            also = [redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, redis.ReadOnlyError]
            retry = Retry(backoff, config.retries, supported_errors=tuple(also))
            client = redis.Redis.from_url(url, retry=retry, **options)
            pool = client.connection_pool
            # Says now, and not at the first read, what is wrong with an option.
            pool.connection_class(**pool.connection_kwargs)
            return client, False
    except (TypeError, ValueError, OSError) as error:
        raise DefinitionError(
            f"the URL or an option in it is wrong: {mask(str(error)).rstrip('. ')}",
            where=WHERE,
            hint="See docs/online.md; options are those of the redis package's connections",
        ) from None


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


class store_errors:
    """The client's errors as ours, without secrets; a class, since reads are timed in microseconds."""

    __slots__ = ("_config",)

    def __init__(self, config: OnlineStoreConfig) -> None:
        self._config = config

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            translated = _translated(error, f"online store {shown_url(self._config)}")
            if translated is not None:
                raise translated from None


def _translated(error: BaseException, where: str) -> ExecutionError | None:
    """What the client's error is to a user; None for an error that is not the client's."""
    import redis

    text = mask(str(error)).rstrip(". ")
    if isinstance(error, redis.AuthenticationError):
        return ExecutionError(
            f"it refuses the user or password: {text}", where=where, hint="Check the URL's ${ENV}"
        )
    if isinstance(error, redis.exceptions.RedisClusterException):
        return ExecutionError(
            f"it is no cluster that answers: {text}", where=where, hint="Use redis:// for a single server"
        )
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return ExecutionError(
            f"it does not answer: {text}",
            where=where,
            hint="Start it, or mend online_store.url; then run again, nothing is lost",
        )
    if isinstance(error, redis.ResponseError) and text.startswith("FORMAT"):
        return ExecutionError(
            f"what is stored under {text.split()[1]} is no record of this version",
            where=where,
            hint="Use another online_store.namespace, or upgrade Daedalus",
        )
    if isinstance(error, redis.RedisError):
        return ExecutionError(f"it refuses: {text}", where=where)
    return None
