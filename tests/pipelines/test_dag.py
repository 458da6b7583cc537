"""The DAG is the program: what the pipeline YAML says is what runs, and what cannot run is refused by name."""

from __future__ import annotations

import copy
import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import yaml

from daedalus.compute import aggregate
from daedalus.errors import CompileError, DaedalusError, ExecutionError
from daedalus.pipelines.days import aggregates as day_aggregates
from daedalus.pipelines.days import stream as day_stream
from daedalus.pipelines.explain import explain_pipeline
from daedalus.pipelines.pipeline_files import pipeline_from_yaml, pipeline_to_yaml
from pipelines.tiny import DAYS, SERVICE, column, tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.project import Project, Run

FIRST, SECOND, LATE = DAYS
Body = dict[str, Any]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return tiny(tmp_path)


def body(project: Project) -> Body:
    """The compiled pipeline as plain data, to be edited."""
    loaded: Body = yaml.safe_load(pipeline_to_yaml(project.pipeline("s")))
    return loaded


def operator(pipeline: Body, name: str) -> Body:
    found: Body = next(one for one in pipeline["operators"] if one["name"] == name)
    return found


def insert_after(pipeline: Body, name: str, new: Body) -> None:
    """Put an operator behind another: whoever read that one reads the new one."""
    place = pipeline["operators"].index(operator(pipeline, name))
    for later in pipeline["operators"][place + 1 :]:
        later["inputs"] = [new["name"] if one == name else one for one in later.get("inputs", [])]
        if later.get("sessions_from") == name:
            later["sessions_from"] = new["name"]
    pipeline["operators"].insert(place + 1, {"inputs": [name], **new})


def edited(project: Project, pipeline: Body, days: tuple[str, ...] = DAYS) -> Run:
    """Run the hand-edited file."""
    path = project.root / "config" / "pipelines" / "s.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(pipeline, sort_keys=False))
    return project.run("s", days)


# ---------------------------------------------------------------------- editing changes what runs


def test_the_generated_file_edited_nowhere_is_the_same_program(project: Project) -> None:
    before = project.run("s")
    after = edited(project, body(project))
    assert set(after.states.values()) == {"up to date"}
    assert after.hashes == before.hashes


def test_a_spec_taken_out_is_a_column_gone(project: Project) -> None:
    pipeline = body(project)
    rolling, output = operator(pipeline, "rolling"), operator(pipeline, "output")
    rolling["specs"] = [spec for spec in rolling["specs"] if spec["name"] != "seen"]
    output["columns"] = [one for one in output["columns"] if one["name"] != "seen"]
    assert "seen" not in edited(project, pipeline).table(FIRST).column_names
    assert "seen" in project.pipeline("s").operators[-2].to_dict()["columns"][-2].values()


def test_a_changed_condition_is_another_value(project: Project) -> None:
    pipeline = body(project)
    operator(pipeline, "rolling")["specs"][0]["condition"] = "hist.event = 'view'"
    assert edited(project, pipeline).table(SECOND)["liked"].to_pylist() == [[], [], [11]]
    assert project.run("s", [SECOND], pipeline=project.pipeline("s")).table(SECOND)["liked"].to_pylist() == [
        [10],
        [10],
        [10, 12],
    ]


def test_a_changed_filter_is_other_rows(project: Project) -> None:
    pipeline = body(project)
    operator(pipeline, "target_rows")["predicate"] = "event = 'like'"
    run = edited(project, pipeline)
    assert run.table(SECOND)["artwork_id"].to_pylist() == [12]
    assert run.table(SECOND)["seen"].to_pylist() == [1]  # history is not filtered


def test_a_predicate_in_the_scan_is_another_history(project: Project) -> None:
    pipeline = body(project)
    operator(pipeline, "events")["predicate"] = "artwork_id <> 10"
    assert edited(project, pipeline).table(SECOND)["liked"].to_pylist() == [[], []]


def test_a_shorter_scan_is_a_shorter_history(project: Project) -> None:
    pipeline = body(project)
    operator(pipeline, "events")["lookback_seconds"] = 0.0
    assert edited(project, pipeline).table(SECOND)["liked"].to_pylist() == [[], [], [12]]


@pytest.mark.parametrize(("tag", "engine"), [("sql_arrow_udf", "kernel"), ("sql_arrow_udf", "polars")])
def test_another_tag_runs_other_code_for_the_same_values(
    project: Project, monkeypatch: pytest.MonkeyPatch, tag: str, engine: str
) -> None:
    ran: list[str] = []

    class Watched(aggregate.Aggregation):
        def __init__(self, *args: Any, **options: Any) -> None:
            ran.append(str(options["engine"]))
            super().__init__(*args, **options)

    monkeypatch.setattr(day_aggregates, "Aggregation", Watched)
    expected = project.run("s", engine="duckdb").hashes
    assert ran == []  # all in SQL
    pipeline = body(project)
    operator(pipeline, "rolling").update(engine=tag, rolling_engine=engine)
    run = edited(project, pipeline)
    assert set(run.states.values()) == {"written"}
    assert run.hashes == expected
    assert set(ran) == {engine}


@pytest.mark.slow
def test_the_pythonic_tag_runs_on_ray_for_the_same_values(project: Project) -> None:
    import ray

    expected = project.run("s").hashes
    assert not ray.is_initialized()
    pipeline = body(project)
    operator(pipeline, "rolling").update(engine="pythonic", rolling_engine="kernel")
    process = {"op_kind": "arrow_udf_transform", "name": "where", "function": "pipelines.udfs:process_id"}
    with_udf = body(project)
    insert_after(
        with_udf,
        "rolling",
        {**process, "engine": "pythonic", "arguments": ["liked"], "column": "pid", "dtype": "BIGINT"},
    )
    operator(with_udf, "output")["columns"].append({"name": "pid", "sql": "pid", "dtype": "BIGINT"})
    try:
        assert edited(project, pipeline).hashes == expected
        assert ray.is_initialized()
        # Another process made the column.
        assert os.getpid() not in edited(project, with_udf).table(SECOND)["pid"].to_pylist()
    finally:
        ray.shutdown()


# ---------------------------------------------------------------------- Arrow functions


def test_an_arrow_function_after_rolling(project: Project) -> None:
    pipeline = body(project)
    count = {"op_kind": "arrow_udf_transform", "name": "count", "function": "list_length"}
    insert_after(
        pipeline, "rolling", {**count, "arguments": ["liked"], "column": "n_liked", "dtype": "BIGINT"}
    )
    operator(pipeline, "output")["columns"].append({"name": "n_liked", "sql": "n_liked", "dtype": "BIGINT"})
    table = edited(project, pipeline).table(SECOND)
    assert table["n_liked"].to_pylist() == [1, 1, 2]
    assert table["score"].to_pylist() == [3, 3, 3]  # the default of a column that the source lacks


@pytest.mark.parametrize("rows_per_chunk", [1, 2, 100])
def test_an_arrow_function_before_rolling(
    project: Project, monkeypatch: pytest.MonkeyPatch, rows_per_chunk: int
) -> None:
    # Its column is history: rolling reads all of it, so it cannot pass in chunks.
    monkeypatch.setattr(day_stream, "CHUNK_ROWS", rows_per_chunk)
    pipeline = body(project)
    udf = {"op_kind": "arrow_udf_transform", "name": "hundreds", "function": "pipelines.udfs:hundreds"}
    insert_after(pipeline, "events", {**udf, "arguments": ["artwork_id"], "column": "big", "dtype": "BIGINT"})
    operator(pipeline, "rolling")["specs"][0]["value_column"] = "big"
    run = edited(project, pipeline)
    assert run.table(SECOND)["liked"].to_pylist() == [[1000], [1000], [1000, 1200]]
    assert run.table(FIRST)["qid"].to_pylist() == [0, 1]


@pytest.mark.parametrize("rows_per_chunk", [1, 2, 100])
def test_groups_are_counted_over_the_whole_day(
    project: Project, monkeypatch: pytest.MonkeyPatch, rows_per_chunk: int
) -> None:
    # An Arrow function before a filter that counts over groups: chunks must not cut the groups.
    monkeypatch.setattr(day_stream, "CHUNK_ROWS", rows_per_chunk)
    pipeline = body(project)
    udf = {"op_kind": "arrow_udf_transform", "name": "shout", "function": "pipelines.udfs:shout"}
    insert_after(pipeline, "rolling", {**udf, "arguments": ["event"], "column": "loud", "dtype": "TEXT"})
    insert_after(
        pipeline,
        "shout",
        {
            "op_kind": "filter",
            "name": "pairs",
            "group_by": ["session"],
            "counts": {"__rows": "true", "__likes": "loud = 'LIKE'"},
            "predicate": "__rows = 2 AND __likes = 1",
        },
    )
    assert edited(project, pipeline).table(SECOND)["artwork_id"].to_pylist() == [11, 12]


@pytest.mark.parametrize(
    ("function", "what"),
    [
        ("pipelines.udfs:too_few", "2 values for 3 rows"),
        ("pipelines.udfs:fails", "by nought"),
        ("list_lenght", "list_length"),
        ("pipelines.udfs:nothing", "nothing"),
        ("pipelines.udfs:plain", "returned a list, not an Arrow array"),
        ("pipelines.udfs:NOT_ONE", "is no function, but a int"),
        ("broken_udfs:any", "RuntimeError: not today"),
    ],
)
def test_what_is_wrong_with_a_function_names_its_operator(
    project: Project, function: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "broken_udfs.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(modules)
    pipeline = body(project)
    udf = {"op_kind": "arrow_udf_transform", "name": "mine", "function": function, "arguments": ["seen"]}
    insert_after(pipeline, "rolling", {**udf, "column": "made", "dtype": "BIGINT"})
    with pytest.raises(DaedalusError) as caught:
        edited(project, pipeline, (SECOND,))
    assert what in str(caught.value)
    assert "mine" in str(caught.value)


# ---------------------------------------------------------------------- refusals


def _cycle(pipeline: Body) -> None:
    operator(pipeline, "target_rows")["inputs"] = ["join_qid"]


def _own_input(pipeline: Body) -> None:
    operator(pipeline, "target_rows")["inputs"] = ["target_rows"]


def _unknown_input(pipeline: Body) -> None:
    operator(pipeline, "rolling")["inputs"] = ["join_qidd", "events"]


def _duplicate_name(pipeline: Body) -> None:
    pipeline["operators"].insert(1, copy.deepcopy(pipeline["operators"][0]))


def _duplicate_output(pipeline: Body) -> None:
    operator(pipeline, "users")["output"] = "events"


def _wrong_tier(pipeline: Body) -> None:
    operator(pipeline, "join_users")["engine"] = "pythonic"


def _wrong_rolling_engine(pipeline: Body) -> None:
    operator(pipeline, "rolling")["rolling_engine"] = "pandas"


def _sql_on_polars(pipeline: Body) -> None:
    operator(pipeline, "rolling").update(engine="sql", rolling_engine="polars")


def _unknown_engine(pipeline: Body) -> None:
    operator(pipeline, "rolling")["engine"] = "spark"


def _unknown_kind(pipeline: Body) -> None:
    operator(pipeline, "rolling")["op_kind"] = "rolling_agregate"


def _unknown_key(pipeline: Body) -> None:
    operator(pipeline, "rolling")["spec"] = []


def _missing_key(pipeline: Body) -> None:
    del operator(pipeline, "events")["source_ref"]


def _wrong_type(pipeline: Body) -> None:
    operator(pipeline, "events")["ordered"] = "yes"


def _unknown_column(pipeline: Body) -> None:
    operator(pipeline, "target_rows")["predicate"] = "evnt = 'like'"


def _unknown_output(pipeline: Body) -> None:
    operator(pipeline, "rolling")["specs"] = operator(pipeline, "rolling")["specs"][:1]


def _unknown_group_key(pipeline: Body) -> None:
    operator(pipeline, "rolling")["specs"][0]["group_by"] = ["usr_id"]


def _bad_spec(pipeline: Body) -> None:
    operator(pipeline, "rolling")["specs"][0]["operation"] = "median"


def _subquery(pipeline: Body) -> None:
    operator(pipeline, "target_rows")["predicate"] = "user_id IN (SELECT 1)"


def _no_sink(pipeline: Body) -> None:
    pipeline["operators"].pop()


def _two_sinks(pipeline: Body) -> None:
    pipeline["operators"].append(operator(pipeline, "sink") | {"name": "sink2"})


def _sessions_from_nowhere(pipeline: Body) -> None:
    operator(pipeline, "sink")["sessions_from"] = "evnts"


def _session_column_unknown(pipeline: Body) -> None:
    operator(pipeline, "sink")["session_column"] = "sesion"


def _one_input_too_few(pipeline: Body) -> None:
    operator(pipeline, "join_users")["inputs"] = ["target_rows"]


def _unknown_value(pipeline: Body) -> None:
    operator(pipeline, "rolling")["specs"][0]["value_column"] = "artwrk_id"


def _unknown_in_condition(pipeline: Body) -> None:
    operator(pipeline, "rolling")["specs"][0]["condition"] = "hist.evnt = 'like'"


def _unknown_history(pipeline: Body) -> None:
    operator(pipeline, "rolling")["specs"][0]["history_view"] = "users"


def _one_spec_twice(pipeline: Body) -> None:
    operator(pipeline, "rolling")["specs"][1]["name"] = "liked"


def _unknown_created(pipeline: Body) -> None:
    operator(pipeline, "join_users")["created_column"] = "updated"


def _unknown_how(pipeline: Body) -> None:
    operator(pipeline, "join_qid")["how"] = "outer"


def _unknown_dtype(pipeline: Body) -> None:
    operator(pipeline, "output")["columns"][0]["dtype"] = "BIGGINT"


def _unknown_restricting_column(pipeline: Body) -> None:
    operator(pipeline, "users")["restrict"] = {"user_id": "usr_id"}


def _negative_span(pipeline: Body) -> None:
    operator(pipeline, "join_users")["ttl_seconds"] = -5


def _other_folders(pipeline: Body) -> None:
    operator(pipeline, "sink")["partition"] = "day"


def _unknown_view(pipeline: Body) -> None:
    operator(pipeline, "users")["source_ref"] = "usrs"


def _unknown_field(pipeline: Body) -> None:
    operator(pipeline, "users")["columns"].append("teir")


def _unknown_key_field(pipeline: Body) -> None:
    operator(pipeline, "users").update(keep="newest", keys=["usr_id"])


def _unknown_field_in_predicate(pipeline: Body) -> None:
    operator(pipeline, "events")["predicate"] = "evnt = 'like'"


def _unknown_run_relation(pipeline: Body) -> None:
    operator(pipeline, "qid_map")["source_ref"] = "run:qidmap"


def _three_columns_of_the_map(pipeline: Body) -> None:
    operator(pipeline, "qid_map")["columns"].append("more")


def _join_on_nothing(pipeline: Body) -> None:
    del operator(pipeline, "join_users")["on"]


def _spine_without_order(pipeline: Body) -> None:
    operator(pipeline, "events")["ordered"] = False


def _versions_without_order(pipeline: Body) -> None:
    operator(pipeline, "users")["ordered"] = False


def _field_twice(pipeline: Body) -> None:
    operator(pipeline, "events")["columns"].append("event")


def _kept_per_nothing(pipeline: Body) -> None:
    operator(pipeline, "users")["keep"] = "newest"


def _no_name(pipeline: Body) -> None:
    operator(pipeline, "sink")["name"] = ""


REFUSALS: list[tuple[Callable[[Body], None], str]] = [
    (_cycle, "operator target_rows: input 'join_qid' is made by 'join_qid'"),
    (_own_input, "operator target_rows: input 'target_rows'"),
    (_unknown_input, "operator rolling: unknown input 'join_qidd'. Did you mean 'join_qid'?"),
    (_duplicate_name, "'events' is used twice"),
    (_duplicate_output, "operator users: relation 'events' is made twice"),
    (_wrong_tier, "operator join_users: a pit_join cannot run on engine 'pythonic'. It runs on: sql"),
    (_wrong_rolling_engine, "operator rolling: unknown rolling_engine 'pandas'"),
    (_sql_on_polars, "operator rolling: rolling_engine 'polars' does not run as SQL"),
    (_unknown_engine, "operator rolling, engine: unknown value 'spark'"),
    (
        _unknown_kind,
        "operator rolling: unknown op_kind 'rolling_agregate'. Did you mean 'rolling_aggregate'?",
    ),
    (_unknown_key, "operator rolling: unknown key 'spec'. Did you mean 'specs'?"),
    (_missing_key, "operator events: missing key 'source_ref'"),
    (_wrong_type, "operator events, ordered"),
    (_unknown_column, "operator target_rows, predicate: unknown column evnt in"),
    (_unknown_output, "operator output, column seen"),
    (_unknown_group_key, "operator rolling, spec liked: its input has no column 'usr_id'"),
    (_unknown_value, "operator rolling, spec liked: its history has no column 'artwrk_id'. Did you mean"),
    (_unknown_in_condition, "operator rolling, spec liked, condition: unknown column hist.evnt in"),
    (
        _unknown_history,
        "operator rolling, spec liked: no input is named in histories for history_view 'users'",
    ),
    (_one_spec_twice, "operator rolling: column 'liked' is made twice"),
    (_unknown_created, "operator join_users: its input has no column 'updated'"),
    (_unknown_how, "operator join_qid, how: unknown value 'outer'. Known: inner, left."),
    (_unknown_dtype, "operator output, column user_id: unknown dtype 'BIGGINT'. Did you mean 'BIGINT'"),
    (_unknown_restricting_column, "operator users: its input has no column 'usr_id'"),
    (_negative_span, "operator join_users: ttl_seconds is -5"),
    (_other_folders, "operator sink: partition is 'day'"),
    (_unknown_view, "operator users: unknown view 'usrs'. Did you mean 'users'?"),
    (_unknown_field, "operator users: view users has no field 'teir'. Did you mean 'tier'?"),
    (_unknown_key_field, "operator users: view users has no field 'usr_id'. Did you mean 'user_id'?"),
    (_unknown_field_in_predicate, "operator events, predicate: unknown column evnt in"),
    (_unknown_run_relation, "operator qid_map: unknown relation 'run:qidmap' of the run. Did you mean"),
    (_three_columns_of_the_map, "operator qid_map: it has 3 columns. Name a session's and a number's"),
    (_join_on_nothing, "operator join_users: it joins on nothing. Write on:"),
    (_spine_without_order, "operator rolling: its input has no total order. Set ordered: true"),
    (_versions_without_order, "operator join_users: its input has no total order"),
    (_field_twice, "operator events: column 'event' is read twice"),
    (_kept_per_nothing, "operator users: keep without keys"),
    (_no_name, "a sink has no name"),
    (_bad_spec, "operator rolling, specs"),
    (_subquery, "operator target_rows, predicate"),
    (_no_sink, "a pipeline ends with one sink"),
    (_two_sinks, "a pipeline ends with one sink"),
    (
        _sessions_from_nowhere,
        "operator sink: unknown relation 'evnts' in sessions_from. Did you mean 'events'?",
    ),
    (_session_column_unknown, "operator sink: its input has no column 'sesion'"),
    (_one_input_too_few, "operator join_users: it has 1 inputs"),
]


@pytest.mark.parametrize(("mistake", "message"), REFUSALS, ids=lambda one: getattr(one, "__name__", ""))
def test_mistakes_are_refused_by_name(
    project: Project, mistake: Callable[[Body], None], message: str
) -> None:
    pipeline = body(project)
    mistake(pipeline)
    with pytest.raises(DaedalusError) as caught:
        edited(project, pipeline)
    assert message in str(caught.value)
    assert "s.yaml" in str(caught.value)
    assert not (project.root / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", "a: [", "service: s", "{service: s, operators: [1]}"])
def test_what_is_no_pipeline_is_refused(text: str) -> None:
    with pytest.raises(CompileError, match=r"s\.yaml"):
        pipeline_from_yaml(text, "s.yaml")


# ---------------------------------------------------------------------- curation before the content filter

CURATED = {
    "curation": [
        {"name": "fix", "column": "event", "sql": "CASE WHEN artwork_id = 10 THEN 'kept' ELSE event END"}
    ],
    "content_filter": [{"name": "only_kept", "sql": "event = 'kept'"}],
}


def test_rows_that_curation_mends_survive(tmp_path: Path) -> None:
    run = tiny(tmp_path, service=CURATED).run("s")
    assert [run.table(day)["artwork_id"].to_pylist() for day in DAYS] == [[10], [10], []]
    assert run.table(SECOND)["event"].to_pylist() == ["kept"]


def _swap(pipeline: Body, curation: Body) -> None:
    """The content filter in front of what stands for the curation."""
    operators = pipeline["operators"]
    before = operator(pipeline, "curate_fix")["inputs"]
    operators.remove(operator(pipeline, "curate_fix"))
    wanted = operator(pipeline, "filter_only_kept")
    wanted["inputs"] = before
    operators.insert(operators.index(wanted) + 1, curation | {"inputs": ["filter_only_kept"]})
    operator(pipeline, "output")["inputs"] = [curation["name"]]


def test_a_filter_before_its_curation_is_refused(tmp_path: Path) -> None:
    project = tiny(tmp_path, service=CURATED)
    pipeline = body(project)
    _swap(pipeline, copy.deepcopy(operator(pipeline, "curate_fix")))
    with pytest.raises(CompileError) as caught:
        edited(project, pipeline)
    assert "operator filter_only_kept: it filters on 'event' before 'curate_fix' rewrites it" in str(
        caught.value
    )
    assert "curation precedes the content filter" in str(caught.value)


def test_a_filter_before_a_curation_in_arrow_is_refused(tmp_path: Path) -> None:
    project = tiny(tmp_path, service=CURATED)
    pipeline = body(project)
    udf = {"op_kind": "arrow_udf_transform", "name": "loud", "function": "pipelines.udfs:shout"}
    _swap(pipeline, {**udf, "arguments": ["event"], "column": "event", "dtype": "TEXT"})
    with pytest.raises(CompileError, match="operator filter_only_kept: it filters on 'event' before 'loud'"):
        edited(project, pipeline)


# ---------------------------------------------------------------------- refusals that only data can show


def test_a_lookup_that_would_multiply_rows_is_refused(tmp_path: Path) -> None:
    project = tiny(tmp_path, service={"views": [{"view": "users"}]})
    pipeline = body(project)
    scan = operator(pipeline, "users")
    del scan["keep"], scan["keys"]
    with pytest.raises(ExecutionError, match="several rows for 1"):
        edited(project, pipeline)


def test_the_other_service_s_file_is_refused(project: Project) -> None:
    with pytest.raises(CompileError, match="this file says service 'other'"):
        edited(project, body(project) | {"service": "other"})


def test_a_column_of_the_session_map_cannot_be_a_contract_column(tmp_path: Path) -> None:
    columns = [*SERVICE["columns"], {"name": "qid", "ref": "events:score"}]
    with pytest.raises(DaedalusError, match="qid"):
        tiny(tmp_path, service={"columns": columns}).pipeline("s")


def test_curation_does_not_reach_history(tmp_path: Path) -> None:
    # What a curation rewrites is the row's own value; rolling aggregation has read the source's.
    run = tiny(
        tmp_path,
        service=CURATED | {"content_filter": []},
        data={"events/x.parquet": column("score", [1, 2], pa.int32())},
    ).run("s", [SECOND])
    assert run.table(SECOND)["liked"].to_pylist()[2] == [10, 10, 12]


def test_explain_composes_what_reads_aggregates_made_in_arrow(tmp_path: Path) -> None:
    derived = [{"name": "busy", "sql": "seen > 3"}]
    columns = [*SERVICE["columns"], "derived:busy"]
    project = tiny(tmp_path, service={"derived": derived, "columns": columns})
    config = project.config()
    found = explain_pipeline(
        project.pipeline("s"),
        catalog=project.catalog(config),
        config=config,
        day=dt.date.fromisoformat(SECOND),
    )
    statements = {one.name: one.sql for one in found.operators}
    assert '"seen" > 3' in statements["derived_busy"]
    assert statements["rolling"] == ""  # no SQL runs there
    # As it runs: a list of BIGINT is the contract's own type, and is not cast.
    assert '"liked" AS "liked"' in statements["output"]
