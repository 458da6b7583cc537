"""Functions that a Ray test's pipeline names: they die, wait and look around in the worker that runs them.

The test and the workers meet in the folder `$RAY_TEST_PLACE`.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

LONG = 240.0


def _place() -> Path:
    return Path(os.environ["RAY_TEST_PLACE"])


def dies_once(values: pa.Array) -> pa.Array:
    """The values; the first process that is asked for those of 2026-05-02 is killed."""
    if len(values) == 3:
        try:
            (_place() / "died").touch(exist_ok=False)
        except FileExistsError:
            return values
        os.kill(os.getpid(), signal.SIGKILL)
    return values


def always_dies(_values: pa.Array) -> pa.Array:
    """Never returns."""
    os.kill(os.getpid(), signal.SIGKILL)


def waits_on_a_doomed_node(values: pa.Array) -> pa.Array:
    """The values, at once, on all nodes but the one that the test is about to end."""
    import ray

    if (_place() / "doomed").read_text() == ray.get_runtime_context().get_node_id():
        (_place() / "begun").touch()
        threading.Event().wait(LONG)
    return values


def waits(values: pa.Array) -> pa.Array:
    """Nothing, for a long time, unless somebody interrupts it."""
    (_place() / "begun").touch()
    threading.Event().wait(LONG)
    return values


def knows_the_place(values: pa.Array) -> pa.Array:
    """The values, where the variable has reached the worker."""
    if not _place().is_dir():
        raise FileNotFoundError
    return values
