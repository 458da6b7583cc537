"""Finished days as data: an Arrow dataset, a Polars frame, or batches, shuffled and sharded, for training."""

from __future__ import annotations

from daedalus.reading.batches import BatchStream
from daedalus.reading.days import TrainingData

__all__ = ["BatchStream", "TrainingData"]
