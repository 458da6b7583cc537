"""`daedalus.load` over days that training wrote."""

from __future__ import annotations

import datetime as dt
import shutil
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

import daedalus
from daedalus import reading
from daedalus.errors import DefinitionError, ExecutionError
from daedalus.platform import PlatformRegistry
from pipelines.tiny import DAYS, ROWS, events, tiny
from records.conftest import AGGREGATIONS, WITH_EMBEDDING, fill_store

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Three enriched days, 2026-05-01, -02 and -12."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAEDALUS_CONFIG", str(tmp_path_factory.mktemp("operator") / "none.toml"))
        made = tiny(
            tmp_path_factory.mktemp("project"),
            service=WITH_EMBEDDING,
            aggregations=AGGREGATIONS,
            runtime={"enrich_runtime": "in_process"},
        )
        fill_store(made.root)
        patch.chdir(made.root)
        PlatformRegistry.open().train("s")
        yield made.root


def load(project: Path, *arguments, **options) -> reading.TrainingData:
    root = project / "data" / "training_output"
    return daedalus.load("s", *arguments, project=project, output_root=root, **options)


def test_days_are_loaded_by_name_or_date(project):
    one = load(project, "2026-05-02")
    assert one.days == ("2026-05-02",)
    assert one.rows == 3
    both = load(project, dt.date(2026, 5, 1), dt.datetime(2026, 5, 2, 13))  # noqa: DTZ001
    assert both.days == DAYS[:2]
    assert repr(both) == "TrainingData(s enriched, 2 days, 2026-05-01 to 2026-05-02, 5 rows, 10 columns)"


def test_arrow_polars_and_batches_hold_the_same_rows_in_the_same_order(project):
    data = load(project, "2026-05-01", "2026-05-02")
    table = data.arrow().to_table()
    assert table.schema == data.schema
    assert table.column("ts").to_pylist() == sorted(table.column("ts").to_pylist())
    assert pa.Table.from_batches(data.batches(2)).equals(table)
    frame = data.polars()
    assert isinstance(frame, pl.LazyFrame)
    assert frame.collect().to_arrow().to_pylist() == table.to_pylist()
    assert np.array_equal(
        np.concatenate([one["user_id"] for one in data.numpy(2)]), table.column("user_id").to_numpy()
    )


def test_an_embedding_of_a_declared_dimension_is_a_matrix(project):
    (batch,) = load(project, "2026-05-01", columns=["image", "artwork_id"]).numpy()
    assert batch["image"].dtype == np.float16
    assert batch["image"].shape == (2, 4)
    assert batch["image"].any()


def test_columns_stages_and_missing_days(project):
    data = load(project, "2026-05-01", columns=["liked", "user_id"], stage="skeleton")
    assert (data.stage, data.columns) == ("skeleton", ("liked", "user_id"))
    assert data.arrow().to_table().column_names == ["liked", "user_id"]
    with pytest.raises(ExecutionError, match="9 days are not there: 2026-05-03, 2026-05-04") as caught:
        load(project, "2026-05-01", "2026-05-12")
    assert "2026-05-11" in caught.value.what
    assert "daeda pipeline train s" in caught.value.hint
    assert caught.value.hint.endswith("or leave them out: missing='skip'")
    assert load(project, "2026-05-01", "2026-05-12", missing="skip").days == DAYS
    with pytest.raises(ExecutionError, match="this day is not there: 2026-05-03") as caught:
        load(project, "2026-05-03", missing="skip")
    assert "leave" not in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("2026-05-02", "2026-05-01"), {}, "end 2026-05-01 is before start 2026-05-02"),
        (("2026-5-x",), {}, "start is '2026-5-x', but must be a date or YYYY-MM-DD"),
        ((20260501,), {}, "start is 20260501"),
        (("2026-05-01",), {"columns": ["likd"]}, "Did you mean 'liked'"),
        (("2026-05-01",), {"stage": "enriche"}, "Did you mean 'enriched'"),
        (("2026-05-01",), {"missing": "no"}, "unknown missing 'no'"),
    ],
)
def test_wrong_calls_are_refused(project, arguments, options, said):
    with pytest.raises(DefinitionError, match=said):
        load(project, *arguments, **options)


def test_enriched_days_of_another_skeleton_are_refused(project, tmp_path, monkeypatch):
    root = shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(root)
    write_table(events(ROWS["2026-05-02"][:2]), next(root.rglob("events/2026-05-02.parquet")))
    PlatformRegistry.open().train("s", target_dates=[dt.date(2026, 5, 2)], stages="skeleton")
    with pytest.raises(ExecutionError, match=r"since these days were enriched: 2026-05-02\. Run") as caught:
        load(root, "2026-05-01", "2026-05-02")
    assert "--enrich-only" in caught.value.hint
    assert load(root, "2026-05-02", stage="skeleton").rows == 2
    assert load(root, "2026-05-01").rows == 2
    PlatformRegistry.open().train("s", target_dates=[dt.date(2026, 5, 2)], stages="enrich")
    assert load(root, "2026-05-02").rows == 2


def test_an_unknown_service_is_named_with_near_matches(project):
    with pytest.raises(DefinitionError, match="t"):
        daedalus.load("t", "2026-05-01", project=project)
