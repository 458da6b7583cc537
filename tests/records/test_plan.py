"""A plan says what training would do, and why; then training does it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import yaml

from daedalus.platform import RunOptions
from daedalus.platform.plans import RunPlan, plan_run
from daedalus.platform.versions import lock_registry
from pipelines.tiny import DAYS, ROWS, SERVICE, events, users
from records.conftest import AGGREGATIONS, fill_store

if TYPE_CHECKING:
    from daedalus.pipelines.executor import ExecutionResult
    from records.conftest import Trained

FIRST, SECOND, LATE = DAYS


def plan(trained: Trained, **options: Any) -> RunPlan:
    return plan_run(trained.registry, "s", **options)


def planned(found: RunPlan) -> dict[tuple[str, str], str]:
    """(stage, day) to why, of the days that would be written."""
    return {(day.stage, day.day): day.reason for day in found.writes}


def done(result: ExecutionResult) -> dict[tuple[str, str], str]:
    return {(day.stage, day.day): day.reason for day in result.days if day.state == "written"}


def changed_spec(position: int, **keys: Any) -> list[dict[str, Any]]:
    specs = [dict(spec) for spec in SERVICE["aggregation_specs"]]
    specs[position] |= keys
    return specs


def test_a_plan_says_what_training_then_does(plain: Trained) -> None:
    first = plan(plain)
    assert (first.last_run, first.seconds, first.locked) == ("", None, False)
    assert set(planned(first).values()) == {"not there yet"}
    assert not (plain.root / "data/training_output/metadata.sqlite").exists()  # planning writes nothing
    assert planned(first) == done(plain.train())
    second = plan(plain)
    assert (second.writes, second.since) == ((), ())
    assert second.last_run == plain.store.find("latest").run_id
    assert [day.rows for day in second.days] == [2, 3, 2]

    plain.project.write("events/2026-05-01.parquet", events(ROWS[FIRST][:1]))
    third = plan(plain)
    assert set(planned(third)) == {("skeleton", FIRST), ("skeleton", SECOND)}
    assert "2026-05-01.parquet" in planned(third)["skeleton", FIRST]
    assert third.seconds is not None
    assert third.seconds > 0
    assert third.estimated_from == 3
    assert planned(third) == done(plain.train())


def test_it_names_the_columns_that_are_made_differently(plain: Trained) -> None:
    plain.train()
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"aggregation_specs": changed_spec(0, window_days=4)}, {"liked"}),
        ({"aggregation_specs": changed_spec(1, condition="hist.event = 'view'")}, {"seen"}),
        (
            {
                "columns": [*SERVICE["columns"], {"name": "two", "ref": "derived:two"}],
                "derived": [{"name": "two", "sql": "2"}],
            },
            {"two"},
        ),
        ({"content_filter": [{"name": "likes", "sql": "event = 'like'"}]}, {*_NAMES}),
    ]
    for change, columns in cases:
        plain.project.define("feature_services", SERVICE | change)
        found = plan(plain)
        assert set(planned(found).values()) == {"the pipeline changed"}
        for day in found.writes:
            assert set(day.columns) == columns
        assert [cause.what for cause in found.since] == ["feature_services/s.yaml has changed"]
        assert any("written whole" in notice for notice in found.notices)
    plain.project.define("feature_services", SERVICE)
    plain.project.write("users/a.parquet", users((1, "2026-04-01", "free")))
    found = plan(plain)
    assert {day.columns for day in found.writes} == {("tier",)}


_NAMES = ("user_id", "artwork_id", "ts", "event", "score", "tier", "liked", "seen", "qid")


def test_changes_against_the_lock_are_of_the_service(plain: Trained) -> None:
    lock_registry(plain.registry)
    assert plan(plain).changes == ()
    plain.project.define("feature_services", SERVICE | {"columns": SERVICE["columns"][:-1]})
    found = plan(plain)
    assert found.locked
    assert [(change.path, change.kind.value) for change in found.changes] == [("columns.seen", "breaking")]
    assert found.to_dict()["lock_changes"][0]["service"] == "s"


def test_the_lock_is_compared_with_what_the_run_would_use(enriched: Trained) -> None:
    lock_registry(enriched.registry)
    [spec] = AGGREGATIONS["enrichment_specs"]
    other = AGGREGATIONS | {"enrichment_specs": [spec | {"source_id_column": "user_id"}]}
    (enriched.root / "other.yaml").write_text(yaml.safe_dump(other))
    assert plan(enriched).changes == ()
    options = RunOptions(aggregation_path=enriched.root / "other.yaml")
    [change] = plan(enriched, options=options).changes
    assert change.kind.value == "breaking"


def test_enrichment_is_planned_by_itself(enriched: Trained) -> None:
    assert set(planned(plan(enriched))) == {(stage, day) for stage in ("skeleton", "enrich") for day in DAYS}
    enriched.train()
    assert plan(enriched).writes == ()
    fill_store(enriched.root, seed=1)
    found = plan(enriched)
    assert {day.columns for day in found.writes} == {("image",)}
    assert planned(found).keys() == {("enrich", day) for day in DAYS}
    assert plan(enriched, stages="skeleton").writes == ()
    assert planned(found) == done(enriched.train())


def test_a_changed_embedding_column_keeps_the_skeleton(enriched: Trained) -> None:
    enriched.train()
    specs = [
        AGGREGATIONS["enrichment_specs"][0]
        | {"udf_name": "avg_pool_embeddings_udf", "source_id_column": "liked"}
    ]
    (enriched.root / "config/training/aggregations.yaml").write_text(
        yaml.safe_dump(AGGREGATIONS | {"enrichment_specs": specs})
    )
    found = plan(enriched)
    assert {(day.stage, day.columns) for day in found.writes} == {("enrich", ("image",))}
    assert planned(found) == done(enriched.train())


def test_changed_code_of_an_embedding_function_is_seen(enriched: Trained, monkeypatch) -> None:
    specs = [AGGREGATIONS["enrichment_specs"][0] | {"udf_name": "my_udfs:mine"}]
    (enriched.root / "config/training/aggregations.yaml").write_text(
        yaml.safe_dump(AGGREGATIONS | {"enrichment_specs": specs})
    )
    module = enriched.root / "my_udfs.py"
    text = "from daedalus.pipelines.enrich.udfs import lookup_embedding_udf as mine\n"
    module.write_text(text)
    monkeypatch.syspath_prepend(str(enriched.root))
    enriched.train()
    assert plan(enriched).writes == ()
    module.write_text(f"{text}# the same, or not: who knows\n")
    found = plan(enriched)
    assert {(day.stage, day.columns) for day in found.writes} == {("enrich", ("image",))}
    assert "column image changed (code " in found.writes[0].reason
    assert planned(found) == done(enriched.train())


def test_enriching_alone_plans_the_days_that_have_a_skeleton(enriched: Trained) -> None:
    enriched.train(target_dates=[dt.date.fromisoformat(SECOND)], stages="skeleton")
    found = plan(enriched, stages="enrich")
    assert planned(found) == {("enrich", SECOND): "not there yet"}
    assert planned(found) == done(enriched.train(stages="enrich"))
