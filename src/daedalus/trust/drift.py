"""How far one day's values of a column are from another's: PSI and Jensen-Shannon divergence over shared bins.

With p and q the shares of the two days in each bin (NULL is a bin):

- PSI, the population stability index: sum((p - q) * ln(p / q)), the symmetric Kullback-Leibler divergence
  (Kullback & Leibler, *On Information and Sufficiency*, 1951; under its name in N. Siddiqi, *Credit Risk
  Scorecards*, 2006). Below 0.1 is read as stable, from 0.25 on as a shift. A bin that one day lacks would make it
  infinite: half a row is added to every bin.
- Jensen-Shannon divergence, base 2: H((p + q) / 2) - (H(p) + H(q)) / 2, between 0 and 1, of counts as they are
  (J. Lin, *Divergence Measures Based on the Shannon Entropy*, 1991).

Two samples of one distribution have a PSI above zero, too: it is close to chi-square with B - 1 degrees of freedom
times (1/n + 1/m) (B. Yurdakul, *Statistical Properties of Population Stability Index*, 2018). A drift is flagged when
PSI exceeds both the threshold and the 99 % point of that, so small days raise no alarm by chance. Rows of one user
resemble each other: where a column is looked up or aggregated by a key, n and m are the days' different keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.storage.column_stats import aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daedalus.storage.column_stats import Aligned, ColumnStats

STABLE, SHIFTED = 0.1, 0.25
#: Bins that hold less of both days together are merged: with their neighbour, or into `other` where there is no order.
LEAST_SHARE = 0.02
OTHER = "other"
#: The normal distribution's 99 % point.
_Z99 = 2.3263478740408408


@dataclass(frozen=True, slots=True)
class Bins:
    """Days over the same bins: labels, and per day the rows of each bin."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The distance of two days' values.

    Attributes:
        noise: the PSI that two samples of these sizes stay below in 99 of 100 cases without any drift.
        moved: the bin whose share changed most, its label and both shares.
    """

    psi: float
    js: float
    noise: float
    moved: tuple[str, float, float]

    @property
    def level(self) -> str:
        """`shifted`, `moved` or `stable`."""
        if self.psi <= max(STABLE, self.noise):
            return "stable"
        return "shifted" if self.psi > max(SHIFTED, self.noise) else "moved"


def drift_between(
    one: ColumnStats, other: ColumnStats, samples: tuple[int, int] | None = None
) -> Drift | None:
    """The drift from one day's column to the other's; None where they cannot be compared, or a day has no rows.

    Args:
        one: the earlier day.
        other: the later day.
        samples: how many independent samples the days' rows stand for, such as their different users; None is the
            rows themselves.
    """
    bins = merged_bins(aligned([one, other]))
    if not bins.labels or not all(sum(counts) for counts in bins.counts):
        return None
    left, right = bins.counts
    rows = sum(left), sum(right)
    shares = [(a / rows[0], b / rows[1]) for a, b in zip(left, right, strict=True)]
    most = max(range(len(shares)), key=lambda n: abs(shares[n][0] - shares[n][1]))
    return Drift(
        psi=psi(left, right),
        js=jensen_shannon(left, right),
        noise=psi_noise(len(shares), *(samples or rows)),
        moved=(bins.labels[most], *shares[most]),
    )


def psi(one: Sequence[int], other: Sequence[int]) -> float:
    """The population stability index of two counts over the same bins; half a row is added to each.

    >>> round(psi([50, 50], [50, 50]), 6), round(psi([900, 100], [600, 400]), 3)
    (0.0, 0.536)
    """
    p, q = _shares(one, 0.5), _shares(other, 0.5)
    return sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))


def jensen_shannon(one: Sequence[int], other: Sequence[int]) -> float:
    """The Jensen-Shannon divergence of two counts over the same bins, in bits: 0 equal, 1 nothing in common.

    >>> jensen_shannon([3, 0], [0, 9]), jensen_shannon([1, 1], [2, 2])
    (1.0, 0.0)
    """
    p, q = _shares(one, 0.0), _shares(other, 0.0)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return max(_entropy(middle) - (_entropy(p) + _entropy(q)) / 2, 0.0)


def psi_noise(bins: int, rows: int, other_rows: int) -> float:
    """The 99 % point of PSI between two samples of one distribution.

    The chi-square's by E. B. Wilson and M. M. Hilferty, *The Distribution of Chi-square*, 1931.

    >>> round(psi_noise(11, 1000, 1000), 4)
    0.0465
    """
    degrees = bins - 1
    if degrees < 1 or not rows or not other_rows:
        return 0.0
    spread = 2 / (9 * degrees)
    point = degrees * (1 - spread + _Z99 * math.sqrt(spread)) ** 3
    return point * (1 / rows + 1 / other_rows)


def merged_bins(found: Aligned) -> Bins:
    """Aligned days with their rare bins merged, so that single rows do not look like drift."""
    total = sum(map(sum, found.counts))
    kept: list[_Bin] = []
    rare: list[_Bin] = []
    pending: list[_Bin] = []
    for number, (label, edges) in enumerate(zip(found.labels, found.edges, strict=True)):
        one = (label, tuple(counts[number] for counts in found.counts))
        if edges is None:
            big = sum(one[1]) >= LEAST_SHARE * total or label in _ASIDE
            (kept if big else rare).append(one)
            continue
        pending.append(one)
        if sum(sum(counts) for _, counts in pending) >= LEAST_SHARE * total:
            kept.append(_joined(pending))
            pending = []
    if pending:
        neighbour = [kept.pop()] if kept and kept[-1][0] not in _ASIDE else []
        kept.append(_joined([*neighbour, *pending]))
    if rare:
        kept.append((OTHER, _sums(rare)))
    return Bins(tuple(label for label, _ in kept), tuple(zip(*(counts for _, counts in kept), strict=True)))


_Bin = tuple[str, tuple[int, ...]]
_ASIDE = frozenset({"NULL", "NaN"})


def _joined(bins: Sequence[_Bin]) -> _Bin:
    """Neighbouring bins as one."""
    low, high = bins[0][0].partition(" to ")[0], bins[-1][0].rpartition(" to ")[2]
    return low if low == high else f"{low} to {high}", _sums(bins)


def _sums(bins: Sequence[_Bin]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*(counts for _, counts in bins), strict=True)))


def _shares(counts: Sequence[int], added: float) -> list[float]:
    total = sum(counts) + added * len(counts)
    return [(count + added) / total for count in counts]


def _entropy(shares: Sequence[float]) -> float:
    return -sum(share * math.log2(share) for share in shares if share > 0)
