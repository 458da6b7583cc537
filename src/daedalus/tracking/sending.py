"""Telling a tracker within a bounded time, in a process of its own.

A tracker that hangs, crashes, prints or leaves threads behind does so there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.errors import DaedalusError, ExecutionError
from daedalus.secrets import mask, remember_secret
from daedalus.tracking.base import TrackedRun
from daedalus.tracking.mlflow_tracker import SECRETS, MLflowTracker

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How long a run waits for its tracker.
SECONDS = 120.0
_PROGRAM = "from daedalus.tracking.sending import _main; _main()"
_ANSWER = "\x1edaedalus:"
#: One attempt more, and no minutes of it; what the operator set wins.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


def send(tracker: MLflowTracker, run: TrackedRun, *, seconds: float = SECONDS) -> Mapping[str, str]:
    """Have the tracker log the run; returns where it is to be found.

    Raises:
        ExecutionError: it failed, or took longer than `seconds`.
    """
    told = json.dumps({"folder": str(tracker.folder), "run": run.to_dict()}, default=str)
    for name in SECRETS:
        remember_secret(os.environ.get(name, ""))
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            [sys.executable, "-P", "-c", _PROGRAM],
            input=told,
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**_PATIENCE, **os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExecutionError(f"it did not answer within {seconds:g} s") from None
    except OSError as error:
        raise ExecutionError(f"its process did not start: {error.strerror or error}") from error
    answer = done.stdout.rpartition(_ANSWER)[2]
    try:
        said = json.loads(answer)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ExecutionError(f"its process ended: {mask(last)[:300]}") from None
    if "error" in said:
        raise ExecutionError(mask(said["error"]), hint=mask(said["hint"]))
    found: Mapping[str, str] = said
    return found


def _main() -> None:
    """The process: a run from standard input, the answer to standard output."""
    given = json.load(sys.stdin)
    try:
        said = dict(MLflowTracker(folder=Path(given["folder"])).log_run(TrackedRun.from_dict(given["run"])))
    except DaedalusError as error:
        said = {"error": error.what, "hint": error.hint}
    except Exception as error:  # noqa: BLE001 - whatever a tracker raises is told, and fails nothing
        lines = str(error).strip().splitlines() or [""]
        said = {"error": f"{type(error).__name__}: {lines[0]}"[:500], "hint": ""}
    sys.stdout.write(_ANSWER + json.dumps(said))
