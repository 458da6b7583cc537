"""The report as one HTML page: nothing beside it, no network (extra `report`)."""

from __future__ import annotations

import json
import math
from importlib import resources
from typing import TYPE_CHECKING, Any

from daedalus.errors import MissingExtraError
from daedalus.storage.column_stats import aligned
from daedalus.trust import sparks
from daedalus.trust.drift import merged_bins
from daedalus.trust.lineage_svg import lineage_svg
from daedalus.trust.report_data import quantile, quantiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daedalus.storage.column_stats import ColumnStats
    from daedalus.trust.drift import Drift
    from daedalus.trust.report_data import ColumnReport, DayRows, ReportData

_ROLES = ("value", "key", "filter", "time")
_MOST_REMARKS = 16


def render_report(data: ReportData) -> str:
    """The page.

    Raises:
        MissingExtraError: the extra `report` (jinja2, plotly) is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(
            "reports need jinja2 and plotly", hint='pip install "daedalus[report]"'
        ) from error
    from daedalus import __version__

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    svg, graph = lineage_svg(data.graph, data.service)
    filters = list(dict.fromkeys(name for day in data.days for name, _ in day.dropped))
    lines = [_line(column, Markup) for column in data.columns]
    return environment.from_string(
        _part("page.html.j2")
    ).render(
        data=data,
        css=Markup(_part("page.css")),  # noqa: S704 - ours
        script=Markup(_part("page.js")),  # noqa: S704 - ours
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - plotly's own file
        svg=Markup(svg),  # noqa: S704 - every text in it is escaped where it is drawn
        payload=Markup(_script_safe(_payload(data, filters, graph))),  # noqa: S704 - escaped for a script element
        cards=_cards(data),
        remarks=_remarks(data)[:_MOST_REMARKS],
        more_remarks=max(len(data.flagged) - _MOST_REMARKS, 0),
        filters=filters,
        counted=any(day.rows_in is not None for day in data.days),
        days=[_day(day, filters) for day in data.days],
        columns=lines,
        program_version=__version__,
    )


def _part(name: str) -> str:
    return (resources.files("daedalus.trust") / "report_page" / name).read_text(encoding="utf-8")


def _script_safe(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ---------------------------------------------------------------------- summary and rows


def _cards(data: ReportData) -> list[tuple[str, str, str]]:
    rows = sum(day.rows for day in data.days)
    came = sum(day.rows_in for day in data.days if day.rows_in is not None)
    known = [day for day in data.days if day.rows_in is not None]
    cards = [
        (f"{len(data.days)}", "day" if len(data.days) == 1 else "days", ""),
        (_count(rows), "rows written", ""),
    ]
    if came:
        kept = sum(day.rows for day in known) / came
        cards.append((f"{1 - kept:.1%}", "dropped by filters", ""))
    drifted = [one for one in data.columns if one.worst is not None and one.worst.level == "shifted"]
    return [
        *cards,
        (_bytes(sum(day.size for day in data.days)), "on disk", ""),
        (f"{len(data.columns)}", "columns", ""),
        (f"{len(data.flagged)}", "stand out", "warn" if data.flagged else ""),
        (f"{len(drifted)}", "shifted", "warn" if drifted else ""),
    ]


def _remarks(data: ReportData) -> list[dict[str, Any]]:
    """The columns that stand out, the largest drift first, each with its first sentence."""
    found = [
        {
            "psi": f"{column.worst.psi:.2f}" if column.worst is not None else "",
            "level": column.worst.level if column.worst is not None else "stable",
            "name": column.name,
            "index": number,
            "text": column.remarks[0],
            "rank": column.worst.psi if column.worst is not None else 0.0,
        }
        for number, column in enumerate(data.columns)
        if column.remarks
    ]
    return sorted(found, key=lambda one: -one["rank"])


def _day(day: DayRows, filters: Iterable[str]) -> dict[str, Any]:
    dropped = dict(day.dropped)
    return {
        "day": day.day,
        "rows_in": "" if day.rows_in is None else f"{day.rows_in:,}",
        "dropped": {name: f"{dropped[name]:,}" if name in dropped else "" for name in filters},
        "rows": f"{day.rows:,}",
        "kept": f"{day.rows / day.rows_in:.1%}" if day.rows_in else "",
        "size": _bytes(day.size),
    }


# ---------------------------------------------------------------------- columns


def _line(column: ColumnReport, markup: Any) -> dict[str, Any]:
    """One line of the table and what its detail says in words."""
    last = column.last
    rates = [one.null_rate if one is not None and one.rows else None for one in column.stats]
    by_role = {role: [name for one, name in column.origins if one == role] for role in _ROLES}
    worst = column.worst
    labels, shares = _last_shares(last)
    return {
        "name": column.name,
        "type": _short_type(column.arrow_type),
        "description": column.description,
        "made": column.made,
        "made_from": by_role["value"] or [f"{name} (key)" for name in by_role["key"]],
        "roles": [(role, ", ".join(names)) for role, names in by_role.items() if names],
        "remarks": column.remarks,
        "text": " ".join([column.name, column.arrow_type, *by_role["value"], column.made]).lower(),
        "null_rate": _rate(last.null_rate) if last is not None and last.rows else "",
        "null_line": markup(sparks.line(rates, title="NULL rate over the days")) if any(rates) else "",
        "bars": markup(sparks.bars(shares, labels, title="values of the last day")) if shares else "",
        "levels": markup(sparks.levels([_level(one) for one in column.drift], title="PSI per day")),
        "typical": _typical(last),
        "distinct": _distinct(last),
        "psi": f"{worst.psi:.2f}" if worst is not None else "",
        "level": worst.level if worst is not None else "",
        "facts": _facts(last),
    }


def _level(drift: Drift | None) -> tuple[float, str] | None:
    return None if drift is None else (drift.psi, drift.level)


def _last_shares(stats: ColumnStats | None) -> tuple[tuple[str, ...], list[float]]:
    if stats is None or not stats.rows:
        return (), []
    found = aligned([stats])
    if found.form in {"", "bucket"}:
        return (), []
    bins = merged_bins(found)
    total = sum(bins.counts[0])
    return bins.labels, [count / total for count in bins.counts[0]]


def _typical(stats: ColumnStats | None) -> str:
    if stats is None or not stats.rows or stats.nulls == stats.rows:
        return ""
    if stats.lengths is not None:
        middle = quantile(stats.lengths, 0.5)
        return "" if middle is None else f"{_number(round(middle, 1))} items"
    value = stats.values[0][0] if stats.values else None
    if isinstance(value, str | bool):
        return _clipped(str(value).lower() if isinstance(value, bool) else value)
    middle = quantile(stats, 0.5)
    if middle is None:
        return ""
    if stats.values:
        return _number(middle)
    rounded = float(f"{middle:.3g}")
    return f"≈ {_number(round(rounded) if isinstance(stats.min, int) else rounded)}"


def _distinct(stats: ColumnStats | None) -> str:
    inner = stats.items if stats is not None and stats.items is not None else stats
    if inner is None or inner.distinct is None:
        return ""
    return f"{inner.distinct:,}"


def _facts(stats: ColumnStats | None) -> list[tuple[str, str]]:
    """The last day in figures."""
    if stats is None:
        return []
    found: list[tuple[str, Any]] = [("rows", f"{stats.rows:,}"), ("NULL", f"{stats.nulls:,}")]
    inner = stats.lengths or stats
    word = "shortest", "longest", "mean length"
    names = word if stats.lengths is not None else ("smallest", "largest", "mean")
    for name, value in zip(names, (inner.min, inner.max, inner.mean), strict=True):
        if value is not None:
            found.append((name, _number(value) if isinstance(value, float | int) else _clipped(str(value))))
    if stats.items is not None:
        items = stats.items
        found.append(("items", f"{items.rows:,}{' sampled' if items.sampled > 1 else ''}"))
        if items.distinct is not None:
            found.append(("different items", f"{items.distinct:,}"))
        if items.nulls:
            found.append(("NULL items", f"{items.nulls:,}"))
    if stats.nans:
        found.append(("NaN", f"{stats.nans:,}"))
    return found


# ---------------------------------------------------------------------- what the page's script draws


def _payload(data: ReportData, filters: Sequence[str], graph: dict[str, Any]) -> dict[str, Any]:
    days = [{"day": day.day, "rows": day.rows, "dropped": dict(day.dropped)} for day in data.days]
    return {
        "days": days,
        "filters": list(filters),
        "columns": [_charts(column) for column in data.columns],
        "graph": graph,
    }


def _charts(column: ColumnReport) -> dict[str, Any]:
    stats = column.stats
    return {
        "list": any(one is not None and one.lengths is not None for one in stats),
        "nulls": [one.null_rate if one is not None and one.rows else None for one in stats],
        "psi": [one.psi if one is not None else None for one in column.drift],
        "js": [one.js if one is not None else None for one in column.drift],
        "noise": [one.noise if one is not None else None for one in column.drift],
        "level": [one.level if one is not None else "" for one in column.drift],
        "bins": _bins(stats),
        "quantiles": _quantiles(stats),
        "mean": [_finite((one.lengths or one).mean) if one is not None else None for one in stats],
    }


def _bins(stats: Sequence[ColumnStats | None]) -> dict[str, Any] | None:
    """Shares per bin and day over all days' common bins; None for ids and texts of too many values."""
    known = [one for one in stats if one is not None and one.rows]
    found = aligned(known) if known else None
    if found is None or found.form in {"", "bucket"}:
        return None
    bins = merged_bins(found)
    by_day = iter(bins.counts)
    columns = [
        [count / sum(counts) for count in counts]
        if one is not None and one.rows and (counts := next(by_day))
        else [None] * len(bins.labels)
        for one in stats
    ]
    ordered = found.form != "value" or any(edges is not None for edges in found.edges)
    return {
        "labels": bins.labels,
        "ordered": ordered and len(bins.labels) > 4,
        "shares": [list(row) for row in zip(*columns, strict=True)],
    }


def _quantiles(stats: Sequence[ColumnStats | None]) -> dict[str, list[float | None]] | None:
    points = [quantiles(one) if one is not None else {} for one in stats]
    names = ("p5", "p25", "p50", "p75", "p95")
    found = {name: [_finite(one.get(name)) for one in points] for name in names}
    # Two values have no spread worth a chart; a constant has none at all.
    levels = {value for values in found.values() for value in values if value is not None}
    return found if len(levels) > 2 else None


# ---------------------------------------------------------------------- words


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rate(rate: float) -> str:
    """A share as a percentage that does not round something to nothing.

    >>> _rate(0), _rate(0.00001), _rate(0.123), _rate(0.9999), _rate(1)
    ('0', '<0.1%', '12.3%', '>99.9%', '100%')
    """
    if rate in {0, 1}:
        return "0" if rate == 0 else "100%"
    if rate < 0.001:
        return "<0.1%"
    return ">99.9%" if rate > 0.999 else f"{rate:.1%}"


def _number(value: float) -> str:
    """A number in few digits.

    >>> _number(3), _number(0.12345), _number(5001155.5), _number(1.65e18)
    ('3', '0.1235', '5,001,156', '1.65e+18')
    """
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _count(value: int) -> str:
    """A count in few digits.

    >>> _count(999), _count(12_345), _count(3_400_000)
    ('999', '12.3k', '3.4M')
    """
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")):
        if value >= size:
            return f"{value / (1000 if letter == 'k' else size):.1f}{letter}"
    return f"{value:,}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _clipped(text: str, width: int = 26) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _short_type(kind: str) -> str:
    return _clipped(kind.replace("element: ", "").replace("item: ", ""), 40)
