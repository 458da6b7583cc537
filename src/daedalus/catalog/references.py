"""`${base.name}`: a project constant of `config/base.yaml`, written where a definition needs its value.

A scalar that is nothing but one reference takes the constant's own type
(`max_items: ${base.max_like_artworks_len}`); inside longer text the constant is written out; as an item of a
list, a list constant is spliced in. A flow mapping (`{dimension: "${base.artwork_embed_dim}"}`) needs the
quotes. `${NAME}` without `base.` is an environment variable and is left alone: the dot keeps the two apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daedalus.catalog.yaml_reader import Steps

_REFERENCE = re.compile(r"\$\{base\.([^{}]*)\}")


def expand_references(
    tree: Any,
    constants: Mapping[str, Any],
    *,
    locate: Callable[[Steps], str],
    on_splice: Callable[[Steps], None] = lambda _: None,
) -> tuple[Any, list[DefinitionError]]:
    """A copy of a YAML tree with its references replaced, and a problem for each unknown one.

    Args:
        tree: what the YAML reader returned.
        constants: the values of `base.yaml`.
        locate: says where a path of the tree stands, for messages.
        on_splice: called with the path of each list whose items moved because a constant was spliced in.

    >>> tree = {"max_items": "${base.n}", "names": ["a", "${base.more}"]}
    >>> expand_references(tree, {"n": 32, "more": ["b", "c"]}, locate=str)
    ({'max_items': 32, 'names': ['a', 'b', 'c']}, [])
    """
    problems: list[DefinitionError] = []

    def constant(name: str, path: Steps) -> Any:
        if name in constants:
            return constants[name]
        problems.append(
            DefinitionError(
                f"unknown constant ${{base.{name}}}", where=locate(path), hint=did_you_mean(name, constants)
            )
        )
        return f"${{base.{name}}}"

    def text(value: str, path: Steps) -> Any:
        whole = _REFERENCE.fullmatch(value.strip())
        if whole:
            return constant(whole[1], path)
        return _REFERENCE.sub(lambda match: str(constant(match[1], path)), value)

    def items(values: list[Any], path: Steps) -> list[Any]:
        out: list[Any] = []
        for index, value in enumerate(values):
            new = walk(value, (*path, index))
            if isinstance(value, str) and isinstance(new, list):
                if len(new) != 1:
                    on_splice(path)
                out.extend(new)
            else:
                out.append(new)
        return out

    def walk(node: Any, path: Steps) -> Any:
        if isinstance(node, str):
            return text(node, path) if "${base." in node else node
        if isinstance(node, dict):
            return {key: walk(value, (*path, key)) for key, value in node.items()}
        return items(node, path) if isinstance(node, list) else node

    return walk(tree, ()), problems
