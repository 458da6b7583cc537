"""An environment that holds the core's packages alone, as installing no extra gives it.

The project's dependencies and theirs say which; their files are linked from the environment that runs the tests, so
that nothing is installed and nothing is faked: what is not linked is not there, its metadata neither.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
import venv
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass(frozen=True, slots=True)
class BareEnvironment:
    """A virtual environment with the core's packages and Daedalus, and a folder to work in."""

    python: Path
    home: Path

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A process of its own; `arguments` as for `python`."""
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        env = kept | {
            "HOME": str(self.home),
            "DAEDALUS_CONFIG": str(self.home / "none.toml"),
            "COLUMNS": "200",
        }
        return subprocess.run(
            [str(self.python), *arguments],
            env=env,
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def core_distributions() -> list[str]:
    """What installing Daedalus without extras brings along, in the versions that are installed here."""
    waiting = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    seen: dict[str, set[str]] = {}
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in seen and wanted.extras <= seen[name]:
            continue
        extras = seen.setdefault(name, set())
        extras |= wanted.extras
        for text in distribution(name).requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                waiting.append(needed)
    return sorted(seen)


def bare_environment(folder: Path) -> BareEnvironment:
    """Make the environment and link every file of the core's distributions, and Daedalus as in a checkout."""
    place, home = folder / "venv", folder / "home"
    home.mkdir(parents=True)
    venv.EnvBuilder(with_pip=False, symlinks=True).create(place)
    (packages,) = place.glob("lib/python3*/site-packages")
    for name in core_distributions():
        _link(name, packages)
    _link("daedalus", packages, only_metadata=True)
    (packages / "daedalus.pth").write_text(f"{ROOT / 'src'}\n")
    return BareEnvironment(place / "bin" / "python", home)


def _link(name: str, target: Path, *, only_metadata: bool = False) -> None:
    """By folder where a folder is one distribution's, as most are."""
    dist = distribution(name)
    base = Path(str(dist.locate_file("")))
    tops = {file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        if only_metadata and not top.endswith(".dist-info"):
            continue
        source, link = base / top, target / top
        if link.exists() or source.suffix == ".pth" or not source.exists():
            continue
        link.symlink_to(source)
