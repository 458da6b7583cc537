"""Which process does a run, and whether it still does."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping

HEARTBEAT_SECONDS = 15.0
_SILENT_SECONDS = 8 * HEARTBEAT_SECONDS
_SAME_START_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMark:
    """A process, told apart from a later one with the same number by when it started.

    Attributes:
        started: seconds since 1970.
    """

    host: str = ""
    pid: int = 0
    started: float = 0.0

    @classmethod
    def here(cls) -> ProcessMark:
        """This process."""
        return cls(host=socket.gethostname(), pid=os.getpid(), started=psutil.Process().create_time())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProcessMark:
        """What `to_dict` wrote."""
        return cls(host=data.get("host", ""), pid=data.get("pid", 0), started=data.get("started", 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def is_alive(self, last_sign: float | None) -> bool:
        """Whether the process is there: looked up on its own host, judged by its last sign from another one.

        Args:
            last_sign: when it last wrote anything, in seconds since 1970.
        """
        if self.host != socket.gethostname():
            return last_sign is not None and time.time() - last_sign < _SILENT_SECONDS
        try:
            process = psutil.Process(self.pid)
            running = process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            return running and abs(process.create_time() - self.started) < _SAME_START_SECONDS
        except psutil.Error:
            return False
