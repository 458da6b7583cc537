"""`rpc.discover`: the methods as an OpenRPC document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from daedalus.platform.faults import CODES, INTERNAL_ERROR, FaultData
from daedalus.platform.operation import Surface
from daedalus.platform.operations import operations

if TYPE_CHECKING:
    from daedalus.platform.operation import Operation

OPENRPC_VERSION = "1.3.2"
DISCOVER = "rpc.discover"
_REFERENCE = "#/components/schemas/{model}"


def openrpc_document() -> dict[str, Any]:
    """The document: every method with typed parameters, result and errors."""
    from daedalus import __version__

    schemas: dict[str, Any] = {}
    methods = [_method(one, schemas) for one in operations(Surface.RPC)]
    schemas["FaultData"] = _hoisted(FaultData.model_json_schema(ref_template=_REFERENCE), schemas)
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": "Daedalus",
            "version": __version__,
            "description": "The operations of a project. Errors carry typed data: FaultData.",
        },
        "methods": methods,
        "components": {"schemas": schemas, "errors": _errors()},
    }


def _method(one: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    params = _hoisted(one.params_model.model_json_schema(ref_template=_REFERENCE), schemas)
    result = _hoisted(
        TypeAdapter(one.result_type).json_schema(mode="serialization", ref_template=_REFERENCE), schemas
    )
    required = params.get("required", [])
    return {
        "name": one.name,
        "summary": one.summary,
        "description": one.description,
        "paramStructure": "either",
        "params": [
            {
                "name": name,
                "required": name in required,
                "description": schema.get("description", ""),
                "schema": schema,
            }
            for name, schema in params.get("properties", {}).items()
        ],
        "result": {"name": "result", "schema": result},
        "errors": [{"$ref": f"#/components/errors/{name}"} for name in _errors()],
        "x-read-only": one.read_only,
    }


def _errors() -> dict[str, Any]:
    found = {kind.__name__: {"code": code, "message": _first_line(kind)} for kind, code in CODES}
    return found | {"InternalError": {"code": INTERNAL_ERROR, "message": "internal error"}}


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n", 1)[0]


def _hoisted(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema without its definitions, which go among `schemas`."""
    schemas.update(schema.pop("$defs", {}))
    return schema
