"""One configuration layer (a file, the environment, the flags) and how its problems are located."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from pathlib import Path

TreePath = tuple[str | int, ...]


@dataclass(slots=True, kw_only=True)
class Layer:
    """What one source of settings says.

    Attributes:
        label: the file relative to the project, or how a person names the source.
        lines: the line of each path in the tree; empty for sources that are not files.
    """

    label: str
    data: dict[str, Any]
    lines: dict[TreePath, int] = field(default_factory=dict)
    path: Path | None = None

    def holds(self, path: TreePath) -> bool:
        """Whether this layer says something at the path."""
        node: Any = self.data
        try:
            for part in path:
                node = node[part]
        except (KeyError, IndexError, TypeError):
            return False
        return True

    def locate(self, path: TreePath) -> str:
        """`config/base.yaml:3, $.compute.engine`."""
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        place = f"{self.label}:{line}" if line else self.label
        return f"{place}, {dollar(path)}" if path else place


def dollar(path: TreePath) -> str:
    """The path as text.

    >>> dollar(("stores", 0, "name"))
    '$.stores[0].name'
    """
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def read_layer(path: Path, label: str) -> tuple[Layer, list[DefinitionError]]:
    """The file as a layer, with a problem for each duplicate key; not YAML or not a mapping raises."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DefinitionError("the file does not exist", where=label) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise DefinitionError(f"the file cannot be read: {exc}", where=label) from exc
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        place = f"{label}:{mark.line + 1}" if mark else label
        raise DefinitionError(f"not valid YAML: {exc.problem}", where=place) from exc
    except yaml.YAMLError as exc:
        raise DefinitionError(f"not valid YAML: {exc}", where=label) from exc
    if data is None:
        return Layer(label=label, data={}, path=path), []
    if not isinstance(data, dict):
        raise DefinitionError("expected a mapping of keys to values", where=f"{label}:1")
    layer = Layer(label=label, data=data, path=path)
    problems: list[DefinitionError] = []
    _index(root, (), layer, problems)
    # `key:` with nothing after it takes the default, as if the line were not there.
    layer.data = {key: value for key, value in data.items() if value is not None}
    return layer, problems


def _index(node: yaml.Node | None, path: TreePath, layer: Layer, problems: list[DefinitionError]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            layer.lines[(*path, index)] = item.start_mark.line + 1
            _index(item, (*path, index), layer, problems)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen:
            problems.append(
                DefinitionError(
                    f"duplicate key {name!r}, first given on line {seen[name]}",
                    where=f"{layer.label}:{line}, {dollar((*path, name))}",
                    hint="Keep one of the two.",
                )
            )
            continue
        seen[name] = line
        layer.lines[(*path, name)] = line
        _index(value, (*path, name), layer, problems)
