"""A thin `IterableDataset` over a `BatchStream`; torch is imported when one is made."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from daedalus.errors import MissingExtraError
from daedalus.reading.arrays import to_numpy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from daedalus.reading.batches import BatchStream


def torch_dataset(stream: BatchStream, dimensions: Mapping[str, int]) -> Any:
    """The dataset over a stream; `dimensions` as for `NumpyBatches`.

    Raises:
        MissingExtraError: torch is not installed.
    """
    return _dataset_class()(stream, dimensions)


def own_place() -> tuple[int, int]:
    """Rank and world size of this process: those of `torch.distributed` where it is initialized, else 0 and 1.

    Raises:
        MissingExtraError: torch is not installed.
    """
    distributed = _torch().distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def to_tensors(batch: pa.RecordBatch, dimensions: Mapping[str, int]) -> dict[str, Any]:
    """Tensors by name; times as microseconds since 1970, what has no tensor type as lists."""
    torch = _torch()
    out: dict[str, Any] = {}
    for name, values in to_numpy(batch, dimensions).items():
        if values.dtype == object:
            out[name] = values.tolist()
            continue
        numbers = values.astype("datetime64[us]").astype(np.int64) if values.dtype.kind == "M" else values
        # Arrow's memory is read-only, and torch's is not.
        out[name] = torch.from_numpy(np.require(numbers, requirements=["C", "W"]))
    return out


@cache
def _dataset_class() -> Any:
    torch = _torch()

    base: Any = torch.utils.data.IterableDataset

    class TrainingDataset(base):  # type: ignore[misc]
        """Batches of tensors by name, already batched: give the loader `batch_size=None`."""

        def __init__(self, stream: BatchStream, dimensions: Mapping[str, int]) -> None:
            super().__init__()
            self.stream = stream
            self.dimensions = dimensions

        def set_epoch(self, epoch: int) -> None:
            """Say which epoch the next iteration reads; before the loader starts its workers."""
            self.stream.set_epoch(epoch)

        def __iter__(self) -> Iterator[dict[str, Any]]:
            worker = torch.utils.data.get_worker_info()
            stream = self.stream if worker is None else self.stream.for_worker(worker.id, worker.num_workers)
            for batch in stream:
                yield to_tensors(batch, self.dimensions)

        def __reduce__(self) -> tuple[Any, ...]:
            # The class is made where torch is: a worker makes its own.
            return torch_dataset, (self.stream, self.dimensions)

    return TrainingDataset


def _torch() -> Any:
    try:
        import_module("torch.utils.data")
        import_module("torch.distributed")
        return import_module("torch")
    except ImportError as error:
        raise MissingExtraError("torch is not installed", hint="pip install torch") from error
