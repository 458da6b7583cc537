"""JSON-RPC 2.0: from a request's bytes to the answer's, whatever the bytes are.

The protocol alone: what a method does is the caller's `run`. Our own, because the libraries that were tried
answer a batch with one bad member as a whole, or know no positional parameters, or answer notifications.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.platform.faults import INVALID_REQUEST, PARSE_ERROR, Fault, FaultData

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A well-formed request.

    Attributes:
        params: by name, by position, or None.
        id: what the answer repeats.
        is_notification: whether nobody waits for an answer.
    """

    method: str
    params: dict[str, Any] | list[Any] | None
    id: str | int | float | None
    is_notification: bool


class _BadRequest(Exception):
    def __init__(self, what: str, id: str | int | float | None = None) -> None:
        super().__init__(what)
        self.id = id


async def answer(
    body: bytes, run: Callable[[Call], Awaitable[Any | Fault]], *, most_calls: int, request_id: str = ""
) -> bytes | None:
    """The answer to a request or a batch; None when there is nothing to say.

    Args:
        body: as it came.
        run: does one call. Calls of a batch are done one after the other.
        most_calls: the largest batch.
        request_id: goes into the data of the errors made here.
    """

    def refuse(code: int, what: str, id: str | int | float | None = None) -> dict[str, Any]:
        data = FaultData(kind=_KINDS[code], request_id=request_id)
        return _error(Fault(code=code, message=what, data=data), id)

    async def one(request: Any) -> dict[str, Any] | None:
        try:
            call = _call(request)
        except _BadRequest as bad:
            return refuse(INVALID_REQUEST, f"invalid request: {bad}", bad.id)
        result = await run(call)
        if call.is_notification:
            return None
        if isinstance(result, Fault):
            return _error(result, call.id)
        return {"jsonrpc": "2.0", "result": result, "id": call.id}

    try:
        request = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        what = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "no JSON"
        return _encoded(refuse(PARSE_ERROR, f"parse error: {what}"))
    if not isinstance(request, list):
        alone = await one(request)
        return None if alone is None else _encoded(alone)
    if not request or len(request) > most_calls:
        what = f"a batch has 1 to {most_calls} requests, this one {len(request)}"
        return _encoded(refuse(INVALID_REQUEST, f"invalid request: {what}"))
    answers = [found for found in [await one(item) for item in request] if found is not None]
    return _encoded(answers) if answers else None


_KINDS = {PARSE_ERROR: "ParseError", INVALID_REQUEST: "InvalidRequest"}


def _call(request: Any) -> Call:
    if not isinstance(request, dict):
        raise _BadRequest("it is no object")
    id = request.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int | float | None):
        raise _BadRequest("id must be a text, a number or null")
    if isinstance(id, float) and not math.isfinite(id):
        raise _BadRequest("id is too large")
    if request.get("jsonrpc") != "2.0":
        raise _BadRequest('jsonrpc must be "2.0"', id)
    method, params = request.get("method"), request.get("params")
    if not isinstance(method, str):
        raise _BadRequest("method must be a text", id)
    if not isinstance(params, dict | list) and ("params" in request):
        raise _BadRequest("params must be an object or an array", id)
    return Call(method=method, params=params, id=id, is_notification="id" not in request)


def _error(fault: Fault, id: str | int | float | None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": fault.model_dump(), "id": id}


def _encoded(answer: Any) -> bytes:
    # ASCII: half of a surrogate pair, sent as an id, comes back as it was.
    return json.dumps(answer, allow_nan=False, separators=(",", ":")).encode("ascii")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
