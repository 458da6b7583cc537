"""A module that does not import."""

raise RuntimeError("not today")
