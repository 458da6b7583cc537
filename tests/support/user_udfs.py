"""UDFs as a user's project might hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from daedalus.pipelines.enrich.udfs import UdfBatch

NOT_A_FUNCTION = 7


def found_count(batch: UdfBatch) -> pa.Array:
    """How many of each row's ids the store has, as a list of one."""
    counts = np.add.reduceat(np.append(batch.slots >= 0, False).astype(np.float64), batch.offsets[:-1])
    counts[np.diff(batch.offsets) == 0] = 0
    return pa.FixedSizeListArray.from_arrays(pa.array(counts), 1).cast(pa.list_(pa.float64()))


class CountingCalls:
    """A UDF with state: it is made once per worker."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def __call__(self, batch: UdfBatch) -> pa.Array:
        return found_count(batch)


def fails(batch: UdfBatch) -> pa.Array:
    """Always."""
    raise RuntimeError(f"no model for {batch.rows} rows")


def wrong_type(batch: UdfBatch) -> pa.Array:
    return pa.array([[1]] * batch.rows, pa.list_(pa.int64()))


def wrong_width(batch: UdfBatch) -> pa.Array:
    return pa.array([None, *[[1.0, 2.0]] * (batch.rows - 1)], pa.list_(pa.float64()))


def too_few_rows(batch: UdfBatch) -> pa.Array:
    return pa.array([[1.0]] * (batch.rows - 1), pa.list_(pa.float64()))


def not_arrow(batch: UdfBatch) -> object:
    return [[1.0]] * batch.rows
