"""Definitions as resources: `daedalus://views/NAME`, `daedalus://services/NAME`, `daedalus://pipelines/SERVICE`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from daedalus.errors import ParameterError, did_you_mean
from daedalus.platform.definition_files import pipeline_yaml, service_yaml, view_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    import mcp_types as types

    from daedalus.platform.registry import PlatformRegistry

SCHEME = "daedalus://"
YAML = "application/yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One kind of resource.

    Attributes:
        variable: what its URI names.
        names: those that there are.
        read: the text of one.
    """

    title: str
    variable: str
    description: str
    names: Callable[[PlatformRegistry], list[str]]
    read: Callable[[PlatformRegistry, str], str]


def _views(registry: PlatformRegistry) -> list[str]:
    return sorted(registry.catalog.views)


def _services(registry: PlatformRegistry) -> list[str]:
    return sorted(registry.catalog.services)


_KINDS = {
    "views": _Kind(
        title="view",
        variable="name",
        description="A feature view's definition as its file says",
        names=_views,
        read=view_yaml,
    ),
    "services": _Kind(
        title="service",
        variable="name",
        description="A feature service's definition as its file says",
        names=_services,
        read=service_yaml,
    ),
    "pipelines": _Kind(
        title="pipeline",
        variable="service",
        description="The operators that training a service runs",
        names=_services,
        read=pipeline_yaml,
    ),
}


def uri_of(kind: str, name: str) -> str:
    """The URI of a definition.

    >>> uri_of("views", "a/b c")
    'daedalus://views/a%2Fb%20c'
    """
    return f"{SCHEME}{kind}/{quote(name, safe='')}"


def list_resources(registry: PlatformRegistry) -> list[types.Resource]:
    """Every view, service and pipeline of the project."""
    import mcp_types as types

    return [
        types.Resource(
            uri=uri_of(kind, name),
            name=f"{kind}/{name}",
            title=f"{one.title} {name}",
            description=f"{one.description}.",
            mime_type=YAML,
        )
        for kind, one in _KINDS.items()
        for name in one.names(registry)
    ]


def list_templates() -> list[types.ResourceTemplate]:
    """What the URIs look like."""
    import mcp_types as types

    return [
        types.ResourceTemplate(
            uri_template=f"{SCHEME}{kind}/{{{one.variable}}}",
            name=kind,
            title=one.title,
            description=f"{one.description}.",
            mime_type=YAML,
        )
        for kind, one in _KINDS.items()
    ]


def read_resource(registry: PlatformRegistry, uri: str) -> types.TextResourceContents:
    """The text behind a URI.

    Raises:
        ParameterError: there is no such resource.
        DaedalusError: it cannot be read, or does not compile.
    """
    import mcp_types as types

    kind, slash, name = uri.removeprefix(SCHEME).partition("/")
    one = _KINDS.get(kind)
    if not uri.startswith(SCHEME) or one is None or not slash:
        known = ", ".join(template.uri_template for template in list_templates())
        raise ParameterError("there is no such resource", where="params.uri", hint=f"Known: {known}")
    name = unquote(name)
    if name not in one.names(registry):
        raise ParameterError(
            f"there is no {one.title} {name[:200]!r}",
            where="params.uri",
            hint=did_you_mean(name[:200], one.names(registry)),
        )
    return types.TextResourceContents(uri=uri, text=one.read(registry, name), mime_type=YAML)
