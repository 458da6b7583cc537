"""Everything that checks or shows what the rest made: proofs, lint, feature tests, skew, reports, lineage events."""
