"""A run's profile as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.cli.render import print_table, say

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS = (
    "stage",
    "operator",
    "step",
    "calls",
    "rows",
    "wall s",
    "CPU s",
    "CPU %",
    "memory",
    "spilled",
    "computes",
)
_WHOLE = "total"
_SHOWN_STEPS = 3
_SHOWN_SHARE = 0.005


def print_profile(profile: Mapping[str, Any]) -> None:
    """Operators of each stage, the dearest first, and what nobody measured."""
    operators = profile["operators"]
    for stage in dict.fromkeys(one["stage"] for one in operators):
        print_table(_COLUMNS, stage_rows([one for one in operators if one["stage"] == stage]))
    say(f"profile: {profile['path']}")


def stage_rows(measures: list[dict[str, Any]]) -> list[list[Any]]:
    """The rows of one stage's table.

    >>> sql = {"stage": "skeleton", "operator": "join", "step": "sql", "calls": 2, "rows": 9, "wall": 1.0, "cpu": 1.5}
    >>> day = {**sql, "operator": "", "step": "total", "rows": 0, "wall": 3.0, "cpu": 2.0}
    >>> for row in stage_rows([sql, day]):
    ...     print(row[1:8])
    ['join', 'sql', 2, 9, 1.0, 1.5, '75%']
    ['', 'everything else', '', '', '', 0.5, '25%']
    ['', 'total', 2, '', 3.0, 2.0, '100%']
    """
    whole = [one for one in measures if one["step"] == _WHOLE]
    steps = sorted((one for one in measures if one["step"] != _WHOLE), key=lambda one: -one["cpu"])
    total = sum(one["cpu"] for one in whole)
    shown = [one for one in steps if one["cpu"] >= _SHOWN_SHARE * total]
    rows = [_row(one, total) for one in shown]
    small = sum(one["cpu"] for one in steps[len(shown) :])
    stage = measures[0]["stage"]
    if len(shown) < len(steps):
        rows.append(_summary(stage, f"{len(steps) - len(shown)} smaller steps", small, total))
    if whole:
        rest = max(total - sum(one["cpu"] for one in steps), 0.0)
        rows.append(_summary(stage, "everything else", rest, total))
    return rows + [_row(one, total) for one in whole]


def _summary(stage: str, label: str, cpu: float, total: float) -> list[Any]:
    return [stage, "", label, "", "", "", round(cpu, 2), _share(cpu, total), "", "", ""]


def _row(one: Mapping[str, Any], total: float) -> list[Any]:
    return [
        one["stage"],
        one["operator"],
        one["step"],
        one["calls"],
        one["rows"] or "",
        round(one["wall"], 2),
        round(one["cpu"], 2),
        _share(one["cpu"], total),
        _size(one.get("peak_memory")),
        _size(one.get("spilled")),
        _details(one),
    ]


def _details(one: Mapping[str, Any]) -> str:
    """The operators that a statement computes, and what it spent most on."""
    plan = [
        f"{name.lower()} {seconds:.1f}s" for name, seconds in one.get("plan", {}).items() if seconds >= 0.1
    ]
    also = ", ".join(name for name in one.get("computes", ()) if name != one["operator"])
    return "; ".join(part for part in (also, ", ".join(plan[:_SHOWN_STEPS])) if part)


def _share(part: float, total: float) -> str:
    return f"{100 * part / total:.0f}%" if total else ""


def _size(count: int | None) -> str:
    """Bytes for people.

    >>> _size(1_500_000_000), _size(2_000_000), _size(0), _size(None)
    ('1.5 GB', '2 MB', '', '')
    """
    if not count:
        return ""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
