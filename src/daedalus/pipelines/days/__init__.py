"""One skeleton day: its relations, the columns set beside its finished rows, its memory, and where its work is done."""
