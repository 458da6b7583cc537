"""`daeda registry`: what is printed, what is refused, and the CI check of the documentation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daedalus.cli.init import write_template

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def shop(daeda, tmp_path):
    """The project of `daeda init`, and how to edit its service."""
    write_template(tmp_path / "shop")
    os.chdir(tmp_path / "shop")
    files = [Path("feature_services/product_ranking.yaml"), Path("config/training/aggregations.yaml")]

    def edit(old: str, new: str) -> None:
        file = next(file for file in files if old in file.read_text())
        file.write_text(file.read_text().replace(old, new, 1))

    return edit


def version() -> str:
    return re.search(r'version: "(.*)"', Path("feature_services/product_ranking.yaml").read_text())[1]


def test_check_without_a_lock_fails_with_the_mend(daeda, shop):
    ran = daeda("registry", "check")
    assert ran.code == 1
    assert "daeda registry lock" in ran.err
    assert daeda("registry", "diff").code == 0


def test_lock_then_check(daeda, shop):
    assert "wrote" in daeda("registry", "lock").out
    assert daeda("registry", "check").out.startswith("ok: 1 service against")
    assert "up to date" in daeda("registry", "lock").out
    assert "no change" in daeda("registry", "diff").out


def test_a_breaking_change_needs_a_version(daeda, shop):
    daeda("registry", "lock")
    locked = Path("registry.lock.json").read_bytes()
    shop("window_days: 7", "window_days: 14")
    ran = daeda("registry", "check")
    assert ran.code == 1
    assert "window_days" in ran.out
    assert "new version" in ran.err
    refused = daeda("registry", "lock")
    assert refused.code == 2
    assert "breaking change without a new version" in refused.err
    assert Path("registry.lock.json").read_bytes() == locked

    old = version()
    shop(f'version: "{old}"', f'version: "{old}.1"')
    assert daeda("registry", "check").code == 0
    assert daeda("registry", "lock").code == 0
    # An older version than the locked one is no new one.
    shop(f'version: "{old}.1"', f'version: "{old}"')
    shop("window_days: 14", "window_days: 7")
    assert daeda("registry", "check").code == 1


def test_force_locks_all_the_same(daeda, shop):
    daeda("registry", "lock")
    shop("window_days: 7", "window_days: 14")
    assert daeda("registry", "lock", "--force").code == 0
    assert daeda("registry", "check").code == 0


def test_a_service_that_is_gone(daeda, shop):
    daeda("registry", "lock")
    Path("feature_services/product_ranking.yaml").unlink()
    ran = daeda("registry", "check")
    assert ran.code == 1
    assert "--force" in ran.err
    assert daeda("registry", "lock").code == 2
    assert daeda("registry", "lock", "--force").code == 0
    assert daeda("registry", "check").code == 0


def test_an_unknown_service(daeda, shop):
    ran = daeda("registry", "lock", "product_rankin")
    assert ran.code == 2
    assert "Did you mean 'product_ranking'?" in ran.err


def test_only_the_named_services_are_locked(daeda, shop):
    text = Path("feature_services/product_ranking.yaml").read_text()
    other = Path("feature_services/other.yaml")
    other.write_text(text.replace("name: product_ranking", "name: other", 1))
    daeda("registry", "lock")
    other.write_text(other.read_text().replace("description:", "description: changed;", 1))
    shop("description:", "description: changed;")
    daeda("registry", "lock", "other")
    assert {
        change["service"] for change in daeda("registry", "diff", "--format", "json").json["changes"]
    } == {"product_ranking"}


def test_json_names_each_change(daeda, shop):
    daeda("registry", "lock")
    shop("window_days: 7", "window_days: 14")
    report = daeda("registry", "check", "--format", "json").json
    assert not report["ok"]
    (change,) = report["changes"]
    assert change["kind"] == "breaking"
    assert change["refused"]
    assert (change["before"], change["after"]) == (7, 14)
    assert change["reason"]
    assert report["mends"]


def test_another_lock_file(daeda, shop):
    daeda("registry", "lock")
    shutil.copy("registry.lock.json", "base.json")
    shop("window_days: 7", "window_days: 14")
    daeda("registry", "lock", "--force")
    assert daeda("registry", "check").code == 0
    assert daeda("registry", "check", "--lock-file", "base.json").code == 1
    assert daeda("registry", "check", "--lock-file", "none.json").code == 2


@pytest.mark.slow
def test_the_documented_ci_check(daeda, shop, tmp_path):
    """The shell lines of docs/registry.md, in a repository with a main branch and a pull request."""
    snippet = re.search(r"```sh\n(.*?)```", (DOCS / "registry.md").read_text(), re.DOTALL)[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DAEDALUS_CONFIG": str(tmp_path / "none.toml"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    for key in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{key}_NAME": "someone", f"GIT_{key}_EMAIL": "someone@example.org"}

    def shell(script: str) -> int:
        done = subprocess.run(["bash", "-e", "-c", script], env=environment, capture_output=True, check=False)
        return done.returncode

    assert shell("git init -qb main") == 0
    daeda("registry", "lock")
    assert shell("git add . && git commit -qm one && git update-ref refs/remotes/origin/main HEAD") == 0
    # A pull request that also locks what it broke.
    shop("window_days: 7", "window_days: 14")
    daeda("registry", "lock", "--force")
    assert shell("git commit -qam two") == 0
    assert shell(snippet) == 1
    # With a new version it passes, the lock being committed.
    shop(f'version: "{version()}"', f'version: "{version()}.1"')
    daeda("registry", "lock")
    assert shell("git commit -qam three") == 0
    assert shell(snippet) == 0
