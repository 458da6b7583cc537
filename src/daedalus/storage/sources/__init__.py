"""Sources: rows read in place, by backend."""
