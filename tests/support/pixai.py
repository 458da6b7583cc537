"""The demo project in tests: its folder, its seeder, and a seeded copy of it."""

from __future__ import annotations

import importlib
import shutil
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

PIXAI = Path(__file__).parents[2] / "examples" / "pixai"
DEFINITIONS = ("feature_views", "feature_services", "config")


def load_seed() -> ModuleType:
    """`examples/pixai/seed.py` as a module; the parts it is made of are found beside it."""
    if str(PIXAI) not in sys.path:
        sys.path.insert(0, str(PIXAI))
    return importlib.import_module("seed")


def seed_data(out: Path, **options: Any) -> Any:
    """Seed `out` with 10k events of the first three days of May and small vectors, unless told otherwise."""
    small: dict[str, Any] = {"events": 10_000, "days": 3, "start": date(2026, 5, 1), "embedding_dim": 16}
    return load_seed().seed(out, **{**small, **options})


def make_project(root: Path, **options: Any) -> Path:
    """A copy of the demo project under `root`, its `data` seeded."""
    for folder in DEFINITIONS:
        shutil.copytree(PIXAI / folder, root / folder)
    seed_data(root / "data", **options)
    return root
