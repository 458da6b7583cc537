"""Work that is done in steps, of which another thread may take the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

Returned = TypeVar("Returned")


class Stepwise(Generic[Returned]):
    """Takes the steps of a generator, each up to its next `yield`; by any thread, but one at a time.

    Args:
        generator: yields between its steps, and returns what they come to.

    Example:
        >>> def two():
        ...     print("one")
        ...     yield
        ...     print("two")
        ...     return 2
        >>> steps = Stepwise(two())
        >>> steps.take()
        one
        >>> steps.rest()
        two
        2
    """

    def __init__(self, generator: Generator[None, None, Returned]) -> None:
        self._generator = generator
        self._returned: list[Returned] = []

    def take(self) -> None:
        """Take a step, if one is left."""
        if self._returned:
            return
        try:
            next(self._generator)
        except StopIteration as end:
            self._returned.append(end.value)

    def rest(self) -> Returned:
        """Take all steps that are left: what the generator returned."""
        while not self._returned:
            self.take()
        return self._returned[0]

    def close(self) -> None:
        """Take no more steps."""
        self._generator.close()
