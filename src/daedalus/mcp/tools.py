"""Operations as tools: their schemas, and a call's result or error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mcp_types as types

    from daedalus.platform.faults import Fault
    from daedalus.platform.operation import Operation

#: A structured result is an object: anything else goes under this key.
RESULT = "result"


def tool_of(operation: Operation) -> types.Tool:
    """The tool that does an operation."""
    import mcp_types as types

    return types.Tool(
        name=operation.tool_name,
        title=operation.name,
        description=operation.description,
        input_schema=operation.params_schema | {"type": "object"},
        output_schema=_output_schema(operation),
        annotations=types.ToolAnnotations(
            read_only_hint=operation.read_only,
            destructive_hint=operation.destructive,
            idempotent_hint=operation.idempotent,
            open_world_hint=False,
        ),
    )


def result_of(operation: Operation, value: Any) -> types.CallToolResult:
    """What an operation returned, structured and as text."""
    import mcp_types as types

    structured = value if _is_object(operation) else {RESULT: value}
    return types.CallToolResult(content=[_text(structured)], structured_content=structured)


def refusal_of(fault: Fault) -> types.CallToolResult:
    """What went wrong: `{code, message, data}`, for the model to read and mend."""
    import mcp_types as types

    plain = fault.model_dump()
    return types.CallToolResult(content=[_text(plain)], structured_content=plain, is_error=True)


def _is_object(operation: Operation) -> bool:
    """Whether the result is one; the schema of a `TypedDict` may stand behind a reference."""
    schema = operation.result_schema
    reference = schema.get("$ref", "")
    if reference:
        schema = schema.get("$defs", {}).get(reference.rpartition("/")[2], {})
    return schema.get("type") == "object"


def _output_schema(operation: Operation) -> dict[str, Any]:
    schema = dict(operation.result_schema)
    if _is_object(operation):
        return schema | {"type": "object"}
    definitions = schema.pop("$defs", None)
    wrapped = {"type": "object", "properties": {RESULT: schema}, "required": [RESULT]}
    return wrapped | ({"$defs": definitions} if definitions else {})


def _text(value: Any) -> types.TextContent:
    import mcp_types as types

    return types.TextContent(type="text", text=json.dumps(value, ensure_ascii=False))
