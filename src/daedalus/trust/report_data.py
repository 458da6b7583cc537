"""What a report shows, gathered from the definitions' facade and the days' manifests alone; no row is read."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from daedalus.catalog.lineage import NodeKind, Role
from daedalus.catalog.lineage_views import made_by
from daedalus.errors import ExecutionError
from daedalus.pipelines.days.counts import DROPPED, ROWS_IN
from daedalus.pipelines.operators import QID_COLUMN
from daedalus.storage.column_stats import ColumnStats, bin_edges
from daedalus.trust.drift import drift_between

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daedalus.catalog.facade import CatalogFacade
    from daedalus.catalog.lineage import LineageGraph
    from daedalus.metadata.days import DayManifest, DayStore
    from daedalus.trust.drift import Drift

#: A NULL rate that changes by more than this between two days is remarkable.
_NULL_JUMP = 0.1
_GAPS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRows:
    """One day's rows: how many came in, what each filter dropped, how many were written."""

    day: str
    rows_in: int | None
    dropped: tuple[tuple[str, int], ...]
    rows: int
    size: int
    written_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnReport:
    """One column over the days.

    Attributes:
        stats: per day; None where the day lacks the column or its statistics.
        drift: per day against the day before; None for the first and where they cannot be compared.
        since_first: the last day against the first.
        remarks: what a person should look at, one sentence each.
        origins: (role, field) pairs of its lineage.
    """

    name: str
    arrow_type: str
    description: str
    made: str
    stats: tuple[ColumnStats | None, ...]
    drift: tuple[Drift | None, ...]
    since_first: Drift | None
    remarks: tuple[str, ...]
    origins: tuple[tuple[str, str], ...]

    @property
    def last(self) -> ColumnStats | None:
        """The statistics of the last day that has some."""
        return next((one for one in reversed(self.stats) if one is not None), None)

    @property
    def worst(self) -> Drift | None:
        """The largest drift between two days, the last against the first among them."""
        found = [one for one in (*self.drift, self.since_first) if one is not None]
        return max(found, key=lambda one: one.psi, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """A service's data, for a page."""

    service: str
    version: str
    description: str
    owner: str
    stage: str
    folder: str
    days: tuple[DayRows, ...]
    columns: tuple[ColumnReport, ...]
    graph: LineageGraph
    notices: tuple[str, ...]
    made_at: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="minutes"))

    @property
    def flagged(self) -> tuple[ColumnReport, ...]:
        """The columns with remarks."""
        return tuple(column for column in self.columns if column.remarks)


def collect_report(
    facade: CatalogFacade,
    service: str,
    graph: LineageGraph,
    *,
    skeleton: DayStore,
    enriched: DayStore,
    last_days: int | None = None,
) -> ReportData:
    """Gather what a report shows.

    Args:
        facade: the definitions.
        service: its name.
        graph: its lineage.
        skeleton: the skeleton's days; their counters say what the filters dropped.
        enriched: the finished days; where there are none, the skeleton's are shown.
        last_days: only the newest so many; None shows all.

    Raises:
        ExecutionError: there is no day yet.
    """
    definition = facade.catalog.service(service)
    store, stage = (enriched, "enriched") if enriched.days() else (skeleton, "skeleton")
    wanted = store.days()[-last_days:] if last_days is not None else store.days()
    if not wanted:
        raise ExecutionError(
            f"service {service!r} has no days yet",
            where=str(store.root),
            hint=f"Make some: daeda pipeline train {service}",
        )
    manifests = [manifest for day in wanted if (manifest := store.manifest(day)) is not None]
    counters = {day.isoformat(): found for day in wanted if (found := skeleton.manifest(day)) is not None}
    bare = [one.day for one in manifests if not one.columns]
    notices = [f"{', '.join(bare)}: written without statistics; train again to get them"] if bare else []
    notices += _gaps(wanted)
    return ReportData(
        service=service,
        version=definition.version,
        description=definition.description,
        owner=definition.owner,
        stage=stage,
        folder=_shown(store.root, facade.project_root),
        days=tuple(_rows(one, counters.get(one.day), _filters(graph, service)) for one in manifests),
        columns=_columns(facade, service, graph, manifests),
        graph=graph,
        notices=tuple(notices),
    )


def _gaps(days: Sequence[dt.date]) -> list[str]:
    """The days between that are not there, in one sentence: charts show the others side by side."""
    absent = [
        (before + dt.timedelta(days=number)).isoformat()
        for before, after in pairwise(days)
        for number in range(1, (after - before).days)
    ]
    some = ", ".join(absent[:_GAPS_SHOWN]) + (
        f" and {len(absent) - _GAPS_SHOWN} more" * (len(absent) > _GAPS_SHOWN)
    )
    return [f"not there: {some}; such a day has no events, or was not trained"] if absent else []


def _shown(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)


def _filters(graph: LineageGraph, service: str) -> list[str]:
    """The operators that decide over rows, in the order in which they run."""
    return [node.operator for node in graph.of_kind(NodeKind.ROWS) if node.service == service]


def _rows(manifest: DayManifest, skeleton: DayManifest | None, order: list[str]) -> DayRows:
    counters = skeleton.counters if skeleton is not None else {}
    dropped = [
        (name.removeprefix(DROPPED), count) for name, count in counters.items() if name.startswith(DROPPED)
    ]
    places = {name: number for number, name in enumerate(order)}
    # Filters that could not be counted apart stand together, as `a, b`.
    dropped.sort(key=lambda one: places.get(one[0].partition(", ")[0], len(places)))
    return DayRows(
        day=manifest.day,
        rows_in=counters.get(ROWS_IN),
        dropped=tuple(dropped),
        rows=manifest.row_count,
        size=sum(size for _, size in manifest.files),
        written_at=manifest.written_at,
    )


def _columns(
    facade: CatalogFacade, service: str, graph: LineageGraph, manifests: Sequence[DayManifest]
) -> tuple[ColumnReport, ...]:
    """The last day's columns in their order, then those that only earlier days have."""
    types: dict[str, str] = {}
    for manifest in reversed(manifests):
        for name, kind in manifest.schema:
            types.setdefault(name, kind)
    texts = facade.descriptions(service)
    all_stats = {
        name: tuple(
            ColumnStats.from_mapping(one.columns[name]) if name in one.columns else None for one in manifests
        )
        for name in types
    }
    keys = _key_columns(graph, service)
    found = []
    for name, kind in types.items():
        stats = all_stats[name]
        samples = _samples([all_stats[key] for key in keys.get(name, ()) if key in all_stats], len(stats))
        # Session numbers are operational: they grow by themselves.
        compared = stats if name != QID_COLUMN else (None,) * len(stats)
        pairs = zip(pairwise(compared), pairwise(samples), strict=True)
        drift = (None, *(_drift(*days, number) for days, number in pairs))
        ends = (samples[0], samples[-1])
        since_first = _drift(compared[0], compared[-1], ends) if len(stats) > 2 else None
        node = f"{service}:{name}"
        origins = graph.upstream(node) if node in graph.nodes else []
        found.append(
            ColumnReport(
                name=name,
                arrow_type=kind,
                description=texts.get(name, ""),
                made=made_by(graph, node) if node in graph.nodes else "",
                stats=stats,
                drift=drift,
                since_first=since_first,
                remarks=_remarks(stats, drift, since_first, [one.day for one in manifests], name),
                origins=tuple((one.role.value, one.origin) for one in origins if one.role is not Role.ROWS),
            )
        )
    return tuple(found)


def _key_columns(graph: LineageGraph, service: str) -> dict[str, list[str]]:
    """Output column to the output columns that hold the keys it is looked up or aggregated by."""
    outputs = {
        node.label: graph.upstream(node.id)
        for node in graph.of_kind(NodeKind.OUTPUT)
        if node.service == service
    }
    holders = {
        found[0].origin: name
        for name, found in outputs.items()
        if len(found) == 1 and found[0].role is Role.VALUE
    }
    return {
        name: [holders[one.origin] for one in found if one.role is Role.KEY and one.origin in holders]
        for name, found in outputs.items()
    }


def _samples(keys: Sequence[Sequence[ColumnStats | None]], days: int) -> list[int | None]:
    """Per day the fewest different keys; None where there is no key, or nobody counted."""
    found: list[int | None] = []
    for day in range(days):
        stats = [one[day] for one in keys]
        counts = [one.distinct for one in stats if one is not None and one.distinct]
        found.append(min(counts) if counts else None)
    return found


def _drift(
    one: ColumnStats | None, other: ColumnStats | None, samples: tuple[int | None, int | None]
) -> Drift | None:
    if one is None or other is None:
        return None
    left, right = samples
    return drift_between(one, other, (left, right) if left and right else None)


def _remarks(
    stats: Sequence[ColumnStats | None],
    drift: Sequence[Drift | None],
    since_first: Drift | None,
    days: Sequence[str],
    name: str,
) -> tuple[str, ...]:
    """What a person should look at."""
    found: list[str] = []
    known = [(day, one) for day, one in zip(days, stats, strict=True) if one is not None and one.rows]
    if known and all(one.nulls == one.rows for _, one in known):
        return ("all NULL",)
    if known and name != QID_COLUMN and _constant([one for _, one in known]):
        found.append("one value only")
    jumps = [
        (abs(now.null_rate - before.null_rate), day, before.null_rate, now.null_rate)
        for (_, before), (day, now) in pairwise(known)
    ]
    if jumps and max(jumps)[0] > _NULL_JUMP:
        _, day, before, now = max(jumps)
        found.append(f"{day}: NULL rate from {before:.0%} to {now:.0%}")
    nans = sum(one.nans for _, one in known)
    if nans:
        found.append(f"{nans} NaN")
    return (*found, *_drift_remarks(stats, drift, since_first, days))


def _drift_remarks(
    stats: Sequence[ColumnStats | None],
    drift: Sequence[Drift | None],
    since_first: Drift | None,
    days: Sequence[str],
) -> list[str]:
    """The worst day and the whole span, the larger drift first."""
    found: list[tuple[float, str]] = []
    moved = [
        (one.psi, day, one)
        for day, one in zip(days, drift, strict=True)
        if one is not None and one.level != "stable"
    ]
    if moved:
        worst = max(moved, key=lambda one: one[0])
        more = len(moved) - 1
        times = f", and on {more} more day{'s' * (more > 1)}" if more else ""
        found.append((worst[0], f"{worst[1]}: {_moved(worst[2], stats)}{times}"))
    if since_first is not None and since_first.level != "stable":
        found.append((since_first.psi, f"first day to last: {_moved(since_first, stats)}"))
    return [text for _, text in sorted(found, reverse=True)]


def _moved(drift: Drift, stats: Sequence[ColumnStats | None]) -> str:
    label, before, after = drift.moved
    is_list = label != "NULL" and any(one is not None and one.lengths is not None for one in stats)
    unit = " items" if is_list else ""
    return f"PSI {drift.psi:.2f}, {label}{unit} from {before:.0%} to {after:.0%} of rows"


def _constant(stats: Sequence[ColumnStats]) -> bool:
    values = Counter(value for one in stats for value, count in (one.lengths or one).values if count)
    whole = all((one.lengths is None and one.distinct == 1) for one in stats)
    return whole and len(values) == 1 and not any(one.nulls for one in stats)


def quantiles(stats: ColumnStats) -> dict[str, float | None]:
    """The 5, 25, 50, 75 and 95 % points of a column's numbers, or of its lists' lengths."""
    inner = stats.lengths or stats
    return {f"p{part}": quantile(inner, part / 100) for part in (5, 25, 50, 75, 95)}


def quantile(stats: ColumnStats, part: float) -> float | None:
    """The number below which `part` of the numbers lie: exact of few values, else evenly spread within its bin."""
    if stats.values or not stats.bins:
        return stats.quantile(part)
    low, high = (float(edge) if isinstance(edge, int | float) else None for edge in (stats.min, stats.max))
    bins = sorted((bin_edges(key), count) for key, count in stats.bins)
    wanted = part * sum(count for _, count in bins)
    for (left, right), count in bins:
        if wanted <= count:
            start = left if low is None else max(left, low)
            end = right if high is None else min(right, high)
            return start + (end - start) * wanted / count
        wanted -= count
    return high
