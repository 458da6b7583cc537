"""A service or a view as of one instant: what materialization and the online store are filled from."""
