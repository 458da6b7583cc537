"""What Dagster shows of a day: read from its Parquet footers, never from its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.defs.project import VIEWS, asset_key
from daedalus.platform.day_footers import day_footers
from daedalus.platform.lineage import lineage_report

if TYPE_CHECKING:
    import datetime as dt

    from daedalus.defs.project import DagsterProject

#: What decides which rows there are is no column.
ALL_ROWS = "*"


def day_metadata(project: DagsterProject, service: str, day: dt.date) -> dict[str, Any]:
    """Rows, size, schema, NULL rates and column lineage of a day."""
    import dagster as dg

    footers = day_footers(project.registry, service, day, options=project.options)
    columns = [dg.TableColumn(name=name, type=dtype) for name, dtype in footers.dtypes.items()]
    rates = {name: round(rate, 6) for name, rate in footers.null_rates.items() if rate}
    return {
        "dagster/partition_row_count": footers.rows,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/column_lineage": column_lineage(project, service),
        "files": footers.files,
        "bytes": footers.size_bytes,
        "folder": dg.MetadataValue.path(str(footers.folder)),
        "null_rates": dg.MetadataValue.json(rates),
    }


def column_lineage(project: DagsterProject, service: str) -> Any:
    """The fields whose values each column is made of."""
    import dagster as dg

    views = project.registry.catalog.views
    report = lineage_report(project.registry, service=service, options=project.options)
    behind: dict[str, list[Any]] = {}
    for line in report["columns"]:
        if line["column"] == ALL_ROWS:
            continue
        fields = [reference.partition(":") for reference in line["value"]]
        behind[line["column"]] = [
            dg.TableColumnDep(asset_key=dg.AssetKey(asset_key(VIEWS, view)), column_name=field)
            for view, _, field in fields
            if view in views
        ]
    return dg.TableColumnLineage(deps_by_column=behind)
