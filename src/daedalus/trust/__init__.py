"""Everything that checks or shows what the rest made: reports, drift, lineage events."""
