"""The MCP server over a project: every operation a tool, every definition a resource."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from daedalus.errors import DaedalusError
from daedalus.mcp import resources
from daedalus.mcp.tools import refusal_of, result_of, tool_of
from daedalus.platform.faults import METHOD_NOT_FOUND, Fault, FaultData, fault_of
from daedalus.platform.operation import Surface
from daedalus.platform.operations import operations

if TYPE_CHECKING:
    from collections.abc import Callable

    import mcp_types as types
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from mcp.shared.exceptions import MCPError

    from daedalus.platform.live import LiveProject

LOG = logging.getLogger("daedalus.mcp")
_THREADS = 4
_INSTRUCTIONS = (
    "A project of feature definitions: views describe sources, services are ordered columns of a training set, "
    "runs make a service's set for one day. runs_materialize_partition returns at once; runs_get says how the run "
    "stands. The definitions themselves are resources."
)


def create_server(project: LiveProject) -> Server[Any]:
    """The server; nothing is started.

    Errors of an operation are results with `is_error`, holding `{code, message, data}`; unknown tools and resources
    are errors of the protocol with the same three.
    """
    import anyio
    import anyio.to_thread
    import mcp_types as types
    from mcp.server.lowlevel import Server

    from daedalus import __version__

    tools = {one.tool_name: one for one in operations(Surface.MCP)}
    described = [tool_of(one) for one in tools.values()]
    threads: list[anyio.CapacityLimiter] = []

    async def in_thread(work: Callable[[], Any]) -> Any:
        # A limiter belongs to the event loop that it is made in.
        if not threads:
            threads.append(anyio.CapacityLimiter(_THREADS))
        return await anyio.to_thread.run_sync(work, limiter=threads[0])

    async def list_tools(
        _context: ServerRequestContext[Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=described)

    async def call_tool(
        _context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        operation = tools.get(params.name)
        if operation is None:
            unknown = Fault(
                code=METHOD_NOT_FOUND,
                message="tool not found",
                data=FaultData(kind="MethodNotFound", hint="tools/list lists the tools"),
            )
            raise _error(unknown)
        try:
            value = await in_thread(lambda: operation.call(project.current(), params.arguments))
        except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a client
            return refusal_of(_fault(error))
        return result_of(operation, value)

    async def list_resources(
        _context: ServerRequestContext[Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        try:
            found = await in_thread(lambda: resources.list_resources(project.current()))
        except Exception as error:  # noqa: BLE001 - as above
            raise _error(_fault(error)) from None
        return types.ListResourcesResult(resources=found)

    async def list_templates(
        _context: ServerRequestContext[Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=resources.list_templates())

    async def read_resource(
        _context: ServerRequestContext[Any], params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        try:
            found = await in_thread(lambda: resources.read_resource(project.current(), str(params.uri)))
        except Exception as error:  # noqa: BLE001 - as above
            raise _error(_fault(error)) from None
        return types.ReadResourceResult(contents=[found])

    return Server(
        "daedalus",
        version=__version__,
        title="Daedalus",
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )


def _fault(error: Exception) -> Fault:
    if not isinstance(error, DaedalusError):
        LOG.error("unexpected error", exc_info=error)
    return fault_of(error)


def _error(fault: Fault) -> MCPError:
    from mcp.shared.exceptions import MCPError

    return MCPError(fault.code, fault.message, fault.data.model_dump())
