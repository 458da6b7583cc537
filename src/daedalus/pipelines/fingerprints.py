"""What rows are made from, as plain data, and why they must be made again.

A fingerprint holds the pipeline's text, the views' definitions, what each scan reads, the code of named functions,
and what databases were read at.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from daedalus.pipelines.days.context import scan_range
from daedalus.pipelines.operators import Scan
from daedalus.pipelines.run_relations import is_run_relation
from daedalus.pipelines.run_sources import scanned_views

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.metadata.days import DayManifest
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.run_sources import RunSources


def fingerprint_of(
    pipeline: OperatorPipeline,
    catalog: FeatureCatalog,
    sources: RunSources,
    day: dt.date,
    *,
    text: str,
    functions: Mapping[str, str],
) -> dict[str, Any]:
    """What a day's rows are made from.

    Args:
        pipeline: its scans and their views count.
        catalog: the definitions.
        sources: as the run sees them.
        day: says how much of each view's time is read.
        text: what of the pipeline decides over the rows.
        functions: by named function the digest of its code.
    """
    read: dict[str, Any] = {}
    for scan in pipeline:
        if not isinstance(scan, Scan):
            continue
        if is_run_relation(scan.source_ref):
            read[scan.name] = sources.run_identity(scan.source_ref)
        else:
            read[scan.name] = sources.identity(scan.source_ref, scan_range(scan, day))
    views = scanned_views(pipeline)
    snapshots = sources.database_snapshots(views)
    return {
        "pipeline": text,
        "views": {name: _view_text(catalog, name) for name in views},
        "sources": read,
        **({"functions": dict(functions)} if functions else {}),
        **({"snapshots": snapshots} if snapshots else {}),
    }


def _view_text(catalog: FeatureCatalog, name: str) -> str:
    """A view's definition as text; where its file lies does not matter."""
    return repr(dataclasses.replace(catalog.view(name), file="", description="", owner="", tags=()))


def why_fresh(fingerprint: Mapping[str, Any], *, refresh: bool) -> str:
    """Why a day that is up to date is not computed."""
    if fingerprint.get("snapshots") and not refresh:
        return "same definitions and files; databases are read again with --refresh"
    return "same definitions and sources"


def why_stale(manifest: DayManifest | None, fingerprint: Mapping[str, Any], *, refresh: bool = False) -> str:
    """Why a day must be computed; empty when it is up to date.

    A database is taken to be what it was, unless it is to be looked at again (`refresh`).
    """
    if manifest is None:
        return "not there yet"
    old = manifest.fingerprint
    if old.get("pipeline") != fingerprint["pipeline"]:
        return "the pipeline changed"
    for name, text in fingerprint["views"].items():
        if old.get("views", {}).get(name) != text:
            return f"view {name} changed"
    for name, code in fingerprint.get("functions", {}).items():
        if old.get("functions", {}).get(name) != code:
            return f"the code of {name} changed"
    for name, identity in fingerprint["sources"].items():
        before = old.get("sources", {}).get(name)
        if before != identity:
            return f"the source of {name} changed{_first_difference(before, identity)}"
    for name, snapshot in fingerprint.get("snapshots", {}).items() if refresh else ():
        before = old.get("snapshots", {}).get(name, {}).get("exact")
        if snapshot["exact"] is None or snapshot["exact"] != before:
            return f"the database of view {name} is read again"
    return ""


def _first_difference(before: Any, now: Any) -> str:
    if not isinstance(before, list) or not isinstance(now, list):
        return ""
    for item in now:
        if item not in before:
            return f": {item[0] if isinstance(item, list) else item}"
    return ": a file is gone" if len(before) > len(now) else ""
