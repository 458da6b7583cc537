from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from daedalus.catalog.model import JoinMode
from daedalus.catalog.registry import ENTITIES, FeatureCatalog
from daedalus.pipelines.settings import load_training_config
from support.flights_oracle import COLUMNS, PROJECT, Sources, expected, load_prepare
from support.oracle import rolling_oracle

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def catalog() -> FeatureCatalog:
    return FeatureCatalog.from_yaml_dir(PROJECT / "feature_views", services_dir=PROJECT / "feature_services")


def test_entities_come_from_yaml_alone(catalog: FeatureCatalog) -> None:
    assert not {"plane", "airport"} & set(ENTITIES)
    assert {"plane", "airport"} <= set(catalog.entities)
    keys = {view.name: view.join_keys for view in catalog.views.values()}
    assert keys == {
        "flights": ["tailnum"],
        "planes": ["tailnum"],
        "arrivals": ["tailnum", "faa"],
        "weather": ["faa"],
        "airports": ["faa"],
    }


def test_the_service_outputs_the_contract(catalog: FeatureCatalog) -> None:
    service = catalog.service("flight_delay")
    assert [column.name for column in service.columns] == COLUMNS
    roles = {(join.alias, join.view): (join.join, join.on) for join in service.views}
    assert roles[("origin_weather", "weather")] == (JoinMode.ASOF, (("origin", "faa"),))
    assert roles[("dest_weather", "weather")] == (JoinMode.ASOF, (("dest", "faa"),))
    # Nothing looks a landing up by key: arrivals are history only.
    assert "arrivals" not in {join.view for join in service.views}


@pytest.mark.slow
def test_the_sources_hold_what_the_views_declare(catalog: FeatureCatalog) -> None:
    tables = load_prepare().tables()
    for view in catalog.views.values():
        renamed = dict(view.field_mapping)
        present = {
            renamed.get(name, name) for name in tables[view.source.path.removesuffix(".parquet")].columns
        }
        assert {field.name for field in view.fields} <= present, view.name


@pytest.mark.slow
def test_the_specs_mean_what_the_flights_oracle_says(tmp_path: Path) -> None:
    """Two oracles that know nothing of each other, one of them reading the shipped specs."""
    load_prepare().prepare(tmp_path)
    sources = Sources.load(tmp_path)
    end = datetime(2013, 1, 9, tzinfo=UTC)  # the ninth day: windows of a week are full, and the past is small
    flights = sources.flights.filter(pl.col("scheduled_departure") < end)
    arrivals = sources.arrivals.filter(pl.col("landed_at") < end)
    last_day = flights.filter(pl.col("scheduled_departure") >= end - timedelta(days=1))[
        "flight_seq"
    ].to_list()
    chosen = random.Random(13).sample(last_day, 8)
    history = {
        "arrivals": arrivals.rename({"dest": "faa", "origin": "departed_from"}).to_arrow(),
        "flights": flights.to_arrow(),
    }
    spine = history["flights"].filter(pc.is_in(history["flights"]["flight_seq"], pa.array(chosen)))
    specs = load_training_config(PROJECT).aggregation_specs
    assert len(specs) == 15
    options = [spec.to_mapping() for spec in specs]
    # As a service has them: the spine's time, and that of the view whose rows are the history.
    times = {"arrivals": "landed_at", "flights": "scheduled_departure"}
    for given in options:
        given.setdefault("history_view", "flights")
        given["timestamp_column"] = "scheduled_departure"
        given["history_timestamp_column"] = times[given["history_view"]]
    for row in rolling_oracle(spine, options, history=history).to_pylist():
        wanted = expected(sources, row["flight_seq"])
        for given in options:
            name = given["name"]
            assert (
                row[name] == pytest.approx(wanted[name]) if "mean" in name else row[name] == wanted[name]
            ), name
