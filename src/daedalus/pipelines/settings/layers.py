"""One configuration layer (a file, the environment, the flags) and where its values stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.catalog.yaml_reader import Document, path_text, read_yaml
from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from pathlib import Path

Steps = tuple[str | int, ...]


@dataclass(slots=True, kw_only=True)
class Layer:
    """What one source of settings says.

    Attributes:
        label: the file relative to the project, or how a person names the source.
        document: the file's lines; None for a source that is no file.
    """

    label: str
    data: dict[str, Any]
    document: Document | None = None
    path: Path | None = None

    def holds(self, steps: Steps) -> bool:
        """Whether this layer says something there."""
        node: Any = self.data
        try:
            for step in steps:
                node = node[step]
        except (KeyError, IndexError, TypeError):
            return False
        return True

    def locate(self, steps: Steps) -> str:
        """`config/base.yaml:3, $.compute.engine`."""
        return self.document.locate(steps) if self.document else f"{self.label}, {path_text(steps)}"

    def forget(self, steps: Steps) -> None:
        """Items of this list no longer stand where they were written."""
        if self.document:
            self.document.forget(steps)


def read_layer(path: Path, label: str) -> tuple[Layer, list[DefinitionError]]:
    """The file as a layer, and what is wrong with it; a file of comments alone says nothing."""
    document = read_yaml(path, file=label)
    problems = list(document.problems)
    if [problem.what for problem in problems] == ["the file is empty"]:
        problems = []
    tree = document.tree
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        problems.append(DefinitionError("expected a mapping of keys to values", where=document.locate(())))
        tree = {}
    # `key:` with nothing after it takes the default, as if the line were not there.
    data = {key: value for key, value in tree.items() if value is not None}
    return Layer(label=label, data=data, document=document, path=path), problems
