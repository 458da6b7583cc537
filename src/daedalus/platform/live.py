"""A project as a long-running process sees it: definitions and configuration as the files say now."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from daedalus.operator_config import config_path
from daedalus.platform.registry import PlatformRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.project import RunOptions

_Stamp = tuple[tuple[str, int, int], ...]


class _Snapshot(PlatformRegistry):
    """A registry that reads the configuration once."""

    _config: TrainingRunConfig | None = None

    def config(self, options: RunOptions | None = None) -> TrainingRunConfig:
        """The configuration of a run, kept unless options change it."""
        if options is not None:
            return super().config(options)
        if self._config is None:
            self._config = super().config()
        return self._config


class LiveProject:
    """Hands out a registry, a new one when a file of the project has changed.

    Args:
        root: the project's folder.

    Raises:
        DefinitionError: the folder holds no views.
    """

    def __init__(self, root: Path | str = ".") -> None:
        self._registry: PlatformRegistry = _Snapshot.open(root)
        self._stamp: _Stamp | None = None
        self._lock = threading.Lock()

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self._registry.project_root

    def current(self) -> PlatformRegistry:
        """The project as its files say now."""
        stamp = tuple(sorted(self._files()))
        with self._lock:
            if stamp != self._stamp:
                self._registry = _Snapshot.open(self.root)
                self._stamp = stamp
            return self._registry

    def _files(self) -> Iterator[tuple[str, int, int]]:
        folders = (self._registry.views_dir, self._registry.services_dir, self.root / "config")
        files = [config_path(), *(file for folder in folders for file in folder.rglob("*.y*ml"))]
        for file in files:
            try:
                found = file.stat()
            except OSError:
                continue
            yield str(file), found.st_mtime_ns, found.st_size
