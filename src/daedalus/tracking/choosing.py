"""Which tracker a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.tracking.base import NullTracker
from daedalus.tracking.mlflow_tracker import MLflowTracker

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.tracking.base import ExperimentTracker


def get_tracker(config: TrainingRunConfig) -> ExperimentTracker:
    """The tracker that `tracking` names. Nothing is imported or opened before it logs a run.

    >>> from daedalus.pipelines.settings import TrainingRunConfig
    >>> type(get_tracker(TrainingRunConfig())).__name__
    'NullTracker'
    """
    if config.tracking == "none":
        return NullTracker()
    return MLflowTracker(folder=tracking_folder(config))


def tracking_folder(config: TrainingRunConfig) -> Path:
    """Where a tracker keeps what it keeps on this machine."""
    return config.output_path / "_mlflow"
