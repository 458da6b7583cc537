"""Load a folder of definitions: all files, all problems, one error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.catalog.contents import CatalogContents
from daedalus.catalog.entities import ENTITIES, read_entities
from daedalus.catalog.references import expand_references
from daedalus.catalog.sections import Section
from daedalus.catalog.service_checks import check_service
from daedalus.catalog.service_reader import ReadService, read_service
from daedalus.catalog.views import read_view
from daedalus.catalog.yaml_reader import read_yaml
from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daedalus.catalog.model import Entity, FeatureViewDef
    from daedalus.catalog.yaml_reader import Steps

ENTITIES_NAME = "entities.yaml"
_SUFFIXES = (".yaml", ".yml")


def load_definitions(
    views_dir: str | os.PathLike[str],
    *,
    services_dir: str | os.PathLike[str] | None,
    entities_file: str | os.PathLike[str] | None,
    constants: Mapping[str, Any],
    rolling: Mapping[str, str],
) -> CatalogContents:
    """See `FeatureCatalog.from_yaml_dir`."""
    loader = _Loader(constants)
    entities = loader.entities(Path(views_dir), entities_file)
    views = loader.views(Path(views_dir), entities)
    catalog = CatalogContents(entities=entities, views=views)
    services = loader.services(Path(services_dir), catalog, rolling) if services_dir is not None else []
    if loader.problems:
        raise DefinitionError.gather(loader.problems)
    return CatalogContents(entities=entities, views=views, services=[read.service for read in services])


class _Loader:
    """One load: the problems so far, and which views they make unreliable."""

    def __init__(self, constants: Mapping[str, Any]) -> None:
        self.constants = constants
        self.problems: list[DefinitionError] = []
        self.broken: set[str] = set()

    def section(self, path: Path) -> Section | None:
        """The root of a file, references replaced; None, and noted, when the file cannot be read."""
        document = read_yaml(path, file=_shown_path(path))
        self.problems += document.problems
        if document.tree is None:
            return None
        spliced: list[Steps] = []
        tree, problems = expand_references(
            document.tree, self.constants, locate=document.locate, on_splice=spliced.append
        )
        self.problems += problems
        for steps in spliced:
            document.forget(steps)
        return Section(document, tree, (), self.problems)

    def entities(self, views_dir: Path, file: str | os.PathLike[str] | None) -> dict[str, Entity]:
        path = Path(file) if file is not None else views_dir / ENTITIES_NAME
        if file is None and not path.is_file():
            return dict(ENTITIES)
        section = self.section(path)
        return dict(ENTITIES) | (read_entities(section) if section is not None else {})

    def views(self, folder: Path, entities: Mapping[str, Entity]) -> list[FeatureViewDef]:
        found: dict[str, FeatureViewDef] = {}
        for path in self.files(folder, "views"):
            before = len(self.problems)
            section = self.section(path)
            view = read_view(section, entities) if section is not None else None
            if view is not None and view.name in found and section is not None:
                hint = f"The other is {found[view.name].file}."
                section.problem(f"the view {view.name!r} is defined twice", "name", hint=hint)
            elif view is not None:
                found[view.name] = view
            if len(self.problems) > before:
                # A file that cannot be read is most often named like its view.
                self.broken |= {view.name if view is not None else path.stem}
        return list(found.values())

    def services(
        self, folder: Path, catalog: CatalogContents, rolling: Mapping[str, str]
    ) -> list[ReadService]:
        found: dict[str, ReadService] = {}
        for path in self.files(folder, "services"):
            section = self.section(path)
            read = read_service(section) if section is not None else None
            if read is None:
                continue
            if read.service.name in found:
                hint = f"The other is {found[read.service.name].service.file}."
                read.section.problem(f"the service {read.service.name!r} is defined twice", "name", hint=hint)
                continue
            found[read.service.name] = read
            check_service(read, catalog, broken=self.broken, rolling=rolling)
        return list(found.values())

    def files(self, folder: Path, kind: str) -> Iterator[Path]:
        """The YAML files of a folder, by name; entities and hidden files left out."""
        try:
            names = sorted(os.listdir(folder))
        except OSError as exc:
            what = f"the folder of the {kind} cannot be read: {exc.strerror or exc}"
            self.problems.append(
                DefinitionError(
                    what, where=_shown_path(folder), hint="Run in the project's folder, or create it."
                )
            )
            return
        for name in names:
            path = folder / name
            if (
                name.endswith(_SUFFIXES)
                and not name.startswith(".")
                and name != ENTITIES_NAME
                and path.is_file()
            ):
                yield path


def _shown_path(path: Path) -> str:
    """The path as messages show it: relative where it lies below the working directory."""
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return path.as_posix()
