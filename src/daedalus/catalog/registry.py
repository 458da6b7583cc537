"""The catalog: every entity, view and service of a project, loaded and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.catalog.contents import CatalogContents
from daedalus.catalog.entities import ENTITIES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from typing import Any

__all__ = ["ENTITIES", "FeatureCatalog"]


class FeatureCatalog(CatalogContents):
    """What the features of a project are.

    Attributes:
        entities: by name; the shipped ones among them.
        views: by name, in order of their files.
        services: by name, in order of their files.
    """

    __slots__ = ()

    @classmethod
    def from_yaml_dir(
        cls,
        views_dir: str | PathLike[str],
        *,
        services_dir: str | PathLike[str] | None = None,
        entities_file: str | PathLike[str] | None = None,
        constants: Mapping[str, Any] | None = None,
        rolling: Mapping[str, str] | None = None,
    ) -> FeatureCatalog:
        """Load a project's definitions.

        Args:
            views_dir: the folder of the views' YAML files, one view each.
            services_dir: the folder of the services' files; None loads no services.
            entities_file: the project's own entities; `entities.yaml` beside the views when there is one.
            constants: what `${base.name}` stands for, from `config/base.yaml`.
            rolling: rolling columns whose specs live in `aggregations.yaml`: name to dtype, empty when
                unknown. Expressions may read them, and those that the service's `columns` name.

        Raises:
            DefinitionError: every problem of all files, each with file, line, path and mend.
        """
        from daedalus.catalog.loader import load_definitions

        found = load_definitions(
            views_dir,
            services_dir=services_dir,
            entities_file=entities_file,
            constants=constants or {},
            rolling=rolling or {},
        )
        return cls(entities=found.entities, views=found.views.values(), services=found.services.values())
