"""Every error a user can meet: what went wrong, where, and the mend.

    DaedalusError
    ├── DefinitionError      a view, service, entity, spec or setting is wrong; may carry several problems
    │   └── ParameterError   a call names or sets something that is not there or not allowed
    ├── CompileError         definitions are fine, but do not make a runnable pipeline
    ├── ExecutionError       a run failed; carries the day and the operator
    │   ├── SourceError      a source cannot be read or does not hold what its view declares
    │   └── BusyError        something else is at it; carries the run that is
    └── MissingExtraError    an optional stack is not installed

The attributes come first and the message is built from them, so each surface can render the same error its
own way. All of them pickle: worker processes send them back.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest of `known`, or all of them when they are few.

    >>> did_you_mean("user_agee", ["user_age", "country"])
    "Did you mean 'user_age'?"
    >>> did_you_mean("zzz", ["a", "b"])
    'Known: a, b.'
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "Did you mean " + " or ".join(repr(match) for match in close) + "?"
    if not names:
        return ""
    shown = ", ".join(names[:12])
    more = f", ... ({len(names) - 12} more)" if len(names) > 12 else ""
    return f"Known: {shown}{more}."


class DaedalusError(Exception):
    """The root of the family.

    Attributes:
        what: the rule that was broken, one sentence without a full stop at the end.
        where: file and path in it, or view/service/spec/column; empty when there is no place.
        hint: what to do about it; empty when the sentence says it already.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f". {self.hint}" if self.hint else ""
        return f"{place}{self.what}{mend}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive the default reduction, and workers send errors by pickle.
        return (_rebuild, (type(self), dict(self.__dict__)))

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data, for programs."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "hint": self.hint,
            "message": str(self),
        }


def _rebuild(cls: type[DaedalusError], state: dict[str, Any]) -> DaedalusError:
    error = cls.__new__(cls)
    Exception.__init__(error, state["what"])
    error.__dict__.update(state)
    return error


class DefinitionError(DaedalusError):
    """A definition or setting is wrong. Loaders report every problem of their files in one error.

    Attributes:
        problems: the single errors, in file order; just this one when there is no list.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.problems: tuple[DefinitionError, ...] = ()

    @classmethod
    def gather(cls, problems: Iterable[DefinitionError]) -> DefinitionError:
        """One error out of several (at least one); a single problem stays itself."""
        flat = tuple(problem for one in problems for problem in (one.problems or (one,)))
        if len(flat) == 1:
            return flat[0]
        error = cls(f"{len(flat)} problems in the definitions")
        error.problems = flat
        return error

    def __str__(self) -> str:
        if not self.problems:
            return super().__str__()
        return self.what + ":\n" + "\n".join(f"  - {problem}" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data, its problems included."""
        return super().to_dict() | {"problems": [problem.to_dict() for problem in self.problems]}


class ParameterError(DefinitionError):
    """A call's parameter is wrong: of the wrong type, out of range, or it names what is not there."""


class CompileError(DaedalusError):
    """The definitions do not make a runnable pipeline, or a pipeline YAML was edited into a wrong one."""


class ExecutionError(DaedalusError):
    """A run failed.

    Attributes:
        day: the target day, ISO, when there is one.
        operator: the operator's name, when there is one.
    """

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", day: str = "", operator: str = ""
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.day = day
        self.operator = operator

    def __str__(self) -> str:
        prefix = "".join(
            f"{label} {value}: " for label, value in (("day", self.day), ("operator", self.operator)) if value
        )
        return prefix + super().__str__()

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data, with day and operator."""
        return super().to_dict() | {"day": self.day, "operator": self.operator}


class SourceError(ExecutionError):
    """A source cannot be read, or does not hold what its view declares."""


class BusyError(ExecutionError):
    """Something else is at it, or there is no place to wait.

    Attributes:
        run_id: the run that is at it, when one is known.
    """

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", day: str = "", run_id: str = ""
    ) -> None:
        super().__init__(what, where=where, hint=hint, day=day)
        self.run_id = run_id

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data, with the run."""
        return super().to_dict() | {"run_id": self.run_id}


class MissingExtraError(DaedalusError, ImportError):
    """An optional stack is not installed; the hint is the install line."""
