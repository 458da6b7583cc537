"""Operators to YAML and back: nothing lost, nothing respelled; the compiled examples are golden files."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from daedalus.catalog.aggregation import AggregationSpec
from daedalus.catalog.model import Unset
from daedalus.pipelines import operators as ops
from daedalus.pipelines.pipeline_files import pipeline_from_yaml, pipeline_to_yaml, write_generated
from support.project import Project

EXAMPLES = Path(__file__).parents[2] / "examples"
GOLDEN = Path(__file__).parents[1] / "golden" / "pipelines"
SERVICES = [("pixai", "dssm_ranking"), ("pixai", "xgb_reranker"), ("flights", "flight_delay")]


def compiled(example: str, service: str) -> ops.OperatorPipeline:
    return Project(EXAMPLES / example).pipeline(service)


# ---------------------------------------------------------------------- the examples


@pytest.mark.parametrize(("example", "service"), SERVICES)
def test_the_compiled_pipeline_is_the_reviewed_one(
    example: str, service: str, request: pytest.FixtureRequest
) -> None:
    path = GOLDEN / f"{service}.yaml"
    text = pipeline_to_yaml(compiled(example, service))
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), "review the change, then: pytest tests/pipelines --update-golden"


@pytest.mark.parametrize(("example", "service"), SERVICES)
def test_a_compiled_pipeline_goes_through_yaml_byte_for_byte(example: str, service: str) -> None:
    pipeline = compiled(example, service)
    text = pipeline_to_yaml(pipeline)
    again = pipeline_from_yaml(text)
    assert again == pipeline
    assert pipeline_to_yaml(again) == text
    assert pipeline_to_yaml(compiled(example, service)) == text


def test_the_generated_file_is_the_same_text_below_its_header(tmp_path: Path) -> None:
    pipeline = compiled("pixai", "xgb_reranker")
    path = write_generated(pipeline, tmp_path)
    assert path.name == "xgb_reranker.generated.yaml"
    assert path.read_text().startswith("# Compiled from the service definition")
    assert path.read_text().endswith(pipeline_to_yaml(pipeline))
    assert pipeline_from_yaml(path.read_text()) == pipeline


def test_only_what_the_contract_asks_for_is_compiled() -> None:
    ranking, reranker = compiled("pixai", "dssm_ranking"), compiled("pixai", "xgb_reranker")
    assert [one.name for one in ranking.by_kind("ray_udf_transform")] == [
        "enrich_image_embedding",
        "enrich_like_artwork_avg_embeds",
    ]
    assert reranker.by_kind("ray_udf_transform") == ()
    assert reranker.by_kind("pit_join") == ()
    assert "artwork_tack" not in {getattr(one, "source_ref", "") for one in reranker}


def test_definitions_elsewhere_compile_to_the_same_text(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "flights", tmp_path / "moved", ignore=shutil.ignore_patterns("data", "output"))
    moved = pipeline_to_yaml(Project(tmp_path / "moved").pipeline("flight_delay"))
    assert moved == pipeline_to_yaml(compiled("flights", "flight_delay"))


# ---------------------------------------------------------------------- any operator

names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(
    str.strip  # a spec refuses blanks for a name
)
texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
many = st.lists(names, max_size=3).map(tuple)
mapping = st.dictionaries(names, texts, max_size=3).map(lambda found: tuple(found.items()))
seconds = st.floats(0, 1e12, allow_nan=False)
maybe_seconds = st.none() | seconds
days = st.none() | st.integers(1, 400) | st.floats(1e-3, 400)
defaults = (
    st.just(Unset.UNSET)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | texts
    | st.lists(st.integers() | texts, max_size=3)
)


@st.composite
def specs(draw: st.DrawFn) -> AggregationSpec:
    operation = draw(st.sampled_from(["list", "count", "last", "seconds_since_last"]))
    history = draw(st.none() | names)
    return AggregationSpec(
        name=draw(names),
        group_by=draw(st.lists(names, min_size=1, max_size=2, unique=True).map(tuple)),
        operation=operation,
        value_column=draw(names),
        timestamp_column=draw(names),
        window_days=draw(days),
        max_items=draw(st.none() | st.integers(1, 99)),
        delay_seconds=draw(st.integers(0, 9999)),
        history_view=history,
    )


@st.composite
def project_columns(draw: st.DrawFn) -> ops.ProjectColumn:
    return ops.ProjectColumn(
        name=draw(names),
        sql=draw(texts),
        dtype=draw(texts),
        default=draw(defaults),
        default_sql=draw(texts),
        nullable=draw(st.booleans()),
    )


columns = st.lists(project_columns(), max_size=3).map(tuple)
spec_tuples = st.lists(specs(), max_size=2).map(tuple)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": names,
    "inputs": many,
    "output": texts,
    "engine": st.sampled_from(list(ops.Engine)),
    "time_range": st.sampled_from(list(ops.TimeRange)),
    "qid": st.sampled_from(list(ops.QidKind)),
    "format": st.sampled_from(list(ops.SinkFormat)),
    "how": st.sampled_from(list(ops.JoinKind)),
    "keep": st.none() | st.sampled_from(list(ops.Keep)),
    "lookback_seconds": seconds,
    "delay_seconds": seconds,
    "ttl_seconds": maybe_seconds,
    "keys": many,
    "group_by": many,
    "arguments": many,
    "restrict": mapping,
    "on": mapping,
    "counts": mapping,
    "histories": mapping,
    "ordered": st.booleans(),
    "target_day": st.booleans(),
    "extend": st.booleans(),
    "specs": spec_tuples,
    "dimension": st.none() | st.integers(1, 4096),
}


@st.composite
def operators(draw: st.DrawFn) -> ops.AnyOperator:
    """Any operator of any kind, every field set to anything of its type."""
    kind = draw(st.sampled_from(list(ops.OPERATOR_KINDS.values())))
    values = {}
    for field in dataclasses.fields(kind):
        strategy = FIELDS.get(field.name, texts)
        if field.name == "columns":
            strategy = {ops.Scan: many, ops.Project: columns}.get(kind, mapping)
        values[field.name] = draw(strategy)
    return kind(**values)


@given(operators())
def test_from_dict_undoes_to_dict(operator: ops.AnyOperator) -> None:
    plain = operator.to_dict()
    again = ops.operator_from_dict(plain)
    assert again == operator
    assert repr(again) == repr(operator)  # 1 is no 1.0 and no True
    assert again.to_dict() == plain


@given(st.lists(operators(), max_size=4))
@example([ops.Filter(name="f", predicate="a\x85b\u2028c\u2029d\ne")])
def test_yaml_text_undoes_itself(found: list[ops.AnyOperator]) -> None:
    pipeline = ops.OperatorPipeline(service="s", version="2026-01-01", operators=tuple(found))
    text = pipeline_to_yaml(pipeline)
    again = ops.OperatorPipeline.from_yaml_dict(yaml.safe_load(text))
    assert repr(again) == repr(pipeline)
    assert pipeline_to_yaml(again) == text


@given(operators())
def test_every_kind_is_an_operator(operator: ops.AnyOperator) -> None:
    assert isinstance(operator, ops.Operator)
    assert operator.to_dict()["op_kind"] == operator.op_kind
    assert operator.output
    assert operator.can_run_on() <= frozenset(ops.Engine)


def test_there_are_nine_kinds_and_three_tiers() -> None:
    assert sorted(ops.OPERATOR_KINDS) == [
        "arrow_udf_transform",
        "filter",
        "join",
        "pit_join",
        "project",
        "ray_udf_transform",
        "rolling_aggregate",
        "scan",
        "sink",
    ]
    assert [str(engine) for engine in ops.Engine] == ["sql", "sql_arrow_udf", "pythonic"]
    assert ops.RayUdfTransform(name="x", udf_name="u", source_id_column="i", store_name="s").can_run_on() == {
        ops.Engine.PYTHONIC
    }


@pytest.mark.parametrize("value", [math.inf, dt.date(2026, 5, 1)])
def test_a_value_that_yaml_has_no_text_for_is_not_lost(value: Any) -> None:
    column = ops.ProjectColumn(name="x", default=value)
    project = ops.Project(name="p", columns=(column,))
    pipeline = ops.OperatorPipeline(service="s", version="1", operators=(project,))
    assert ops.OperatorPipeline.from_yaml_dict(yaml.safe_load(pipeline_to_yaml(pipeline))) == pipeline
