"""The definitions as text: what a person edits, secrets masked, and the pipeline that would run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.errors import DefinitionError
from daedalus.secrets import mask

if TYPE_CHECKING:
    from daedalus.platform.registry import PlatformRegistry


def view_yaml(registry: PlatformRegistry, name: str) -> str:
    """The file of a view.

    Raises:
        DefinitionError: no such view, or its file is gone.
    """
    return _text(registry, registry.catalog.view(name).file)


def service_yaml(registry: PlatformRegistry, name: str) -> str:
    """The file of a service.

    Raises:
        DefinitionError: no such service, or its file is gone.
    """
    return _text(registry, registry.catalog.service(name).file)


def pipeline_yaml(registry: PlatformRegistry, service: str) -> str:
    """The operators that `train` would run: of the hand-edited file when there is one, else compiled now.

    Raises:
        DefinitionError: no such service.
        CompileError: it does not make a pipeline.
    """
    from daedalus.pipelines.pipeline_files import pipeline_to_yaml

    return mask(pipeline_to_yaml(registry.pipeline(service, registry.config())))


def _text(registry: PlatformRegistry, file: str) -> str:
    try:
        return mask(registry.definition_file(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"the file cannot be read: {error}", where=file) from error
