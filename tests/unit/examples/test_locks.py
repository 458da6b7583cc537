"""The examples are locked as the documentation tells others to: no change goes in unseen."""

from __future__ import annotations

import pytest

from daedalus.platform import PlatformRegistry
from daedalus.platform.versions import diff_registry
from support.pixai import PIXAI


@pytest.mark.parametrize("example", ["pixai", "flights"])
def test_the_lock_is_that_of_the_definitions(example, monkeypatch, tmp_path):
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))
    found = diff_registry(PlatformRegistry.open(PIXAI.parent / example))
    assert (found.locked, found.changes) == (True, ())
