"""What a scan can read besides the views: relations of the run itself."""

from __future__ import annotations

#: (session, qid) pairs: `qid_map.parquet` under the output root.
QID_RELATION = "run:qid_map"
#: One row per entity, at the instant of a materialization.
AS_OF_RELATION = "run:as_of"
#: `store:NAME` are the ids of an embedding store, `ids:PATH` those of a Parquet relation.
_PREFIXES = ("store:", "run:", "ids:")


def is_run_relation(source_ref: str) -> bool:
    """Whether a scan reads something of the run itself rather than a view."""
    return source_ref.startswith(_PREFIXES)
