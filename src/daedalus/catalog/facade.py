"""The one read boundary over a project's definitions: what surfaces, lineage, versions and reports read them through.

Nobody above parses YAML or looks into the catalog's parts. Plain data goes to people and programs, frozen
definitions to code that goes on with them; secrets are masked in the plain data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import FeatureColumnRef, Unset
from daedalus.errors import DefinitionError
from daedalus.secrets import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.logical_schema import Schema
    from daedalus.catalog.model import FeatureServiceDef, FeatureViewDef
    from daedalus.catalog.registry import FeatureCatalog


def _as_it_is(service: FeatureServiceDef) -> FeatureServiceDef:
    return service


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFacade:
    """A project's definitions, for reading.

    Attributes:
        catalog: entities, views and services.
        project_root: file names are shown relative to it.
        specs: the rolling specs of `aggregations.yaml`.
        embeddings: what makes each embedding column, as `service_schema` takes it.
        resolve: a service as training resolves it: columns and references filled in.
    """

    catalog: FeatureCatalog
    project_root: Path = field(default_factory=Path)
    specs: tuple[AggregationSpec, ...] = ()
    embeddings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resolve: Callable[[FeatureServiceDef], FeatureServiceDef] = _as_it_is

    # ------------------------------------------------------------------ views

    def view(self, name: str) -> FeatureViewDef:
        """A view; DefinitionError with near matches."""
        return self.catalog.view(name)

    def list_views(self) -> list[dict[str, Any]]:
        """Every view in short, by name."""
        return [_view_line(view) for _, view in sorted(self.catalog.views.items())]

    def show_view(self, name: str) -> dict[str, Any]:
        """One view as plain data: every field of its definition; secrets masked."""
        view = self.catalog.view(name)
        plain: dict[str, Any] = describe(view)
        return plain | {
            "entities": [entity.name for entity in view.entities],
            "join_keys": view.join_keys,
            "field_mapping": dict(view.field_mapping),
            "file": self._relative(view.file),
        }

    # ------------------------------------------------------------------ services

    @property
    def service_names(self) -> tuple[str, ...]:
        """The names of the services, sorted."""
        return tuple(sorted(self.catalog.services))

    def service(self, name: str) -> FeatureServiceDef:
        """A service as training resolves it; DefinitionError with near matches."""
        return self.resolve(self.catalog.service(name))

    def list_services(self) -> list[dict[str, Any]]:
        """Every service in short, by name."""
        return [_service_line(service) for _, service in sorted(self.catalog.services.items())]

    def show_service(self, name: str) -> dict[str, Any]:
        """One service as plain data: every field of its definition, references as `view:column`."""
        service = self.catalog.service(name)
        plain: dict[str, Any] = describe(service)
        return plain | {"file": self._relative(service.file)}

    def schema(self, name: str) -> Schema:
        """The logical schema of a service, as the lock file holds it."""
        from daedalus.catalog.logical_schema import service_schema

        return service_schema(self.service(name), self.catalog, specs=self.specs, embeddings=self.embeddings)

    def schemas(self) -> dict[str, Schema]:
        """The logical schema of every service, by name.

        Raises:
            DefinitionError: services that do not resolve, all of them in one error.
        """
        found: dict[str, Schema] = {}
        problems: list[DefinitionError] = []
        for name in self.service_names:
            try:
                found[name] = self.schema(name)
            except DefinitionError as error:
                problems.append(error)
        if problems:
            raise DefinitionError.gather(problems)
        return found

    def descriptions(self, name: str) -> dict[str, str]:
        """Output column to the description of the field it is, where it is one and has one."""
        service = self.service(name)
        views = {service.spine: service.spine} | {join.alias: join.view for join in service.views}
        found = {}
        for column in service.columns:
            if column.ref is not None and column.ref.view in views:
                view = self.catalog.view(views[column.ref.view])
                if view.has_field(column.ref.column) and view.field(column.ref.column).description:
                    found[column.name] = view.field(column.ref.column).description
        return found

    def _relative(self, file: str) -> str:
        path = Path(file)
        inside = path.is_relative_to(self.project_root)
        return path.relative_to(self.project_root).as_posix() if inside else file


def describe(value: Any) -> Any:
    """A frozen description as plain data, fields in order, secrets masked."""
    if isinstance(value, FeatureColumnRef):
        return str(value)
    if hasattr(value, "to_mapping"):
        return value.to_mapping()
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        named = ((item.name, getattr(value, item.name)) for item in fields(value))
        return {name: describe(item) for name, item in named if item is not Unset.UNSET}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    return mask(value) if isinstance(value, str) else value


def _view_line(view: FeatureViewDef) -> dict[str, Any]:
    return {
        "name": view.name,
        "entities": [entity.name for entity in view.entities],
        "keys": view.join_keys,
        "fields": len(view.fields),
        "source": mask(view.source.path or view.source.database_path),
        "owner": view.owner,
        "tags": list(view.tags),
        "description": view.description,
    }


def _service_line(service: FeatureServiceDef) -> dict[str, Any]:
    return {
        "name": service.name,
        "version": service.version,
        "spine": service.spine,
        "views": [view.alias for view in service.views],
        "columns": len(service.columns),
        "serving_allowed": service.serving_allowed,
        "owner": service.owner,
        "tags": list(service.tags),
        "description": service.description,
    }
