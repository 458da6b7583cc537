"""An error as programs get it over a wire: a code, a sentence and typed data. JSON-RPC and MCP share it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from daedalus.errors import (
    BusyError,
    CompileError,
    DaedalusError,
    DefinitionError,
    ExecutionError,
    MissingExtraError,
    ParameterError,
    SourceError,
)
from daedalus.secrets import mask

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = (
    -32700,
    -32600,
    -32601,
    -32602,
    -32603,
)
#: The transport refused the request: no token, wrong host, too large.
REFUSED = -32000

#: Most special first.
CODES: tuple[tuple[type[DaedalusError], int], ...] = (
    (ParameterError, INVALID_PARAMS),
    (DefinitionError, -32001),
    (CompileError, -32002),
    (SourceError, -32004),
    (BusyError, -32006),
    (ExecutionError, -32003),
    (MissingExtraError, -32005),
    (DaedalusError, -32009),
)
_MOST_PROBLEMS = 50


class Problem(BaseModel):
    """One of several things that are wrong."""

    what: str
    where: str = ""
    hint: str = ""


class FaultData(BaseModel):
    """What is known of an error besides its sentence; empty where nothing is."""

    kind: str = Field(description="The error's class, such as DefinitionError.")
    where: str = Field(default="", description="File and path in it, parameter, view, service or column.")
    hint: str = Field(default="", description="What to do about it.")
    day: str = Field(default="", description="The day that failed, YYYY-MM-DD.")
    operator: str = Field(default="", description="The operator that failed.")
    run_id: str = Field(default="", description="The run that is at it already.")
    problems: list[Problem] = Field(default=[], description="The single errors, when there are several.")
    request_id: str = Field(default="", description="Finds the request in the server's log.")


class Fault(BaseModel):
    """An error, ready to be sent."""

    code: int
    message: str
    data: FaultData


def fault_of(error: BaseException, *, request_id: str = "") -> Fault:
    """The error for a client; of one that nobody foresaw, only its class.

    >>> fault_of(ParameterError("unknown view 'x'", where="params.name")).code
    -32602
    """
    if not isinstance(error, DaedalusError):
        data = FaultData(kind=type(error).__name__, request_id=request_id)
        return Fault(code=INTERNAL_ERROR, message="internal error", data=data)
    code = next(code for kind, code in CODES if isinstance(error, kind))
    plain: dict[str, Any] = error.to_dict()
    problems = [
        Problem(what=mask(one["what"]), where=mask(one["where"]), hint=mask(one["hint"]))
        for one in plain.get("problems", [])[:_MOST_PROBLEMS]
    ]
    known = {
        name: mask(str(plain.get(name) or "")) for name in ("where", "hint", "day", "operator", "run_id")
    }
    return Fault(
        code=code,
        message=mask(error.what),
        data=FaultData(kind=plain["error"], problems=problems, request_id=request_id, **known),
    )
