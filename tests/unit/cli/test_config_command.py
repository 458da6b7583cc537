"""`daeda config`: six keys, no secrets, one small file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from daedalus import operator_config
from daedalus.errors import DefinitionError

DEFAULTS = {
    "dagster_graphql_url": "http://localhost:3000/graphql",
    "api_url": "http://localhost:8000",
    "feature_views_dir": "feature_views",
    "feature_services_dir": "feature_services",
    "default_service": "dssm_ranking",
    "output_root": "data/training_output",
}


def test_show_gives_the_documented_defaults_without_a_file(daeda):
    ran = daeda("config", "show", "--format", "json")
    assert (ran.code, ran.json) == (0, DEFAULTS)
    table = daeda("config", "show").out
    assert all(key in table and value in table for key, value in DEFAULTS.items())


def test_path_follows_the_environment(daeda, tmp_path, monkeypatch):
    assert daeda("config", "path").out.strip() == str(tmp_path / "operator" / "config.toml")
    monkeypatch.delenv("DAEDALUS_CONFIG")
    monkeypatch.setenv("HOME", "/home/someone")
    assert daeda("config", "path", "--format", "json").json["path"] == "/home/someone/.daedalus/config.toml"


def test_init_writes_once_and_again_only_with_force(daeda):
    assert daeda("config", "init").code == 0
    path = Path(daeda("config", "path").out.strip())
    assert tomllib.loads(path.read_text()) == DEFAULTS
    daeda("config", "set", "output_root", "elsewhere")
    again = daeda("config", "init")
    assert again.code == 2
    assert "--force" in again.err
    assert tomllib.loads(path.read_text())["output_root"] == "elsewhere"
    assert daeda("config", "init", "--force").code == 0
    assert tomllib.loads(path.read_text()) == DEFAULTS


def test_set_keeps_the_other_keys_and_works_without_a_file(daeda):
    assert daeda("config", "set", "default_service", "xgb_reranker").code == 0
    assert daeda("config", "set", "feature_services_dir", "/srv/feature_services").code == 0
    path = Path(daeda("config", "path").out.strip())
    assert tomllib.loads(path.read_text()) == {
        "default_service": "xgb_reranker",
        "feature_services_dir": "/srv/feature_services",
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]
    shown = daeda("config", "show", "--format", "json").json
    assert shown == DEFAULTS | {
        "default_service": "xgb_reranker",
        "feature_services_dir": "/srv/feature_services",
    }


def test_set_refuses_unknown_keys_with_near_matches(daeda):
    ran = daeda("config", "set", "output_rot", "x")
    assert ran.code == 2
    assert "Did you mean 'output_root'?" in ran.err
    assert not Path(daeda("config", "path").out.strip()).exists()


@pytest.mark.parametrize(
    "value",
    [
        "http://me:hunter2@localhost:8000",
        "http://localhost:8000/?token=abc",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "-----BEGIN PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc",
        "0123456789abcdef0123456789abcdef",
        "password = hunter2",
    ],
)
def test_set_refuses_what_looks_like_a_secret_and_does_not_repeat_it(daeda, value):
    ran = daeda("config", "set", "--", "api_url", value)
    assert ran.code == 2
    assert "looks like a secret" in ran.err
    assert value not in ran.err + ran.out


@pytest.mark.parametrize(
    "value",
    [
        "http://localhost:8000",
        "http://10.0.0.7:8000/a/b",
        "a_long_service_name_with_many_words_v2_2026",
        "data/${USER}/out",
    ],
)
def test_ordinary_values_are_no_secrets(daeda, value):
    assert daeda("config", "set", "output_root", value).code == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api_ur = 'x'\n", "Did you mean 'api_url'?"),
        ("api_url = 3\n", "must be a text"),
        ("api_url = \n", "not valid TOML"),
        ("api_url = 'http://me:pw@host'\n", "looks like a secret"),
    ],
)
def test_a_hand_edited_file_is_checked(daeda, text, expected):
    path = Path(daeda("config", "path").out.strip())
    path.parent.mkdir(parents=True)
    path.write_text(text)
    ran = daeda("config", "show")
    assert ran.code == 2
    assert expected in ran.err
    assert str(path) in ran.err


def test_a_linked_file_stays_a_link(tmp_path, monkeypatch):
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    real.write_text("")
    link.symlink_to(real)
    monkeypatch.setenv("DAEDALUS_CONFIG", str(link))
    operator_config.set_key("api_url", "http://x")
    assert link.is_symlink()
    assert tomllib.loads(real.read_text()) == {"api_url": "http://x"}


def test_a_folder_that_cannot_be_written_is_an_error_of_the_family(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "file" / "config.toml"))
    with pytest.raises(DefinitionError, match="cannot be written"):
        operator_config.write_defaults()


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path, monkeypatch):
    (tmp_path / "config.toml").mkdir()
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "config.toml"))
    with pytest.raises(DefinitionError, match="cannot be written"):
        operator_config.write_defaults(force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]
