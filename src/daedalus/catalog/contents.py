"""What a catalog holds, by name; loading, checking and resolving know this much of it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from daedalus.catalog.entities import ENTITIES
from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.catalog.model import Entity, FeatureServiceDef, FeatureViewDef

_T = TypeVar("_T")


class CatalogContents:
    """Entities, views and services; immutable, and the only one that resolves join keys.

    Attributes:
        entities: by name; the shipped ones among them.
        views: by name, in order of their files.
        services: by name, in order of their files.
    """

    __slots__ = ("_entities", "_services", "_views")

    def __init__(
        self,
        *,
        entities: Mapping[str, Entity] = ENTITIES,
        views: Iterable[FeatureViewDef] = (),
        services: Iterable[FeatureServiceDef] = (),
    ) -> None:
        self._entities = dict(entities)
        self._views = {view.name: view for view in views}
        self._services = {service.name: service for service in services}

    @property
    def entities(self) -> Mapping[str, Entity]:
        """Every entity, by name."""
        return MappingProxyType(self._entities)

    @property
    def views(self) -> Mapping[str, FeatureViewDef]:
        """Every view, by name."""
        return MappingProxyType(self._views)

    @property
    def services(self) -> Mapping[str, FeatureServiceDef]:
        """Every service, by name."""
        return MappingProxyType(self._services)

    def entity(self, name: str) -> Entity:
        """The entity called `name`; DefinitionError with near matches."""
        return _found("entity", name, self._entities)

    def view(self, name: str) -> FeatureViewDef:
        """The view called `name`; DefinitionError with near matches."""
        return _found("view", name, self._views)

    def service(self, name: str) -> FeatureServiceDef:
        """The service called `name`; DefinitionError with near matches."""
        return _found("service", name, self._services)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CatalogContents):
            return NotImplemented
        return (self._entities, self._views, self._services) == (
            other._entities,
            other._views,
            other._services,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        counts = f"{len(self._views)} views, {len(self._services)} services, {len(self._entities)} entities"
        return f"<{type(self).__name__}: {counts}>"


def _found(kind: str, name: str, known: Mapping[str, _T]) -> _T:
    try:
        return known[name]
    except KeyError:
        hint = did_you_mean(name, known) or f"The project has no {kind}."
        raise DefinitionError(f"unknown {kind} {name!r}", hint=hint) from None
