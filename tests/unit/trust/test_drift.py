"""PSI and Jensen-Shannon against their formulas, and what is called drift."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daedalus.storage.column_sketches import table_sketches
from daedalus.storage.column_stats import ColumnStats, aligned
from daedalus.trust.drift import OTHER, drift_between, jensen_shannon, merged_bins, psi, psi_noise

COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12).filter(
    lambda pairs: sum(a for a, _ in pairs) > 0 and sum(b for _, b in pairs) > 0
)


def stats(values, kind=None) -> ColumnStats:
    (sketch,) = table_sketches(pa.table({"x": pa.array(values, kind)})).values()
    return sketch.stats()


def test_psi_of_the_textbook():
    # Without smoothing: (0.9 - 0.6) ln(0.9 / 0.6) + (0.1 - 0.4) ln(0.1 / 0.4); half a row of a million changes nothing.
    exact = 0.3 * math.log(1.5) + 0.3 * math.log(4)
    assert psi([900_000, 100_000], [600_000, 400_000]) == pytest.approx(exact, abs=1e-4)


def test_jensen_shannon_of_the_textbook():
    # H((p + q) / 2) - (H(p) + H(q)) / 2 of p = (1, 0), q = (1/2, 1/2).
    middle = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert jensen_shannon([8, 0], [5, 5]) == pytest.approx(middle - 0.5)


@given(COUNTS)
def test_both_are_symmetric_and_zero_only_of_equals(pairs):
    one, other = zip(*pairs, strict=True)
    assert psi(one, other) == pytest.approx(psi(other, one))
    assert jensen_shannon(one, other) == pytest.approx(jensen_shannon(other, one), abs=1e-12)
    assert psi(one, one) == 0
    assert psi(one, other) >= 0
    assert 0 <= jensen_shannon(one, other) <= 1 + 1e-12
    assert jensen_shannon(one, [10 * count for count in one]) == pytest.approx(0, abs=1e-9)


def test_the_noise_is_that_of_samples():
    draw = np.random.default_rng(5)
    shares = np.array([0.3, 0.25, 0.2, 0.1, 0.08, 0.07])
    sampled = [psi(draw.multinomial(800, shares), draw.multinomial(1500, shares)) for _ in range(3000)]
    assert np.quantile(sampled, 0.99) == pytest.approx(psi_noise(6, 800, 1500), rel=0.12)


def test_days_of_one_distribution_are_stable():
    draw = np.random.default_rng(1)
    for size in (60, 400, 5000):
        found = drift_between(stats(draw.normal(size=size)), stats(draw.normal(size=size)))
        assert found.level == "stable", (size, found)


@pytest.mark.parametrize(
    ("one", "other", "moved"),
    [
        ([1, 2, 3] * 300, [1, 1, 1, 2, 3] * 200, "1"),
        (["a", "b", "c"] * 300, ["b", "a", "b", "b", "c"] * 200, "b"),
        ([1.5, 2.5, None] * 300, [1.5, 2.5, None, None, None] * 200, "NULL"),
        ([[1], [1, 2], []] * 300, [[1], [1], [1], [1, 2], []] * 200, "1"),
    ],
)
def test_a_shift_names_the_bin_that_moved(one, other, moved):
    found = drift_between(stats(one), stats(other))
    assert found.level in {"moved", "shifted"}
    assert found.moved == (moved, pytest.approx(1 / 3), pytest.approx(3 / 5))


def test_few_samples_of_many_rows_raise_no_alarm():
    # 800 rows, but of 8 users: half of them changed their country, which proves nothing.
    one, other = stats(["a"] * 600 + ["b"] * 200), stats(["a"] * 300 + ["b"] * 500)
    assert drift_between(one, other).level == "shifted"
    assert drift_between(one, other, samples=(8, 8)).level == "stable"


def test_rare_values_are_merged():
    common = ["a"] * 500 + ["b"] * 500
    bins = merged_bins(aligned([stats([*common, "x", "y"]), stats([*common, "z"])]))
    assert bins.labels == ("a", "b", OTHER)
    assert bins.counts == ((500, 500, 2), (500, 500, 1))
    numbers = merged_bins(aligned([stats(list(range(1000))), stats(list(range(0, 2000, 2)))]))
    assert sum(numbers.counts[0]) == sum(numbers.counts[1]) == 1000
    assert all(sum(pair) >= 0.02 * 2000 for pair in zip(*numbers.counts, strict=True))
    assert len(numbers.labels) < 60


def test_what_cannot_be_compared_has_no_drift():
    assert drift_between(stats([], pa.int64()), stats([1, 2])) is None
    assert drift_between(stats([None, None], pa.int64()), stats([None], pa.int64())) is None
    assert drift_between(stats([None, None], pa.int64()), stats([1, 2])).js == 1
