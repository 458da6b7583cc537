"""The envelope: the specification's examples, and everything that is no request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daedalus.api.jsonrpc import Call, answer
from daedalus.platform.faults import METHOD_NOT_FOUND, Fault, FaultData


async def arithmetic(call: Call) -> Any:
    match call.method, call.params:
        case "subtract", [a, b]:
            return a - b
        case "subtract", {"minuend": a, "subtrahend": b}:
            return a - b
        case "echo", params:
            return params
    return Fault(code=METHOD_NOT_FOUND, message="method not found", data=FaultData(kind="MethodNotFound"))


def ask(body: bytes | str, most: int = 10) -> Any:
    raw = body if isinstance(body, bytes) else body.encode()
    said = asyncio.run(answer(raw, arithmetic, most_calls=most))
    return None if said is None else json.loads(said)


def codes(found: Any) -> Any:
    if isinstance(found, list):
        return [codes(one) for one in found]
    return found["error"]["code"] if "error" in found else found["result"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', 19),
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
            19,
        ),
        ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', -32601),
        ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', -32700),
        ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', -32600),
        ("[]", -32600),
        ("[1]", [-32600]),
        ("[1,2,3]", [-32600, -32600, -32600]),
        (
            '[{"jsonrpc":"2.0","method":"subtract","params":[2,1],"id":"1"},{"jsonrpc":"2.0","method":"echo",'
            '"params":[7]},{"foo":"boo"},{"jsonrpc":"2.0","method":"foo.get","params":{"name":"me"},"id":"5"}]',
            [1, -32600, -32601],
        ),
        ('{"method": "echo", "params": [], "id": 1}', -32600),
        ('{"jsonrpc": "2.0", "method": "echo", "params": null, "id": 1}', -32600),
        ('{"jsonrpc": "2.0", "method": "echo", "params": "x", "id": 1}', -32600),
        ('{"jsonrpc": "2.0", "method": "echo", "id": true}', -32600),
        ('{"jsonrpc": "2.0", "method": "echo", "id": {}}', -32600),
        ('{"jsonrpc": "2.0", "method": "echo", "id": 1e999}', -32600),
        ('{"jsonrpc": "2.0", "method": "echo", "params": [NaN], "id": 1}', -32700),
        ("[" * 100_000, -32700),
        (b"\xff\xfe", -32700),
        (b"", -32700),
        (f"[{'1,' * 10}1]", -32600),
    ],
)
def test_answers(body: bytes | str, expected: Any) -> None:
    assert codes(ask(body)) == expected


@pytest.mark.parametrize(
    "body",
    [
        '{"jsonrpc": "2.0", "method": "echo", "params": [1]}',
        '{"jsonrpc": "2.0", "method": "nothing"}',
        '[{"jsonrpc": "2.0", "method": "echo"}, {"jsonrpc": "2.0", "method": "nothing"}]',
    ],
)
def test_notifications_are_not_answered(body: str) -> None:
    assert ask(body) is None


@pytest.mark.parametrize("id", ["x", "", 0, -3, 1.5, None, "\ud800"])
def test_the_id_comes_back(id: Any) -> None:
    found = ask(json.dumps({"jsonrpc": "2.0", "method": "echo", "params": [], "id": id}))
    assert found == {"jsonrpc": "2.0", "result": [], "id": id}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={"jsonrpc": st.just("2.0") | JSON, "method": st.text() | JSON, "params": JSON, "id": JSON},
)


@given(st.lists(NEARLY | JSON, max_size=12) | NEARLY | JSON)
def test_whatever_is_sent_an_answer_is_well_formed(body: Any) -> None:
    found = ask(json.dumps(body))
    wanted = body if isinstance(body, list) else [body]
    if found is None:
        assert all("id" not in one for one in wanted)
        return
    for one in found if isinstance(found, list) else [found]:
        assert set(one) in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
        assert one["jsonrpc"] == "2.0"


@given(st.binary(max_size=200))
def test_bytes_are_answered(body: bytes) -> None:
    found = ask(body)
    assert found is None or "jsonrpc" in (found[0] if isinstance(found, list) else found)
