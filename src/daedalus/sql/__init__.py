"""Names, values and expressions as SQL: the only place where what a user wrote becomes part of a query."""
