"""What a training run is told from outside: layered YAML files, environment and flags, as one object.

Precedence, strongest first: flag, environment (`DAEDALUS_...`), `runtime.yaml` / `aggregations.yaml`,
`base.yaml`, the operator's own defaults, the documented default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.pipelines.settings.run_config import (
    DEFAULT_DATA_ROOT,
    ComputeConfig,
    EmbeddingCoverageFilter,
    EmbeddingStoreConfig,
    EnrichmentSpec,
    OnlineStoreConfig,
    SinkConfig,
    TrainingRunConfig,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULT_DATA_ROOT",
    "ComputeConfig",
    "EmbeddingCoverageFilter",
    "EmbeddingStoreConfig",
    "EnrichmentSpec",
    "OnlineStoreConfig",
    "SinkConfig",
    "TrainingRunConfig",
    "load_training_config",
]


def load_training_config(
    project_root: Path | str = ".",
    *,
    runtime_path: Path | str | None = None,
    aggregation_path: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    operator_defaults: Mapping[str, Any] | None = None,
) -> TrainingRunConfig:
    """The configuration of a run in this project.

    Args:
        project_root: the folder that holds `config/`.
        runtime_path: in place of `config/training/runtime.yaml`; relative to the working directory.
        aggregation_path: in place of `config/training/aggregations.yaml`, likewise.
        overrides: flags by key; a None is a flag that was not given.
        operator_defaults: from the operator's `config.toml`, weaker than every file of the project.

    Raises:
        DefinitionError: with every problem of the files, each with its file, line and near matches.
    """
    # pydantic-settings costs more than the whole command line: only loaded when a configuration is.
    from daedalus.pipelines.settings.loading import load

    return load(
        Path(project_root).absolute(),
        runtime_path=None if runtime_path is None else Path(runtime_path),
        aggregation_path=None if aggregation_path is None else Path(aggregation_path),
        overrides={key: value for key, value in (overrides or {}).items() if value is not None},
        operator_defaults=dict(operator_defaults or {}),
    )
