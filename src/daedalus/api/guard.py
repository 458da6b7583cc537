"""What stands before every request: the host it names, where a browser got it from, its token, its id, its log line."""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daedalus.errors import DefinitionError
from daedalus.platform.faults import REFUSED, Fault, FaultData
from daedalus.secrets import remember_secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("daedalus.api")
_SHORTEST_TOKEN = 16
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may ask.

    Attributes:
        token: what callers of `/rpc` must show; empty asks for none.
        hosts: the names that requests may be addressed to; empty allows any.
    """

    token: str = ""
    hosts: frozenset[str] = frozenset()


def access_for(
    host: str, token: str, *, where: str, token_variable: str, allowed_hosts: Iterable[str] = ()
) -> Access:
    """Who may ask a server that listens on `host`.

    Args:
        host: where it listens.
        token: what callers must show; empty asks for none.
        where: the server, as errors name it.
        token_variable: where the token is read from.
        allowed_hosts: further names that requests may be addressed to.

    Raises:
        DefinitionError: it can be reached from elsewhere and has no token, or a short one.
    """
    if not is_loopback(host) and len(token) < _SHORTEST_TOKEN:
        raise DefinitionError(
            f"{host} can be reached from other machines, so a token of {_SHORTEST_TOKEN} or more characters "
            "is required",
            where=where,
            hint=f"Put one into {token_variable}, or listen on 127.0.0.1",
        )
    remember_secret(token)
    names = {name.lower() for name in allowed_hosts}
    if is_loopback(host):
        names |= {*_LOOPBACK_NAMES, host.lower()}
    return Access(token=token, hosts=frozenset(names))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a Host header, without port and brackets; empty when there is none.

    >>> host_name("[::1]:8000"), host_name("LocalHost:8000"), host_name("a b")
    ('::1', 'localhost', '')
    """
    try:
        return urlsplit(f"//{header}").hostname or "" if not re.search(r"[\s@/\\]", header) else ""
    except ValueError:
        return ""


class Guard:
    """Refuses what must not reach the application, names and logs what does.

    A page in a browser of this machine can address a loopback server, by a name of its own that resolves here
    (DNS rebinding) or across origins: neither the Host nor the Origin it sends is one of ours.
    """

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["methods"] = []
        status = 0
        started = time.perf_counter()

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        refusal = self._refusal(scope["path"], headers)
        try:
            if refusal is not None:
                await _refuse(*refusal, request_id, told)
            else:
                await self._app(scope, receive, told)
        finally:
            if scope["path"] not in _OPEN_PATHS or status >= 400:
                LOG.info(
                    "request",
                    extra={
                        "fields": {
                            "request_id": request_id,
                            "client": (scope.get("client") or ("",))[0],
                            "http": f"{scope['method']} {scope['path'][:200]}",
                            "status": status,
                            "methods": state["methods"],
                            "ms": round((time.perf_counter() - started) * 1000, 2),
                        }
                    },
                )

    def _refusal(self, path: str, headers: dict[str, str]) -> tuple[int, str, str] | None:
        """Status, sentence and hint; None lets the request pass."""
        host = host_name(headers.get("host", ""))
        if self._access.hosts and host not in self._access.hosts:
            return 403, "this server does not go by that name", "Allow it with --allowed-host"
        origin = headers.get("origin")
        if origin is not None and host_name(origin.partition("://")[2]) != host:
            return 403, "requests of other origins' pages are refused", ""
        if path in _OPEN_PATHS or not self._access.token:
            return None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(shown.strip().encode(), self._access.token.encode())
        if scheme.lower() != "bearer" or not right:
            return 401, "a valid bearer token is required", "Send Authorization: Bearer TOKEN"
        return None


async def _refuse(status: int, what: str, hint: str, request_id: str, send: Send) -> None:
    body = refusal_body(what, hint, request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def refusal_body(what: str, hint: str, request_id: str) -> bytes:
    """A refusal as a JSON-RPC error, for clients that read nothing else."""
    fault = Fault(
        code=REFUSED, message=what, data=FaultData(kind="Refused", hint=hint, request_id=request_id)
    )
    answer: dict[str, Any] = {"jsonrpc": "2.0", "error": fault.model_dump(), "id": None}
    return json.dumps(answer).encode()
