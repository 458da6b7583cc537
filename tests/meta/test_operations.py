"""Every surface that offers an operation gives the same result and the same errors, and its page names it."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from mcp import Client

from daedalus.api.app import create_app
from daedalus.cli.main import main
from daedalus.errors import DaedalusError
from daedalus.mcp.server import create_server
from daedalus.metadata.store import RunStatus
from daedalus.platform.live import LiveProject
from daedalus.platform.operation import Operation, Surface
from daedalus.platform.operations import OPERATIONS, operations
from daedalus.platform.records import metadata_store
from meta.test_commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"
OFFERED = [(surface, one) for surface in Surface for one in operations(surface)]
SERVICE = "product_ranking"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    """A project with a recorded run that came to its end."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("operations")
        patch.setenv("DAEDALUS_CONFIG", str(folder / "none.toml"))
        patch.chdir(folder)
        assert main(["init", "shop"]) == 0
        patch.chdir(folder / "shop")
        live = LiveProject()
        store = metadata_store(live.current())
        run_id = store.begin("train", service=SERVICE)
        store.finish(run_id, RunStatus.SUCCEEDED)
        yield live


# ------------------------------------------------------------------ the surfaces


def over_rpc(operation: Operation, project: LiveProject, params: dict[str, Any]) -> Any:
    async def ask() -> Any:
        transport = httpx.ASGITransport(create_app(project))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"jsonrpc": "2.0", "method": operation.name, "params": params, "id": 1}
            return (await client.post("/rpc", json=body)).json()

    found = asyncio.run(ask())
    if "error" in found:
        return found["error"]["message"], found["error"]["data"]["kind"], found["error"]["data"]["where"]
    return found["result"]


def over_mcp(operation: Operation, project: LiveProject, params: dict[str, Any]) -> Any:
    async def ask() -> Any:
        async with Client(create_server(project)) as client:
            return await client.call_tool(operation.tool_name, params)

    found = asyncio.run(ask())
    if found.is_error:
        told = json.loads(found.content[0].text)
        return told["message"], told["data"]["kind"], told["data"]["where"]
    plain = found.structured_content
    return plain["result"] if set(plain) == {"result"} else plain


#: How the command line says a parameter; what is not here is an argument.
OPTIONS = {"column", "downstream", "limit", "tail", "kind"}


def over_cli(
    operation: Operation, project: LiveProject, params: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> Any:
    words = operation.command.split()
    for name, value in params.items():
        options = [f"--{name}", str(value)]
        words += options if name in OPTIONS or operation.command == "lineage" else [str(value)]
    if operation.name == "pipeline.compile":
        words.append("--no-write")
    capsys.readouterr()
    code = main([*words, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    if code:
        return found["error"]["what"], found["error"]["error"], found["error"]["where"]
    # A list has a name on the command line.
    return (
        next(iter(found.values()))
        if isinstance(found, dict) and set(found) <= {"views", "services"}
        else found
    )


CALLS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "catalog.list_views": ({}, None),
    "catalog.show_view": ({"name": "visits"}, {"name": "../visits"}),
    "service.list": ({}, None),
    "service.show": ({"name": SERVICE}, {"name": "product"}),
    "pipeline.compile": ({"service": SERVICE}, {"service": "../x"}),
    "assets.lineage": ({"service": SERVICE, "column": "price"}, {"column": "nope"}),
    "runs.get": ({"run_id": "latest"}, {"run_id": "nope"}),
    "runs.list": ({"limit": 1}, None),
    "runs.logs": ({"run_id": "latest", "tail": 1}, {"run_id": "../x"}),
    "runs.cancel": ({"run_id": "latest"}, {"run_id": "nope"}),
    # What it starts is tested with a real server; here, that all refuse the same.
    "runs.materialize_partition": ({}, {"service": SERVICE, "partition": "2020-01-01"}),
}


def test_every_operation_is_called_here():
    assert set(CALLS) == set(OPERATIONS)
    assert {surface for surface, _ in OFFERED} >= {Surface.CLI, Surface.RPC, Surface.MCP}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_surface_gives_the_same(name, project, capsys):
    operation = OPERATIONS[name]
    right, wrong = CALLS[name]
    surfaces = {Surface.RPC: over_rpc, Surface.MCP: over_mcp}
    for params in (right, wrong):
        if not params:
            continue
        try:
            expected = operation.call(project.current(), params)
        except DaedalusError as error:
            assert params is wrong
            expected = error.what, type(error).__name__, error.where
        for surface in operation.surfaces:
            if surface is Surface.CLI:
                found = over_cli(operation, project, params, capsys)
                if params is wrong:  # on the command line it is an argument, not a parameter
                    assert found[0] == expected[0]
                    continue
            elif surface in surfaces:
                found = surfaces[surface](operation, project, params)
            else:
                continue
            assert found == expected, surface


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_described(name):
    operation = OPERATIONS[name]
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
    assert operation.summary.endswith(".") or ":" in operation.summary or ";" in operation.summary
    assert operation.result_schema
    for parameter, schema in operation.params_schema.get("properties", {}).items():
        assert schema.get("description"), parameter
    assert operation.params_schema["additionalProperties"] is False
    assert (Surface.CLI in operation.surfaces) == (operation.command in COMMANDS)


@pytest.mark.parametrize(
    ("surface", "name"), [(surface, one.name) for surface, one in OFFERED if surface is not Surface.CLI]
)
def test_every_operation_is_documented_where_it_is_offered(surface, name):
    page, said = {
        Surface.RPC: ("api.md", name),
        Surface.MCP: ("mcp.md", OPERATIONS[name].tool_name),
    }[surface]
    assert f"`{said}`" in (DOCS / page).read_text(encoding="utf-8")
