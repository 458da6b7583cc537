"""One thing at a time done beside the thread that prepares the next one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


class OneBehind:
    """A thread that does what it is told, in order. Use as a context manager, which waits for the last thing.

    Example:
        >>> done = []
        >>> with OneBehind() as behind:
        ...     behind.do(lambda: done.append(1))
        ...     behind.do(lambda: done.append(2))
        >>> done
        [1, 2]
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="daedalus-behind")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> OneBehind:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown()

    def do(self, what: Callable[[], None]) -> None:
        """Begin it once what was begun before is done; what that raised is raised here."""
        self.wait()
        self._under_way = self._thread.submit(what)

    def wait(self) -> None:
        """Wait for what is under way; what it raised is raised here."""
        begun, self._under_way = self._under_way, None
        if begun is not None:
            begun.result()
