"""The torch dataset, against a stand-in for torch: a real one is gigabytes."""

from __future__ import annotations

import pickle
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from daedalus.errors import MissingExtraError
from daedalus.reading import torch_dataset
from reading.days import days_of

if TYPE_CHECKING:
    import numpy as np

ROWS = 1000


@dataclass
class Worker:
    id: int
    num_workers: int


class FakeTensor:
    """What `torch.from_numpy` takes: writable, contiguous, of a numeric type."""

    def __init__(self, values: np.ndarray) -> None:
        assert values.flags.writeable
        assert values.flags.c_contiguous
        assert values.dtype.kind in "biuf"
        self.values = values


class Iterable:
    """Stands in for `IterableDataset`."""


@pytest.fixture
def torch(monkeypatch) -> Any:
    """A stand-in for torch, in one process, outside a loader, until a test says otherwise."""
    module, utils, data, distributed = map(
        types.ModuleType, ("torch", "torch.utils", "torch.utils.data", "torch.distributed")
    )
    data.IterableDataset = Iterable
    data.get_worker_info = lambda: None
    distributed.is_available = lambda: True
    distributed.is_initialized = lambda: False
    module.from_numpy = FakeTensor
    module.utils, utils.data, module.distributed = utils, data, distributed
    for one in (module, utils, data, distributed):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    torch_dataset._dataset_class.cache_clear()
    yield module
    torch_dataset._dataset_class.cache_clear()


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    return days_of(tmp_path_factory.mktemp("days"), [[400], [600]], row_group=64)


def numbers(dataset) -> list[int]:
    return [n for batch in dataset for n in batch["n"].values.tolist()]


def test_batches_are_tensors_by_name(torch, days):
    dataset = days.torch(100)
    assert isinstance(dataset, Iterable)
    (first, *_) = dataset
    assert set(first) == {"n", "n.valid", "items", "items.offsets", "items.valid", "text", "text.valid"}
    assert first["n"].values.tolist() == list(range(100))
    assert first["items.offsets"].values[:4].tolist() == [0, 0, 1, 3]
    assert first["text"][:2] == [None, "t1"]
    assert numbers(dataset) == list(range(ROWS))


def test_workers_of_a_loader_share_the_rows(torch, days, monkeypatch):
    dataset = days.torch(64, seed=5)
    dataset.set_epoch(3)
    seen = []
    for worker in range(3):
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda worker=worker: Worker(worker, 3))
        seen += numbers(pickle.loads(pickle.dumps(dataset)))
    assert seen != sorted(seen)
    assert sorted(seen) == list(range(ROWS))


def test_ranks_are_those_of_torch_distributed(torch, days, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    torch.distributed.get_world_size = lambda: 3
    seen = []
    for rank in range(3):
        torch.distributed.get_rank = lambda rank=rank: rank
        part = numbers(days.torch(64, seed=5))
        assert len(part) == ROWS // 3
        seen += part
    assert len(set(seen)) == ROWS - 1
    assert len(numbers(days.torch(64, rank=0, world_size=1))) == ROWS


def test_without_torch_the_error_says_what_to_install(days, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    torch_dataset._dataset_class.cache_clear()
    with pytest.raises(MissingExtraError, match="pip install torch"):
        days.torch()
