"""Pooling and lookup against float64, over ids that repeat, are unknown or NULL, and over empty lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from daedalus.pipelines.enrich.udfs import UdfBatch, avg_pool_embeddings_udf, lookup_embedding_udf

ROWS = 12
PATIENT = settings(deadline=None)  # the first example compiles the kernel


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], np.ndarray]:
    dimension = draw(st.integers(1, 5))
    dtype = draw(st.sampled_from(["float16", "float32"]))
    count = draw(st.integers(1, ROWS))
    seed = draw(st.integers(0, 2**32 - 1))
    scale = draw(st.sampled_from([1e-6, 1.0, 100.0]))
    vectors = (np.random.default_rng(seed).standard_normal((count, dimension)) * scale).astype(dtype)
    lists = draw(st.lists(st.lists(st.integers(-1, count - 1), max_size=8), max_size=ROWS))
    return lists, vectors


def as_batch(lists: list[list[int]], vectors: np.ndarray) -> UdfBatch:
    return UdfBatch(
        ids=pa.array(lists, pa.list_(pa.int64())),
        offsets=np.cumsum([0, *map(len, lists)]).astype(np.int64),
        slots=np.array([slot for one in lists for slot in one], dtype=np.int64),
        vectors=vectors,
    )


@PATIENT
@given(batches())
def test_mean_of_the_vectors_found(case: tuple[list[list[int]], np.ndarray]) -> None:
    lists, vectors = case
    answer = avg_pool_embeddings_udf(as_batch(lists, vectors)).to_pylist()
    step = float(np.finfo(vectors.dtype).eps)
    tiny = float(np.finfo(vectors.dtype).smallest_subnormal)
    for slots, value in zip(lists, answer, strict=True):
        found = vectors[[slot for slot in slots if slot >= 0]].astype(np.float64)
        if not len(found):
            assert value is None
            continue
        # Half a unit of the stored dtype, and float32's own rounding of each addition.
        bound = step * np.abs(found.mean(axis=0)) + 2**-20 * np.abs(found).sum(axis=0) + tiny
        assert (np.abs(np.array(value) - found.mean(axis=0)) <= bound).all()


@PATIENT
@given(batches(), st.integers(0, ROWS))
def test_rows_do_not_see_one_another(case: tuple[list[list[int]], np.ndarray], cut: int) -> None:
    lists, vectors = case
    whole = avg_pool_embeddings_udf(as_batch(lists, vectors))
    parts = [avg_pool_embeddings_udf(as_batch(some, vectors)) for some in (lists[:cut], lists[cut:])]
    assert pa.concat_arrays(parts).equals(whole)


@PATIENT
@given(batches())
def test_lookup_is_the_vector_itself(case: tuple[list[list[int]], np.ndarray]) -> None:
    lists, vectors = case
    slots = [one[0] if one else -1 for one in lists]
    answer = lookup_embedding_udf(as_batch([[slot] for slot in slots], vectors)).to_pylist()
    assert answer == [vectors[slot].tolist() if slot >= 0 else None for slot in slots]
