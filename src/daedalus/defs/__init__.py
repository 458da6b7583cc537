"""Dagster definitions of a project; `daedalus.definitions:defs` is what Dagster loads. Needs the extra `dagster`."""
