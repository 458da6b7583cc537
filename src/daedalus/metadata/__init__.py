"""Operational state: what was written, from what, and by whom. Definitions never live here."""
