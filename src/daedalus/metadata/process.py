"""Which process does a run, and whether it still does."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
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
        started: seconds since 1970, by a clock that may be set.
        born: which boot, and when since then, by a clock that nobody sets; empty where the system does not say.
    """

    host: str = ""
    pid: int = 0
    started: float = 0.0
    born: str = ""

    @classmethod
    def here(cls) -> ProcessMark:
        """This process."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(), pid=pid, started=psutil.Process().create_time(), born=_born(pid)
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProcessMark:
        """What `to_dict` wrote."""
        return cls(
            host=data.get("host", ""),
            pid=data.get("pid", 0),
            started=data.get("started", 0.0),
            born=data.get("born", ""),
        )

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
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return False
            born = _born(self.pid)
            if self.born and born:
                return self.born == born
            return bool(abs(process.create_time() - self.started) < _SAME_START_SECONDS)
        except psutil.Error:
            return False


def _born(pid: int) -> str:
    """When a process of this host began, in ticks since which boot; empty where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The program's name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{boot}/{fields[19]}"
