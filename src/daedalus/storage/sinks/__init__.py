"""Sinks: where finished days are written."""
