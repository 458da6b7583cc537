"""`Operation`: one thing that can be done with a project, described well enough that any surface can offer it.

The parameters' model is made from the function's signature, the result's schema from its return annotation, the
summary from its docstring: nothing about an operation is said twice.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic_core import to_jsonable_python

from daedalus.errors import DefinitionError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daedalus.platform.registry import PlatformRegistry


class Surface(StrEnum):
    """Where an operation is offered."""

    CLI = "cli"
    RPC = "rpc"
    MCP = "mcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of the platform.

    Attributes:
        name: `area.verb`, as JSON-RPC calls it.
        function: takes the registry and keyword parameters, returns what JSON can say.
        surfaces: where it is offered.
        command: the `daeda` command that shows the same, without options; empty when there is none.
        read_only: whether it changes nothing.
        destructive: whether it may undo work.
        idempotent: whether doing it twice is doing it once.
    """

    name: str
    function: Callable[..., Any]
    surfaces: frozenset[Surface]
    command: str = ""
    read_only: bool = True
    destructive: bool = False
    idempotent: bool = True

    @property
    def tool_name(self) -> str:
        """Its name where dots are not allowed.

        >>> Operation(name="catalog.list_views", function=print, surfaces=frozenset()).tool_name
        'catalog_list_views'
        """
        return self.name.replace(".", "_")

    @property
    def summary(self) -> str:
        """One sentence."""
        return self.description.split("\n", 1)[0]

    @property
    def description(self) -> str:
        """The function's docstring."""
        return inspect.getdoc(self.function) or ""

    @property
    def params_model(self) -> type[BaseModel]:
        """The parameters: a field per keyword of the function, anything else refused."""
        return _params_model(self.function, self.tool_name)

    @property
    def params_schema(self) -> dict[str, Any]:
        """JSON Schema of the parameters."""
        return self.params_model.model_json_schema()

    @property
    def result_type(self) -> Any:
        """What it returns, as annotated: plain data."""
        return _hints(self.function)["return"]

    @property
    def result_schema(self) -> dict[str, Any]:
        """JSON Schema of the result."""
        return _result_schema(self.function)

    def bind(self, params: Mapping[str, Any] | tuple[Any, ...] | list[Any] | None) -> dict[str, Any]:
        """Checked keyword arguments from parameters by name or by position.

        Raises:
            ParameterError: a parameter is missing, unknown, or of the wrong type or size; every one is named.
        """
        model = self.params_model
        given = params or {}
        if not hasattr(given, "keys"):
            names = list(model.model_fields)
            if len(given) > len(names):
                raise ParameterError(
                    f"{len(given)} parameters given, {self.name} takes {len(names)}",
                    where="params",
                    hint=f"They are, in order: {', '.join(names)}" if names else "",
                )
            given = dict(zip(names, given, strict=False))
        try:
            checked = model.model_validate(given, strict=True)
        except ValidationError as error:
            raise _refusal(error, model) from None
        return {name: getattr(checked, name) for name in model.model_fields}

    def call(
        self,
        registry: PlatformRegistry,
        params: Mapping[str, Any] | tuple[Any, ...] | list[Any] | None = None,
    ) -> Any:
        """Check the parameters and do it; the result is what JSON can say.

        Raises:
            ParameterError: the parameters are wrong.
            DaedalusError: whatever the operation raises.
        """
        result = self.function(registry, **self.bind(params))
        return to_jsonable_python(result, inf_nan_mode="strings", fallback=str)


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function, include_extras=True)


@cache
def _params_model(function: Callable[..., Any], name: str) -> type[BaseModel]:
    hints = _hints(function)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    fields: dict[str, Any] = {
        one.name: (hints[one.name], ... if one.default is inspect.Parameter.empty else one.default)
        for one in parameters
    }
    return create_model(f"{name}_params", __config__=ConfigDict(extra="forbid", frozen=True), **fields)


@cache
def _result_schema(function: Callable[..., Any]) -> dict[str, Any]:
    return TypeAdapter(_hints(function)["return"]).json_schema(mode="serialization")


def _refusal(error: ValidationError, model: type[BaseModel]) -> ParameterError:
    """Every wrong parameter in one error, without the values: they may be huge or secret."""
    from daedalus.errors import did_you_mean

    problems: list[DefinitionError] = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(str(part) for part in one["loc"])
        unknown = one["type"] == "extra_forbidden"
        problems.append(
            ParameterError(
                "there is no such parameter" if unknown else one["msg"],
                where=f"params.{path[:200]}" if path else "params",
                hint=did_you_mean(path[:200], model.model_fields) if unknown else "",
            )
        )
    if len(problems) == 1:
        return ParameterError(problems[0].what, where=problems[0].where, hint=problems[0].hint)
    gathered = ParameterError(f"{len(problems)} parameters are wrong", where="params")
    gathered.problems = tuple(problems)
    return gathered
