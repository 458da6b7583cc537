"""Experiment trackers: finished runs, shown where people compare experiments. Off unless `tracking` says otherwise.

    get_tracker(config).log_run(TrackedRun.of(record, config.to_dict()))

The run records are the truth; a tracker shows a copy of them.
"""

from __future__ import annotations

from daedalus.tracking.base import ExperimentTracker, NullTracker, TrackedMetric, TrackedRun
from daedalus.tracking.choosing import get_tracker
from daedalus.tracking.mlflow_tracker import MLflowTracker

__all__ = [
    "ExperimentTracker",
    "MLflowTracker",
    "NullTracker",
    "TrackedMetric",
    "TrackedRun",
    "get_tracker",
]
