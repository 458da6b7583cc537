"""`daeda`, the command line: parse, call `PlatformRegistry`, render. No feature logic lives here."""
