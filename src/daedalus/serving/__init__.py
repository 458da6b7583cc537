"""Serving: a Quack daemon that lets in only what is approved, and the client for it."""
