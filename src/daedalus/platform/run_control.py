"""Stopping a run, whichever process does it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import psutil

from daedalus.errors import ExecutionError
from daedalus.metadata.process import ProcessMark

if TYPE_CHECKING:
    from collections.abc import Callable

    from daedalus.metadata.store import MetadataStore, StoredRun

GRACE_SECONDS = 8.0
_LOOK_SECONDS = 0.05


def cancel(store: MetadataStore, run_id: str, *, grace_seconds: float = GRACE_SECONDS) -> StoredRun:
    """Stop a run; returns it as it stands then. One that is over stays as it is.

    Its process is interrupted as by Ctrl-C, and killed with all that it started when that is not enough in time.

    Raises:
        DefinitionError: no such run.
        ExecutionError: it runs on another host, or as another user.
    """
    run = store.find(run_id)
    if run.status.is_over:
        return run
    mark = ProcessMark.from_dict(run.facts.get("process", {}))
    if mark.host != socket.gethostname():
        raise ExecutionError(f"it runs on {mark.host}", where=f"run {run.run_id}", hint="Cancel it there")
    # Asked first, looked at after: a worker that begins it meanwhile sees the wish, or is seen here.
    run = store.ask_to_stop(run.run_id)
    if run.status.is_over:
        return run
    mark = ProcessMark.from_dict(run.facts.get("process", {}))
    try:
        stop_process(mark, lambda: store.find(run.run_id).status.is_over, grace_seconds=grace_seconds)
    except PermissionError:
        raise ExecutionError(
            f"process {mark.pid} belongs to another user", where=f"run {run.run_id}"
        ) from None
    return store.find(run.run_id)


def stop_process(
    mark: ProcessMark, is_over: Callable[[], bool], *, grace_seconds: float = GRACE_SECONDS
) -> None:
    """Interrupt a process of this host; kill it and what it started when it is not over in time."""
    if not mark.is_alive(None):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(mark.pid, signal.SIGINT)
    ends = time.monotonic() + grace_seconds
    while time.monotonic() < ends:
        if not mark.is_alive(None) or is_over():
            return
        time.sleep(_LOOK_SECONDS)
    if mark.is_alive(None) and mark.pid != os.getpid():
        kill_tree(mark.pid)


def kill_tree(pid: int) -> None:
    """Kill a process and everything that it started."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(family, timeout=5)
