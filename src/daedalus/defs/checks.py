"""Asset checks of a training set: the platform's checks of a day, as Dagster shows them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from daedalus.defs.project import TRAINING, asset_key
from daedalus.defs.steps import told
from daedalus.platform.day_footers import CHECKS, check_day

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dagster as dg

    from daedalus.defs.project import DagsterProject


def checks_of(project: DagsterProject, service: str, name: str) -> dg.AssetChecksDefinition:
    """Row count, NULL rates and schema of the partition that was made."""
    import dagster as dg

    key = dg.AssetKey(asset_key(TRAINING, service))
    specs = [dg.AssetCheckSpec(check, asset=key, description=text) for check, text in CHECKS.items()]

    # Dagster knows the parameter by its name, and takes its annotation for a type, also where it is text.
    def look(context):  # type: ignore[no-untyped-def]
        yield from _results(project, service, key, context)

    return dg.multi_asset_check(name=f"{name}_checks", specs=specs)(look)


def _results(project: DagsterProject, service: str, key: Any, context: Any) -> Iterator[dg.AssetCheckResult]:
    import dagster as dg

    day = dt.date.fromisoformat(context.partition_key)
    for check in told(lambda: check_day(project.registry, service, day, options=project.options)):
        yield dg.AssetCheckResult(
            check_name=check.name,
            asset_key=key,
            passed=check.passed,
            severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
            description=check.summary,
            metadata={"found": dg.MetadataValue.json(check.found)},
        )
