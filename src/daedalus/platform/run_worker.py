"""The process of one queued run: `python -m daedalus.platform.run_worker ARGUMENTS`."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from daedalus.errors import DaedalusError
from daedalus.metadata.store import MetadataStore, RunStatus
from daedalus.platform.registry import PlatformRegistry

if TYPE_CHECKING:
    from types import FrameType


#: Told so, it ends as by Ctrl-C. Whoever starts it blocks them, and they are let in when it can answer.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Whoever started the run goes on answering while it computes.
_NICENESS = 10


def main(arguments: str) -> int:
    """Train the day of a queued run; 0 when it is made. What went wrong stands in the run's record."""
    try:
        _let_end()
        return _train(json.loads(arguments))
    except KeyboardInterrupt:
        return 130


def _train(given: dict[str, str]) -> int:
    os.nice(_NICENESS)
    registry = PlatformRegistry.open(
        given["project_root"],
        feature_views_dir=given["views_dir"],
        feature_services_dir=given["services_dir"],
    )
    try:
        registry.train(
            given["service"], target_dates=[dt.date.fromisoformat(given["day"])], queued=given["run_id"]
        )
    except DaedalusError as error:
        store = MetadataStore(registry.config().output_path)
        if store.find(given["run_id"]).status is RunStatus.QUEUED:  # it went wrong before it began
            store.finish(given["run_id"], RunStatus.FAILED, error=error.to_dict())
        return 1
    return 0


def _let_end() -> None:
    # A parent started with `nohup` or `&` would have the run ignore its interruption.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
