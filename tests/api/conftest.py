"""A project of `daeda init`, and a real `daeda serve-api` over it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from jsonrpcclient import Error, Ok, parse, request

from daedalus.metadata.store import MetadataStore
from daedalus.platform.live import LiveProject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daedalus.platform.registry import PlatformRegistry

SERVICE = "product_ranking"
TOKEN = "a-token-of-the-tests-0123"


@dataclass
class Server:
    """A server process.

    Attributes:
        root: its project.
        log: what it wrote to standard error.
    """

    process: subprocess.Popen[str]
    url: str
    root: Path
    log: Path
    client: httpx.Client

    def post(self, content: bytes | str, **headers: str) -> httpx.Response:
        sent = {"content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.client.post("/rpc", content=content, headers=sent)

    def call(self, method: str, *args: Any, **params: Any) -> Any:
        """The result, by an off-the-shelf client; an error is returned as it is."""
        answer = self.client.post("/rpc", json=request(method, params=list(args) if args else params or None))
        assert answer.status_code == 200
        match parse(answer.json()):
            case Ok(result, _):
                return result
            case Error() as error:
                return error

    def run(self, partition: str) -> str:
        state = self.call("runs.materialize_partition", service=SERVICE, partition=partition)
        assert isinstance(state, dict), state
        return state["run_id"]

    @property
    def store(self) -> MetadataStore:
        return MetadataStore(self.root / "data/training_output")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


def until(true: Callable[[], Any], seconds: float = 180, every: float = 0.01) -> Any:
    """What `true` returns, once it is something."""
    ends = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < ends, "it did not come"
        time.sleep(every)
    return found


def started_project(folder: Path) -> Path:
    root = folder / "shop"
    subprocess.run(
        [sys.executable, "-m", "daedalus", "init", str(root)], check=True, capture_output=True, cwd=folder
    )
    return root


@contextlib.contextmanager
def serving(root: Path, *options: str, token: str = "") -> Iterator[Server]:
    log = root.parent / f"serve-{time.monotonic_ns()}.log"
    env = os.environ | {"DAEDALUS_CONFIG": str(root / "none.toml"), "DAEDALUS_API_TOKEN": token}
    command = [sys.executable, "-m", "daedalus", "serve-api", "--port", "0", "--format", "json", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    said = ""
    while not said.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, log.read_text()
        said += line
    url = json.loads(said)["url"]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            yield Server(process, url, root, log, client)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(90)
        process.stdout.close()


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return started_project(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="session")
def server(shop: Path) -> Iterator[Server]:
    with serving(shop, "--queue-size", "2", "--max-body-bytes", "65536", "--max-batch", "20") as found:
        yield found


@pytest.fixture
def registry(shop: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformRegistry:
    """The same project in this process."""
    monkeypatch.chdir(shop)
    monkeypatch.setenv("DAEDALUS_CONFIG", str(shop / "none.toml"))
    return LiveProject(shop).current()
