"""The web application: `POST /rpc`, `GET /healthz`, `GET /readyz`, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.api.discovery import DISCOVER, openrpc_document
from daedalus.api.guard import LOG, Access, Guard, refusal_body
from daedalus.api.jsonrpc import answer
from daedalus.errors import DaedalusError, ParameterError
from daedalus.platform.faults import METHOD_NOT_FOUND, Fault, FaultData, fault_of
from daedalus.platform.operation import Surface
from daedalus.platform.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi import FastAPI, Request, Response
    from starlette.types import ASGIApp

    from daedalus.api.jsonrpc import Call
    from daedalus.platform.live import LiveProject


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much at once.

    Attributes:
        body_bytes: the largest request.
        batch_calls: the largest batch.
        body_seconds: how long a request's body may take to arrive.
        readers: operations at a time that only read. They share one interpreter lock: with more of them each takes
            longer, and so does everything else.
        changers: operations at a time that start or stop a run, which may take seconds to end.
    """

    body_bytes: int = 1 << 20
    batch_calls: int = 50
    body_seconds: float = 20.0
    readers: int = 1
    changers: int = 4


class _Refused(Exception):
    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class _Service:
    """What answers calls."""

    def __init__(self, project: LiveProject, limits: Limits) -> None:
        self._project = project
        self._readers = ThreadPoolExecutor(limits.readers, thread_name_prefix="daedalus-reads")
        self._changers = ThreadPoolExecutor(limits.changers, thread_name_prefix="daedalus-changes")
        self._document: dict[str, Any] = {}

    async def in_thread(self, work: Callable[[], Any], *, changes: bool = False) -> Any:
        """Do blocking work outside the event loop."""
        threads = self._changers if changes else self._readers
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    async def close(self) -> None:
        """End the runs that this process started."""
        from daedalus.platform.run_queue import close_queues

        await asyncio.to_thread(close_queues)
        for threads in (self._readers, self._changers):
            threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, call: Call, request: Request) -> Any | Fault:
        """Do a call; what goes wrong is a fault."""
        request_id = request.state.request_id
        request.state.methods.append(call.method[:100])
        if call.method == DISCOVER:
            if call.params:
                error = ParameterError("it takes no parameters", where="params")
                return fault_of(error, request_id=request_id)
            return self._document or await self.in_thread(openrpc_document)
        operation = OPERATIONS.get(call.method)
        if operation is None or Surface.RPC not in operation.surfaces:
            data = FaultData(
                kind="MethodNotFound", hint=f"{DISCOVER} lists the methods", request_id=request_id
            )
            return Fault(code=METHOD_NOT_FOUND, message="method not found", data=data)
        try:
            return await self.in_thread(
                lambda: operation.call(self._project.current(), call.params), changes=not operation.read_only
            )
        except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a client
            if not isinstance(error, DaedalusError):
                LOG.exception("unexpected error", extra={"fields": {"request_id": request_id}})
            return fault_of(error, request_id=request_id)

    async def warm_up(self) -> None:
        """Read the definitions and import what calls need, so that the first ones do not keep the others waiting."""

        def look() -> None:
            with contextlib.suppress(DaedalusError):
                registry = self._project.current()
                for name in registry.facade().service_names[:1]:
                    for method in ("pipeline.compile", "assets.lineage"):
                        OPERATIONS[method].call(registry, {"service": name})
            with contextlib.suppress(DaedalusError):
                OPERATIONS["runs.list"].call(self._project.current(), {"limit": 1})
            self._document = openrpc_document()

        await self.in_thread(look)

    async def ready(self) -> str:
        """Empty when definitions, configuration and run records can be read, else the kind of what is wrong."""

        def look() -> str:
            try:
                OPERATIONS["service.list"].call(self._project.current(), {})
                OPERATIONS["runs.list"].call(self._project.current(), {"limit": 1})
            except Exception as error:  # noqa: BLE001 - whatever it is, the server is not ready
                return type(error).__name__
            return ""

        return str(await self.in_thread(look))


async def _body(request: Request, limits: Limits) -> bytes:
    """The body; refused as soon as it is too large or too slow."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"application/json", "application/json-rpc", "application/jsonrequest"}:
        # A page may send other types across origins without asking first.
        raise _Refused(415, "the content type must be application/json")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise _Refused(415, "encoded bodies are not read")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise _Refused(413, f"a request has at most {limits.body_bytes} bytes")
                parts.append(part)
    except TimeoutError:
        raise _Refused(408, f"the body did not arrive in {limits.body_seconds:g} s") from None
    return b"".join(parts)


def create_app(
    project: LiveProject, *, access: Access | None = None, limits: Limits | None = None
) -> ASGIApp:
    """The application over a project; it starts no run queue, and closes the one there is when it ends."""
    from fastapi import FastAPI, Response
    from fastapi.responses import JSONResponse

    bounds = limits or Limits()
    service = _Service(project, bounds)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.warm_up()
        yield
        await service.close()

    app = FastAPI(title="Daedalus", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.router.redirect_slashes = False

    async def rpc(request: Request) -> Response:
        try:
            body = await _body(request, bounds)
        except _Refused as refused:
            return Response(
                refusal_body(str(refused), "", request.state.request_id),
                status_code=refused.status,
                media_type="application/json",
                headers={"connection": "close"},
            )
        said = await answer(
            body,
            lambda call: service.run(call, request),
            most_calls=bounds.batch_calls,
            request_id=request.state.request_id,
        )
        if said is None:
            return Response(status_code=204)
        return Response(said, media_type="application/json")

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        wrong = await service.ready()
        if wrong:
            return JSONResponse({"status": "not ready", "kind": wrong}, status_code=503)
        return JSONResponse({"status": "ready"})

    # Plain routes: FastAPI would read a body before its limits are checked.
    app.add_route("/rpc", rpc, methods=["POST"])
    app.add_route("/healthz", healthz, methods=["GET"])
    app.add_route("/readyz", readyz, methods=["GET"])
    return Guard(app, access=access or Access())
