"""A project as Dagster sees it: its registry, where its output goes, and names that Dagster accepts."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.platform.project import RunOptions
from daedalus.platform.registry import PlatformRegistry

if TYPE_CHECKING:
    from collections.abc import Iterable

TRAINING, VIEWS, STORES = "training", "views", "stores"


@dataclass(frozen=True, slots=True, kw_only=True)
class DagsterProject:
    """A project.

    Attributes:
        options: of every run. They hold the output root where the project is not the working directory: Dagster's
            processes do not choose theirs.
    """

    registry: PlatformRegistry
    options: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def open(cls, root: Path | str) -> DagsterProject:
        """The project in this folder."""
        registry = PlatformRegistry.open(root)
        here = Path.cwd()
        output = Path(registry.config().output_root)
        if registry.project_root.resolve() == here.resolve() or not output.is_relative_to(here):
            return cls(registry=registry)
        moved = registry.project_root / output.relative_to(here)
        return cls(registry=registry, options=RunOptions(overrides={"output_root": str(moved)}))

    def days(self) -> tuple[dt.date, dt.date]:
        """The first day of the configured months, and the first day after them."""
        first, last = self.registry.config(self.options).feed_days
        return first, last + dt.timedelta(days=1)


def asset_key(kind: str, name: str) -> list[str]:
    """The key of a view's, a store's or a service's asset."""
    return [kind, name]


def dagster_names(names: Iterable[str]) -> dict[str, str]:
    """A name that Dagster takes for ops and jobs, for each: letters, digits and underscores, all different.

    >>> dagster_names(["ranking", "a-b", "a.b"])
    {'ranking': 'ranking', 'a-b': 'a_b', 'a.b': 'a_b_2'}
    """
    found: dict[str, str] = {}
    for name in names:
        base = re.sub(r"\W", "_", name, flags=re.ASCII)
        number = 1
        while (f"{base}_{number}" if number > 1 else base) in found.values():
            number += 1
        found[name] = f"{base}_{number}" if number > 1 else base
    return found
