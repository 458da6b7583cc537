"""`daeda mcp` and the official client, over both transports."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from daedalus.cli.main import main
from daedalus.errors import DefinitionError, MissingExtraError
from daedalus.mcp import create_server
from daedalus.platform import PlatformRegistry
from daedalus.platform.faults import FaultData, fault_of
from daedalus.platform.live import LiveProject
from daedalus.platform.operation import Surface
from daedalus.platform.operations import operations
from daedalus.platform.records import show_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mcp")]

TOKEN = "a-token-of-the-tests-0123456789"
TOOLS = {one.tool_name: one for one in operations(Surface.MCP)}
SERVICE = "product_ranking"
DAEDA = [sys.executable, "-m", "daedalus"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """With one run in its past, which the calls below ask for."""
    folder = tmp_path_factory.mktemp("mcp") / "project"
    assert main(["init", str(folder)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DAEDALUS_CONFIG", str(folder / "none.toml"))
        assert main(["pipeline", "train", SERVICE, "--target-date", "2026-01-03"]) == 0
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return os.environ | {"DAEDALUS_CONFIG": str(tmp_path_factory.mktemp("config") / "none.toml")}


@pytest.fixture(autouse=True)
def same_place(project, environment, monkeypatch):
    """The test and the server stand in the same folder: the output root is relative to it."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("DAEDALUS_CONFIG", environment["DAEDALUS_CONFIG"])


@contextmanager
def http_server(project, environment, *, token=""):
    """`daeda mcp` over HTTP; yields its address, and ends it as a service manager does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*DAEDA, "mcp", "--transport", "streamable-http", "--port", str(port)]
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment | {"DAEDALUS_MCP_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as server:
        try:
            wait_until(lambda: listens(port), server)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.terminate()
            out, said = server.communicate(timeout=90)
    assert out == b""
    assert f"listening on http://127.0.0.1:{port}/mcp\n".encode() in said
    assert server.returncode == 0


def listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, server, seconds=180):
    ends = time.monotonic() + seconds
    while not condition():
        assert server.poll() is None, server.stderr.read()
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture(scope="module")
def address(project, environment):
    with http_server(project, environment, token=TOKEN) as url:
        yield url


@asynccontextmanager
async def over_stdio(project, environment, _request):
    parameters = StdioServerParameters(
        command=DAEDA[0], args=[*DAEDA[1:], "mcp"], cwd=project, env=environment
    )
    async with stdio_client(parameters) as (reading, writing), ClientSession(reading, writing) as session:
        yield session


@asynccontextmanager
async def over_http(_project, _environment, request):
    url = request.getfixturevalue("address")
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as client,
        streamable_http_client(url, http_client=client) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        yield session


@pytest.mark.parametrize("connect", [over_http, over_stdio])
def test_every_operation_is_a_tool_with_the_same_result(connect, project, environment, request):
    registry = PlatformRegistry.open(project)

    async def talk():
        async with connect(project, environment, request) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert set(tools) == set(TOOLS)
            for name, operation in TOOLS.items():
                assert tools[name].input_schema == operation.params_schema
                assert tools[name].output_schema["type"] == "object"
                assert tools[name].annotations.read_only_hint == operation.read_only
                assert tools[name].annotations.destructive_hint == operation.destructive
            if connect is over_http:
                await day_is_made(session, "2026-01-04")
            for name, params in CALLS.items():
                await same_result(session, registry, name, params)
            for name, params in WRONG.items():
                await same_refusal(session, registry, name, params)
            await resources_are_read(session, project)

    anyio.run(talk)


CALLS = {
    "catalog_list_views": {},
    "catalog_show_view": {"name": "visits"},
    "service_list": {},
    "service_show": {"name": SERVICE},
    "pipeline_compile": {"service": SERVICE},
    "assets_lineage": {"service": SERVICE},
    "runs_list": {"limit": 1},
    "runs_get": {"run_id": "latest"},
    "runs_logs": {"run_id": "latest", "tail": 2},
    "runs_cancel": {"run_id": "latest"},
}
WRONG = {
    "catalog_show_view": {"name": "visit"},
    "service_show": {"name": "../../etc/passwd"},
    "pipeline_compile": {"service": 7, "nope": 1},
    "runs_get": {"run_id": "none"},
    "runs_list": {"limit": 0},
    "runs_materialize_partition": {"service": SERVICE, "partition": "2031-01-01"},
}


async def day_is_made(session, day):
    started = await session.call_tool("runs_materialize_partition", {"service": SERVICE, "partition": day})
    assert not started.is_error, started
    run_id = started.structured_content["run_id"]
    with anyio.fail_after(180):
        while True:
            run = (await session.call_tool("runs_get", {"run_id": run_id})).structured_content
            if run["status"] not in {"queued", "running"}:
                break
            await anyio.sleep(0.1)
    assert run["status"] == "succeeded", run["error"]
    assert [one["day"] for one in run["days"]] == [day]


async def same_result(session, registry, name, params):
    result = await session.call_tool(name, params)
    assert not result.is_error, result
    expected = TOOLS[name].call(registry, params)
    assert result.structured_content == (expected if isinstance(expected, dict) else {"result": expected})
    assert json.loads(result.content[0].text) == result.structured_content


async def same_refusal(session, registry, name, params):
    result = await session.call_tool(name, params)
    assert result.is_error
    with pytest.raises(DefinitionError) as caught:
        TOOLS[name].call(registry, params)
    assert result.structured_content == fault_of(caught.value).model_dump()
    assert set(result.structured_content) == {"code", "message", "data"}


async def resources_are_read(session, project):
    uris = {one.uri for one in (await session.list_resources()).resources}
    assert uris >= {
        "daedalus://views/visits",
        f"daedalus://services/{SERVICE}",
        f"daedalus://pipelines/{SERVICE}",
    }
    for uri in uris:
        [content] = (await session.read_resource(uri)).contents
        assert content.mime_type == "application/yaml"
        kind, name = uri.removeprefix("daedalus://").split("/")
        if kind == "pipelines":
            assert content.text.startswith(f"service: {name}\n")
        else:
            assert content.text == (project / f"feature_{kind}" / f"{name}.yaml").read_text()
    for uri in (
        "daedalus://views/..%2F..%2Fx",
        "daedalus://views/visit",
        "file:///etc/passwd",
        "daedalus://x",
    ):
        with pytest.raises(MCPError) as caught:
            await session.read_resource(uri)
        assert caught.value.code == -32602
        assert FaultData.model_validate(caught.value.data).hint
    with pytest.raises(MCPError) as caught:
        await session.call_tool("rm_rf", {})
    assert caught.value.code == -32601


def test_a_changed_definition_is_seen(tmp_path):
    """The server reads the project anew when its files change; a broken file is an error that says where."""
    assert main(["init", str(tmp_path / "p"), "--no-data"]) == 0
    file = tmp_path / "p/feature_views/product_info.yaml"
    server = create_server(LiveProject(tmp_path / "p"))

    async def talk():
        async with Client(server) as client:
            arguments = {"name": "product_info"}
            assert (await client.call_tool("catalog_show_view", arguments)).structured_content["owner"] == ""
            file.write_text(file.read_text() + "owner: somebody\n")
            shown = await client.call_tool("catalog_show_view", arguments)
            assert shown.structured_content["owner"] == "somebody"
            file.write_text(file.read_text() + "ownr: nobody\n")
            refused = await client.call_tool("catalog_show_view", arguments)
            assert refused.is_error
            assert "product_info.yaml" in refused.structured_content["data"]["where"]
            with pytest.raises(MCPError) as caught:
                await client.list_resources()
            assert caught.value.data == refused.structured_content["data"]

    anyio.run(talk)


def test_only_protocol_reaches_standard_output_during_a_training_run(project, environment):
    """Whatever prints, by Python or beneath it, prints to standard error."""
    noisy = """
import dataclasses, os, subprocess, sys
from daedalus.platform import operations
from daedalus.cli.main import main
print_all = lambda: (print("PRINTED"), os.write(1, b"WRITTEN\\n"), subprocess.run(["echo", "CHILD"]))
one = operations.OPERATIONS["runs.get"]
function = one.function
def noisy(registry, *, run_id: operations.RunId) -> dict[str, operations.Any]:
    print_all()
    return function(registry, run_id=run_id)
operations.OPERATIONS["runs.get"] = dataclasses.replace(one, function=noisy)
sys.exit(main(["mcp"]))
"""
    with raw_server([sys.executable, "-c", noisy], project, environment) as (server, call):
        run_id = call("runs_materialize_partition", service=SERVICE, partition="2026-01-05")["run_id"]
        status = "queued"
        while status in {"queued", "running"}:
            time.sleep(0.1)
            status = call("runs_get", run_id=run_id)["status"]
        left, printed = server.communicate(timeout=90)
    assert status == "succeeded"
    assert left == ""
    assert server.returncode == 0
    assert {"PRINTED", "WRITTEN", "CHILD"} <= set(printed.split())


def test_a_terminated_server_interrupts_its_runs(project, environment):
    """Also while it waits for its client's next word; the second run of a day is told of the first."""
    with raw_server([*DAEDA, "mcp"], project, environment) as (server, call):
        day = {"service": SERVICE, "partition": "2026-01-10"}
        run_id = call("runs_materialize_partition", **day)["run_id"]
        refused = call("runs_materialize_partition", **day)
        assert (refused["code"], refused["data"]["run_id"]) == (-32006, run_id)
        server.terminate()
        assert server.wait(90) == 0
    assert show_run(PlatformRegistry.open(), run_id)["status"] == "interrupted"
    folder = project / "data/training_output" / SERVICE / "skeleton"
    assert not list(folder.glob("*2026-01-10*"))


@contextmanager
def raw_server(command, project, environment):
    """A server spoken to line by line; yields it, and what calls a tool."""
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        numbers = itertools.count(1)

        def ask(method, params, *, answered=True):
            message = {"jsonrpc": "2.0", "method": method, "params": params}
            number = next(numbers)
            server.stdin.write(json.dumps(message | ({"id": number} if answered else {})) + "\n")
            server.stdin.flush()
            if not answered:
                return None
            answer = json.loads(server.stdout.readline())
            assert (answer["jsonrpc"], answer["id"]) == ("2.0", number)
            return answer["result"].get("structuredContent")

        client = {"name": "t", "version": "1"}
        ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
        ask("notifications/initialized", {}, answered=False)
        try:
            yield server, lambda name, **arguments: ask("tools/call", {"name": name, "arguments": arguments})
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": TOKEN}, 401),
        ({"Authorization": f"Bearer {TOKEN}", "Host": "evil.example"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain"}, 400),
    ],
)
def test_strangers_are_refused(headers, status, address):
    message = {"jsonrpc": "2.0", "method": "tools/list", "id": 1}
    answer = httpx2.post(
        address, content=json.dumps(message), headers={"Content-Type": "application/json"} | headers
    )
    assert answer.status_code == status
    assert "visits" not in answer.text


@pytest.mark.parametrize("token", ["", "short"])
def test_an_address_that_others_reach_needs_a_token(token, monkeypatch, capsys):
    monkeypatch.setenv("DAEDALUS_MCP_TOKEN", token)
    command = ["mcp", "--transport", "streamable-http", "--host", "0.0.0.0"]
    assert main([*command, "--format", "json"]) == 2
    assert "DAEDALUS_MCP_TOKEN" in json.loads(capsys.readouterr().out)["error"]["hint"]


def test_the_package_leaves_the_sdks_name_alone(project):
    code = "import daedalus.mcp, daedalus.cli.mcp, mcp; print(mcp.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).parts[-3:] == ("site-packages", "mcp", "__init__.py")


def test_without_the_extra_the_install_line_is_named(monkeypatch):
    import daedalus.mcp

    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(MissingExtraError, match=r'pip install "daedalus\[mcp\]"'):
        daedalus.mcp.serve  # noqa: B018 - the look-up imports
