"""`daeda lineage`: selections, formats and what is said about names that are not there."""

from __future__ import annotations

import pytest

from daedalus.cli.init import write_template


@pytest.fixture
def shop(daeda, tmp_path, monkeypatch):
    write_template(tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    return daeda


def test_every_output_column_has_a_line(shop):
    lines = shop("lineage", "--format", "json").json["columns"]
    assert [line["column"] for line in lines][-2:] == ["views_1d", "*"]
    by_name = {line["column"]: line for line in lines}
    assert by_name["is_expensive"]["value"] == ["product_info:price"]
    assert by_name["is_expensive"]["made"] == "coalesce(price, 0) > 100"
    assert by_name["views_1d"]["filter"] == ["visits:event"]
    table = shop("lineage").out
    assert all(line["column"] in table for line in lines)


def test_the_alias_is_the_same_command(shop):
    assert shop("platform", "lineage", "--column", "price").out == shop("lineage", "--column", "price").out


def test_upstream_of_a_column(shop):
    report = shop("lineage", "--column", "country", "--format", "json").json
    assert {(line["role"], line["origin"]) for line in report["influences"]} == {
        ("value", "customer_profile:country"),
        ("key", "visits:customer_id"),
        ("key", "customer_profile:customer_id"),
        ("time", "visits:event_timestamp"),
        ("time", "customer_profile:updated_at"),
    }
    assert {node["id"] for node in report["graph"]["nodes"]} >= {
        "customer_profile#country",
        "product_ranking:country",
    }


@pytest.mark.parametrize("reference", ["visits:event", "visits#event"])
def test_downstream_of_a_field(shop, reference):
    report = shop("lineage", "--downstream", reference, "--format", "json").json
    assert {(line["column"], line["role"]) for line in report["influences"]} == {
        ("event", "value"),
        ("purchased_products_7d", "filter"),
        ("views_1d", "filter"),
    }


def test_downstream_of_a_view(shop):
    out = shop("lineage", "--downstream", "product_info").out
    assert "price" in out
    assert "country" not in out


def test_mermaid(shop):
    out = shop("lineage", "--column", "is_expensive", "--format", "mermaid").out
    assert out.startswith("flowchart LR\n")
    assert '"is_expensive"' in out
    assert "views_1d" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--column", "pric"), "Did you mean 'price'?"),
        (("--downstream", "visits:evnt"), "Did you mean 'visits:event'"),
        (("--service", "product_rankin"), "Did you mean 'product_ranking'?"),
        (("--column", "price", "--downstream", "visits"), "choose one of the two"),
    ],
)
def test_wrong_names(shop, arguments, message):
    ran = shop("lineage", *arguments)
    assert ran.code == 2
    assert message in ran.err
