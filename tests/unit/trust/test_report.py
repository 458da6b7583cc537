"""The report: one page that needs nothing else, whatever the columns are called and hold."""

from __future__ import annotations

import datetime as dt
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from daedalus.catalog.facade import CatalogFacade
from daedalus.catalog.lineage import LineageGraph, NodeKind
from daedalus.catalog.model import (
    DataSourceDef,
    Entity,
    EntityKey,
    FeatureColumnRef,
    FeatureServiceDef,
    FeatureViewDef,
    FieldDef,
    ServiceColumn,
)
from daedalus.catalog.registry import FeatureCatalog
from daedalus.cli.init import write_template
from daedalus.errors import ExecutionError
from daedalus.metadata.days import DayManifest, DayStore
from daedalus.platform import PlatformRegistry
from daedalus.platform.lineage import project_lineage
from daedalus.platform.report import write_report
from daedalus.storage.column_sketches import table_sketches
from daedalus.trust.report import render_report
from daedalus.trust.report_data import collect_report

HOSTILE = "</script><script>alert(1)</script>"
USER = Entity(name="user", keys=(EntityKey(name="user_id"),))
FACADE = CatalogFacade(
    catalog=FeatureCatalog(
        views=[
            FeatureViewDef(
                name="events",
                entities=(USER,),
                fields=(FieldDef(name="user_id", dtype="BIGINT", description="<b>who</b>"),),
                source=DataSourceDef(path="events", timestamp_field="ts"),
            )
        ],
        services=[
            FeatureServiceDef(
                name="s",
                version="2026-05-01",
                spine="events",
                description=f"for {HOSTILE}",
                columns=(ServiceColumn(name="user_id", ref=FeatureColumnRef("events", "user_id")),),
            )
        ],
    )
)


def write_day(root, day: str, table: pa.Table, counters: dict[str, int] | None = None, *, stats: bool = True):
    store = DayStore(root)
    date = dt.date.fromisoformat(day)
    with store.locked(date):
        folder = store.begin(date)
        columns = {name: one.stats().to_mapping() for name, one in table_sketches(table).items()}
        manifest = DayManifest(
            day=day,
            schema=tuple((field.name, str(field.type)) for field in table.schema),
            row_count=table.num_rows,
            ts_min="",
            ts_max="",
            content_hash="",
            fingerprint={},
            files=(),
            counters=counters or {},
            columns=columns if stats else {},
        )
        store.commit(date, folder, manifest)
    return store


def a_day(seed: int, rows: int = 400, **columns) -> pa.Table:
    draw = np.random.default_rng(seed)
    data = {
        "user_id": pa.array(draw.integers(0, 10**9, rows)),
        "score": pa.array(draw.normal(size=rows)),
        "kind": pa.array(draw.choice(["a", "b", HOSTILE], rows)),
        "items": pa.array([list(range(n)) for n in draw.integers(0, 9, rows)], pa.list_(pa.int64())),
        "at": pa.array(draw.integers(0, 86_400 * 10**6, rows), pa.timestamp("us")),
        HOSTILE: pa.array([None] * rows, pa.int64()),
        "same": pa.array([7] * rows),
    }
    return pa.table(data | columns)


@pytest.fixture
def days(tmp_path):
    """Three days of a service; on the last the score moved, a kind is gone and half the users are NULL."""
    root = tmp_path / "skeleton"
    write_day(root, "2026-05-01", a_day(1), {"rows in": 500, "dropped filter_x": 100})
    write_day(root, "2026-05-02", a_day(2), {"rows in": 450, "dropped filter_x": 50})
    draw = np.random.default_rng(3)
    moved = a_day(
        3,
        score=pa.array(draw.normal(2.0, size=400)),
        kind=pa.array(["a", "b"] * 200),
        user_id=pa.array([None, 5] * 200, pa.int64()),
    )
    write_day(root, "2026-05-03", moved, {"rows in": 400})
    return root


def collected(root, **options):
    enriched = DayStore(root.parent / "enriched")
    return collect_report(FACADE, "s", LineageGraph(), skeleton=DayStore(root), enriched=enriched, **options)


VOID = {"meta", "link", "br", "input", "img", "hr"}


class Page(HTMLParser):
    """Texts, links and scripts of a page, tags balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(data)


def test_what_stands_out_is_named(days):
    data = collected(days)
    remarks = {column.name: " ".join(column.remarks) for column in data.columns}
    assert "PSI" in remarks["score"]
    assert "2026-05-03" in remarks["score"]
    assert "PSI" in remarks["kind"]
    assert remarks["user_id"].startswith("2026-05-03: NULL rate from 0% to 50%")
    assert remarks[HOSTILE] == "all NULL"
    assert remarks["same"] == "one value only"
    assert remarks["items"] == remarks["at"] == ""
    assert [(day.rows_in, day.dropped, day.rows) for day in data.days] == [
        (500, (("filter_x", 100),), 400),
        (450, (("filter_x", 50),), 400),
        (400, (), 400),
    ]


def test_the_page_stands_alone_and_is_whole(days):
    text = render_report(collected(days))
    page = Page(text)
    assert page.open == []
    # Nothing is fetched: no element points anywhere but into the page.
    for tag, name, value in page.attributes:
        if name in {"src", "href", "action", "data", "srcset"}:
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert "@import" not in text.partition("<body>")[0]
    assert "url(" not in text.partition("<body>")[0]
    # Three scripts: data, plotly, ours; the hostile names made no fourth.
    assert sum(tag == "script" for tag in re.findall(r"<(script)\b", text.rpartition("</main>")[2])) == 3
    shown = " ".join(page.texts)
    for column in ("user_id", "score", "kind", "items", "at", HOSTILE, "same"):
        assert column in shown
    assert "<b>who</b>" in shown
    assert f"for {HOSTILE}" in shown


def test_the_data_of_the_charts(days):
    page = Page(render_report(collected(days)))
    data = json.loads(next(script for script in page.scripts if script.startswith("{")))
    assert [day["day"] for day in data["days"]] == ["2026-05-01", "2026-05-02", "2026-05-03"]
    by_name = dict(zip((column.name for column in collected(days).columns), data["columns"], strict=True))
    assert by_name["kind"]["level"] == ["", "stable", "shifted"]
    for share in zip(*by_name["kind"]["bins"]["shares"], strict=True):
        assert sum(share) == pytest.approx(1)
    assert by_name["items"]["list"]
    assert by_name["items"]["quantiles"]["p50"][0] == pytest.approx(4, abs=1)
    assert by_name["user_id"]["nulls"] == [0, 0, 0.5]


def test_odd_days(days):
    """A day without rows, one without statistics, one with another schema."""
    write_day(days, "2026-05-04", a_day(1, rows=0))
    write_day(days, "2026-05-05", a_day(1), stats=False)
    write_day(
        days, "2026-05-06", a_day(1).drop_columns(["score"]).append_column("new", pa.array([1.5] * 400))
    )
    data = collected(days)
    assert "2026-05-05" in data.notices[0]
    write_day(days, "2026-05-08", a_day(1))
    write_day(days, "2026-05-30", a_day(1))
    gaps = collected(days).notices[1]
    assert gaps.startswith("not there: 2026-05-07, 2026-05-09, ")
    assert "and 12 more;" in gaps
    names = [column.name for column in data.columns]
    assert names[-1] == "score", "a column that is gone stands last"
    assert "new" in names
    Page(render_report(data))
    (only,) = collected(days, last_days=1).days
    assert only.day == "2026-05-30"
    Page(render_report(collected(days, last_days=1)))


def test_without_days(tmp_path):
    with pytest.raises(ExecutionError, match=r"has no days yet.*daeda pipeline train s"):
        collected(tmp_path / "skeleton")


def test_a_project_gets_its_lineage(tmp_path, monkeypatch):
    write_template(tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))
    registry = PlatformRegistry.open()
    root = registry.config().output_path / "product_ranking" / "skeleton"
    draw = np.random.default_rng(0)
    for day in ("2026-01-05", "2026-01-06"):
        write_day(root, day, pa.table({"price": draw.normal(size=300), "views_1d": draw.integers(0, 9, 300)}))
    written = write_report(registry, "product_ranking", output=tmp_path / "out.html")
    assert written.days == ("2026-01-05", "2026-01-06")
    page = Page((tmp_path / "out.html").read_text())
    boxes = [value for tag, name, value in page.attributes if tag == "g" and name == "class"]
    graph = project_lineage(registry, service="product_ranking")
    assert sum("output" in box for box in boxes) == 12
    assert sum("field" in box for box in boxes) == len(graph.of_kind(NodeKind.FIELD))
    shown = " ".join(page.texts)
    assert "count by customer_id, 1 day" in shown
    data = json.loads(next(script for script in page.scripts if script.startswith("{")))
    assert len(data["graph"]["outputs"]) == 13
    with pytest.raises(ExecutionError, match="cannot be written"):
        write_report(registry, "product_ranking", output=tmp_path / "nowhere" / "out.html")
