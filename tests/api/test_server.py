"""A real server on loopback: an off-the-shelf client, bad input of every kind, who may ask."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonrpcclient import Error, notification_json, parse_json, request

from api.conftest import SERVICE, TOKEN, serving, until
from daedalus.api.guard import access_for, host_name
from daedalus.cli.main import main
from daedalus.errors import DefinitionError, ExecutionError, ParameterError
from daedalus.platform.live import LiveProject
from daedalus.platform.operations import OPERATIONS
from daedalus.platform.run_queue import close_queues, launcher_for
from support.servers import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Server
    from daedalus.platform.registry import PlatformRegistry

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("api")]


def test_definitions_over_the_wire(server: Server, registry: PlatformRegistry) -> None:
    assert [one["name"] for one in server.call("service.list")] == [SERVICE]
    assert server.call("catalog.show_view", "visits") == registry.show_view("visits")
    assert (
        server.call("pipeline.compile", service=SERVICE)["pipeline"]
        == registry.compile(SERVICE, write=False).pipeline.to_yaml_dict()
    )
    influences = server.call("assets.lineage", service=SERVICE, column="price")["influences"]
    assert {"product_info:price"} <= {one["origin"] for one in influences}


def test_a_batch_and_notifications(server: Server) -> None:
    batch = [request("service.list"), {"jsonrpc": "2.0", "method": "service.list"}, request("nothing"), 7]
    answers = list(parse_json(server.post(json.dumps(batch)).text))
    assert len(answers) == 3
    assert [answer.code for answer in answers if isinstance(answer, Error)] == [-32601, -32600]
    silent = server.post(notification_json("nothing"))
    assert (silent.status_code, silent.content) == (204, b"")
    too_many = parse_json(server.post(json.dumps([request("service.list")] * 21)).text)
    assert (too_many.code, "1 to 20" in too_many.message) == (-32600, True)


def test_discovery_describes_every_method(server: Server) -> None:
    document = server.call("rpc.discover")
    assert document["openrpc"].startswith("1.3")
    methods = {one["name"]: one for one in document["methods"]}
    assert set(methods) == set(OPERATIONS)
    partition = {one["name"]: one for one in methods["runs.materialize_partition"]["params"]}["partition"]
    assert (partition["required"], partition["schema"]["pattern"]) == (True, r"^\d{4}-\d{2}-\d{2}$")
    text = json.dumps(document)
    known = {f"#/components/{kind}/{name}" for kind, some in document["components"].items() for name in some}
    used = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert used
    assert used <= known


@pytest.mark.parametrize(
    ("method", "params", "code", "where"),
    [
        ("catalog.show_view", {"name": "../../etc/passwd"}, -32602, "params.name"),
        ("catalog.show_view", {"name": ""}, -32602, "params.name"),
        ("catalog.show_view", {"name": 7}, -32602, "params.name"),
        ("catalog.show_view", {"nam": "visits"}, -32602, "params"),
        ("catalog.show_view", ["visits", "visits"], -32602, "params"),
        ("service.show", {"name": "product_rankin"}, -32602, "params.name"),
        ("pipeline.compile", {"service": "../product_ranking"}, -32602, "params.service"),
        ("assets.lineage", {"service": "x\x00"}, -32602, "params.service"),
        ("assets.lineage", {"column": "nope"}, -32001, "lineage"),
        ("assets.lineage", {"column": "price", "downstream": "visits"}, -32602, "params"),
        ("runs.get", {"run_id": "../metadata"}, -32602, "params.run_id"),
        ("runs.logs", {"run_id": "%"}, -32602, "params.run_id"),
        ("runs.logs", {"run_id": "x", "tail": -1}, -32602, "params.tail"),
        ("runs.list", {"limit": 0}, -32602, "params.limit"),
        ("runs.list", {"limit": True}, -32602, "params.limit"),
        ("runs.cancel", {"run_id": "nobody"}, -32602, "params.run_id"),
        ("runs.materialize_partition", {"service": SERVICE, "partition": "../x"}, -32602, "params.partition"),
        (
            "runs.materialize_partition",
            {"service": SERVICE, "partition": "2026-02-30"},
            -32602,
            "params.partition",
        ),
        (
            "runs.materialize_partition",
            {"service": SERVICE, "partition": "2020-01-01"},
            -32602,
            "params.partition",
        ),
        ("runs.materialize_partition", {"service": "x", "partition": "2026-01-05"}, -32602, "params.service"),
        ("rpc.discover", {"method": "runs.get"}, -32602, "params"),
        ("os.system", ["x"], -32601, ""),
        ("__class__", None, -32601, ""),
    ],
)
def test_a_wrong_call_has_its_code(server: Server, method: str, params: Any, code: int, where: str) -> None:
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": 1}
    error = server.post(json.dumps(body | ({} if params is None else {"params": params}))).json()["error"]
    assert (error["code"], error["data"]["where"]) == (code, where)
    assert error["message"]
    assert set(error["data"]) == {
        "kind",
        "where",
        "hint",
        "day",
        "operator",
        "run_id",
        "problems",
        "request_id",
    }


METHODS = st.sampled_from([name for name in OPERATIONS if name != "runs.materialize_partition"])
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.lists(st.text(max_size=3))
PARAMS = st.dictionaries(
    st.sampled_from(["name", "service", "run_id", "tail", "limit", "column", "downstream", "kind", "x"]),
    VALUES
    | st.sampled_from(["../..", "visits", SERVICE, "'; DROP TABLE runs; --", "latest", "\u202e", "a/b"]),
    max_size=3,
)


@settings(max_examples=60)
@given(METHODS | st.text(max_size=20), PARAMS | st.lists(VALUES, max_size=4))
def test_no_parameters_bring_it_down(server: Server, method: str, params: Any) -> None:
    answer = server.post(json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}))
    found = answer.json()
    assert answer.status_code == 200
    assert "result" in found or found["error"]["code"] in {-32601, -32602, -32001}, found
    assert "Traceback" not in answer.text


PARTITIONS = st.text(max_size=12) | st.from_regex(r"\A\d{4}-\d{2}-\d{2}\Z").filter(
    lambda day: not day.startswith("2026-01-")
)


@settings(max_examples=40)
@given(st.sampled_from([SERVICE, "../x", "a/b"]), PARTITIONS | st.sampled_from(["../../x", "2026-01-05/.."]))
def test_no_partition_outside_the_range_starts_a_run(server: Server, service: str, partition: str) -> None:
    error = server.call("runs.materialize_partition", service=service, partition=partition)
    assert (error.code, error.data["kind"]) == (-32602, "ParameterError")
    assert server.store.runs() == []


@settings(max_examples=40)
@given(st.binary(max_size=300), st.sampled_from(["application/json", "application/json; charset=x"]))
def test_no_bytes_bring_it_down(server: Server, body: bytes, kind: str) -> None:
    answer = server.post(body, content_type=kind)
    assert answer.status_code in (200, 204)
    assert server.client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8000"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "127.0.0.1@evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "multipart/form-data"}, 415),
        ({"content_encoding": "gzip"}, 415),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:1"}, 200),
    ],
)
def test_what_a_browsers_page_could_send(server: Server, headers: dict[str, str], status: int) -> None:
    answer = server.post(json.dumps(request("service.list")), **headers)
    assert answer.status_code == status
    assert answer.json()["jsonrpc"] == "2.0"


def test_large_bodies_are_refused_before_they_are_read(server: Server) -> None:
    answer = server.post(b" " * 70_000)
    assert (answer.status_code, answer.json()["error"]["data"]["kind"]) == (413, "Refused")
    assert server.post(b"[" * 60_000).json()["error"]["code"] == -32700
    assert server.call("service.list")


def test_there_is_nothing_else(server: Server) -> None:
    assert server.client.get("/readyz").json() == {"status": "ready"}
    for path in (
        "/",
        "/docs",
        "/openapi.json",
        "/redoc",
        "/rpc/service.list",
        "/rpc/",
        "/healthz/",
        "/metrics",
        "/../etc/passwd",
    ):
        assert server.client.get(path).status_code == 404
    assert server.client.get("/rpc").status_code == 405
    assert server.client.put("/healthz").status_code == 405


def test_requests_are_logged_with_their_ids(server: Server) -> None:
    answer = server.post(json.dumps(request("runs.get", ["none"])), x_request_id="mine-1")
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["error"]["data"]["request_id"] == "mine-1"
    forged = server.post("{}", x_request_id='x"}{"a')
    assert forged.headers["x-request-id"] != 'x"}{"a'
    server.post(
        json.dumps(request("two\u0085lines\u2028of\u2029log"), ensure_ascii=False).encode(),
        x_request_id="mine-2",
    )

    def logged(request_id: str) -> list[dict[str, Any]]:
        # The line is written when the answer is on its way; a line may be there in part.
        whole = server.log.read_text().rpartition("\n")[0]
        assert whole.isascii()  # whatever a reader takes for the end of a line, it is "\n" alone
        return [one for one in map(json.loads, whole.split("\n")) if one.get("request_id") == request_id]

    assert until(lambda: logged("mine-2"))[0]["methods"] == ["two\u0085lines\u2028of\u2029log"]
    [line] = until(lambda: logged("mine-1"))
    assert (line["methods"], line["status"], line["event"]) == (["runs.get"], 200, "request")


def test_a_dropped_client_harms_nobody(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for sent in (
        b"POST /rpc HTTP/1.1\r\nHost: localhost\r\n",
        b"\x00\xff" * 10,
        b"GET /healthz HTTP/9\r\n\r\n",
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    assert server.call("service.list")


def test_files_are_read_again_when_they_change(server: Server, shop: Path) -> None:
    file = shop / "feature_views/product_info.yaml"
    text = file.read_text()
    try:
        file.write_text(re.sub(r"(?m)^description: .*$", "description: changed", text))
        views = {one["name"]: one for one in server.call("catalog.list_views")}
        assert views["product_info"]["description"] == "changed"
        file.write_text("name: [")
        assert server.call("catalog.list_views").code == -32001
        assert server.client.get("/readyz").status_code == 503
    finally:
        file.write_text(text)
    assert server.client.get("/readyz").status_code == 200


def test_a_token_is_asked_for(shop: Path) -> None:
    with serving(shop, token=TOKEN) as server:
        assert server.call("service.list")
        body = json.dumps(request("service.list"))
        for shown in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \u00e9".encode("latin-1")):
            answer = server.post(body, authorization=shown)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert server.stop() == 0
        assert TOKEN not in server.log.read_text()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_other_machines_reach_nothing_without_a_token(host: str) -> None:
    for token in ("", "short"):
        with pytest.raises(DefinitionError, match="token"):
            access_for(host, token, where="here", token_variable="T")
    assert access_for(host, TOKEN, where="here", token_variable="T").hosts == frozenset()
    assert access_for("127.0.0.1", "", where="here", token_variable="T").hosts >= {"localhost"}


def test_the_variable_that_holds_no_token_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve-api", "--host", "0.0.0.0", "--token-env", "FRONT_DOOR", "--format", "json"]) == 2
    assert "into FRONT_DOOR," in json.loads(capsys.readouterr().out)["error"]["hint"]


def test_runs_via_a_dagster_that_does_not_answer(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'dagster_graphql_url = "http://127.0.0.1:{free_port()}/graphql"\n')
    monkeypatch.setenv("DAEDALUS_CONFIG", str(config))
    monkeypatch.setenv("DAEDALUS_RUNS_VIA", "dagster")
    monkeypatch.chdir(shop)
    project = LiveProject()
    launcher = launcher_for(project.current())
    with pytest.raises(ExecutionError, match="Dagster"):
        launcher.submit(project.current(), SERVICE, dt.date(2026, 1, 5))
    with pytest.raises(ParameterError, match="outside"):
        launcher.submit(project.current(), SERVICE, dt.date(2020, 1, 5))
    launcher.close()
    # A program that calls the operations itself goes the same way, and asks there for runs that are not ours.
    unknown = {"run_id": "0b1f3f0a-5a53-4c56-9d1c-000000000000"}
    for name, params in (
        ("runs.materialize_partition", {"service": SERVICE, "partition": "2026-01-05"}),
        ("runs.get", unknown),
        ("runs.cancel", unknown),
    ):
        with pytest.raises(ExecutionError, match="Dagster does not answer"):
            OPERATIONS[name].call(project.current(), params)
    with pytest.raises(ParameterError, match="unknown run"):
        OPERATIONS["runs.get"].call(project.current(), {"run_id": "nobody"})
    close_queues()


def test_host_headers_that_name_nothing() -> None:
    for header in ("", "a b", "a/b", "u@h", "[::1", "a\\b"):
        assert host_name(header) == "", header
