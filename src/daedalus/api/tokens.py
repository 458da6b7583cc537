"""The environment variables that hold what callers must show."""

from __future__ import annotations

#: Of `daeda serve-api`, unless another one is named.
API_TOKEN = "DAEDALUS_API_TOKEN"  # noqa: S105 - the variable's name
#: Of `daeda mcp` over HTTP.
MCP_TOKEN = "DAEDALUS_MCP_TOKEN"  # noqa: S105 - the variable's name
