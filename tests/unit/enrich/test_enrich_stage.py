"""The enrich stage in this process: values, contracts, resume, and what must not be left behind."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.embeddings import (
    DAY,
    expected_mean,
    lookup,
    make_store,
    pool,
    read_day,
    skeleton_table,
    store_def,
    vector_table,
    vectors_of,
    write_skeleton,
    write_source,
)

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.pipelines.dynamic_feature import EnrichProgress, EnrichResult, run_enrich_stage
from daedalus.pipelines.enrich import columns as enrich_columns
from daedalus.pipelines.enrich import plan as enrich_plan
from daedalus.pipelines.enrich import shards as enrich_shards
from daedalus.storage.embedding_store import build_store

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.metadata.days import DayStore
    from daedalus.storage.embedding_store import EmbeddingStoreDef

OPERATORS = (lookup("image", "item_id"), pool("liked_mean", "liked"))


class Project:
    """A store of 200 vectors and one skeleton day."""

    def __init__(self, folder: Path, *, rows: int = 3000, dtype: str = "float16", files: int = 2) -> None:
        from daedalus.metadata.days import DayStore

        self.folder = folder
        values = vectors_of(range(200), 8, dtype)
        self.store: EmbeddingStoreDef = make_store(folder, range(200), values)
        self.vectors: dict[Any, np.ndarray] = dict(enumerate(values))
        self.table = skeleton_table(rows, ids=200)
        self.skeleton: DayStore = write_skeleton(folder / "skeleton", self.table, files=files)
        self.output = DayStore(folder / "enriched")

    def run(self, **changes: Any) -> EnrichResult:
        settings = {
            "skeleton": self.skeleton,
            "output": self.output,
            "days": [DAY],
            "operators": OPERATORS,
            "stores": {"items": self.store},
            "runtime": "in_process",
        } | changes
        return run_enrich_stage(**settings)

    def leftovers(self) -> list[str]:
        """Anything in the output that is neither a day nor a lock."""
        return [
            path.name for path in self.output.root.iterdir() if not path.name.startswith(("dt=", ".locks"))
        ]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def check_values(project: Project, enriched: pa.Table, tolerance: float) -> None:
    for item, value in zip(
        project.table.column("item_id").to_pylist(), enriched.column("image").to_pylist(), strict=True
    ):
        wanted = project.vectors.get(item)
        assert (value is None) == (wanted is None)
        assert wanted is None or value == wanted.tolist()
    for ids, value in zip(
        project.table.column("liked").to_pylist(), enriched.column("liked_mean").to_pylist(), strict=True
    ):
        wanted = expected_mean(ids, project.vectors)
        assert (value is None) == (wanted is None)
        assert wanted is None or np.allclose(value, wanted, rtol=tolerance, atol=tolerance)


def test_columns_are_filled_and_the_rest_is_untouched(project: Project) -> None:
    result = project.run()
    enriched = read_day(project.output)
    check_values(project, enriched, tolerance=2**-10)
    others = [name for name in project.table.schema.names if name != "image"]
    assert enriched.select(others).equals(read_day(project.skeleton).select(others), check_metadata=True)
    assert enriched.select(others).equals(project.table.select(others))
    assert enriched.schema.names == [*project.table.schema.names, "liked_mean"]
    assert enriched.schema.metadata == {b"service": b"ranking"}
    assert enriched.schema.field("image").metadata[b"shape"] == b"d"
    assert enriched.schema.field("image").type == pa.list_(pa.float16())
    (day,) = result.days
    assert (day.rows, day.written, day.reason, result.workers) == (3000, True, "not there yet", 1)
    assert dict(day.nulls) == {
        "image": enriched.column("image").null_count,
        "liked_mean": enriched.column("liked_mean").null_count,
    }
    assert 0 < dict(day.nulls)["liked_mean"] < 3000
    assert project.leftovers() == []


def test_float32_store(tmp_path: Path) -> None:
    project = Project(tmp_path, dtype="float32")
    table = project.table.set_column(1, "image", pa.nulls(3000, pa.list_(pa.float32())))
    project.skeleton = write_skeleton(tmp_path / "skeleton", table)
    project.run(
        operators=[lookup("image", "item_id", dtype="FLOAT[]"), pool("liked_mean", "liked", dtype="FLOAT[]")]
    )
    enriched = read_day(project.output)
    assert enriched.schema.field("liked_mean").type == pa.list_(pa.float32())
    check_values(project, enriched, tolerance=1e-6)


def test_fixed_size_contract(project: Project) -> None:
    project.run(operators=[pool("liked_mean", "liked", dtype="HALF_FLOAT[8]")])
    column = read_day(project.output).column("liked_mean")
    assert column.type == pa.list_(pa.float16(), 8)
    for ids, value in zip(project.table.column("liked").to_pylist(), column.to_pylist(), strict=True):
        assert (value is None) == (expected_mean(ids, project.vectors) is None)


def test_text_ids_and_two_stores(tmp_path: Path) -> None:
    project = Project(tmp_path / "a", rows=50)
    names = [f"c{i}" for i in range(3)]
    values = vectors_of(names, 5, "float32")
    places = make_store(tmp_path / "b", names, values, name="places")
    operators = [*OPERATORS, lookup("place", "country", "places", dtype="FLOAT[]", dimension=5)]
    result = project.run(operators=operators, stores={"items": project.store, "places": places})
    enriched = read_day(project.output)
    wanted = dict(zip(names, values.tolist(), strict=True))
    assert enriched.column("place").to_pylist() == [
        wanted.get(c) for c in project.table.column("country").to_pylist()
    ]
    check_values(project, enriched, tolerance=2**-10)
    assert [name for name, _ in result.store_versions] == ["items", "places"]


@pytest.mark.parametrize("kind", [pa.large_list(pa.int32()), pa.list_(pa.int64(), 3), pa.list_(pa.uint16())])
def test_every_list_of_ids_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    project = Project(tmp_path)
    ids = pa.array([[1, 2, 2], None, [3, None, 9999], [4, 4, 4]], kind)
    project.skeleton = write_skeleton(tmp_path / "skeleton", pa.table({"liked": ids}))
    project.run(operators=[pool("liked_mean", "liked")])
    means = read_day(project.output).column("liked_mean").to_pylist()
    for given, value in zip(ids.to_pylist(), means, strict=True):
        wanted = expected_mean(given, project.vectors)
        assert (value is None) == (wanted is None)
        assert wanted is None or np.allclose(value, wanted, atol=2**-10)


def test_dictionary_ids_and_empty_day(tmp_path: Path) -> None:
    project = Project(tmp_path)
    ids = pa.array([5, None, 5, 7]).dictionary_encode()
    project.skeleton = write_skeleton(tmp_path / "skeleton", pa.table({"item_id": ids}))
    write_skeleton(tmp_path / "skeleton", pa.table({"item_id": ids.slice(0, 0)}), day=dt.date(2026, 3, 2))
    days = [DAY, dt.date(2026, 3, 2)]
    result = project.run(operators=[lookup("image", "item_id")], days=days)
    wanted = [project.vectors[5].tolist(), None, project.vectors[5].tolist(), project.vectors[7].tolist()]
    assert read_day(project.output).column("image").to_pylist() == wanted
    empty = read_day(project.output, days[1])
    assert (len(empty), empty.schema.names) == (0, ["item_id", "image"])
    assert [day.rows for day in result.days] == [4, 0]


def test_shards_do_not_depend_on_the_skeletons_files_or_on_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrich_shards, "SHARD_ROWS", 1024)
    monkeypatch.setattr(enrich_shards, "BATCH_ROWS", 256)
    project = Project(tmp_path, rows=5000, files=1)
    first = project.run().days[0]
    written = {path.name: path.read_bytes() for path in first.path.glob("*.parquet")}
    assert sorted(written) == [f"part-{n}-0.parquet" for n in range(5)]
    rows = [pq.read_metadata(first.path / f"part-{n}-0.parquet").num_rows for n in range(5)]
    assert rows == [1024] * 4 + [904]
    assert read_day(project.output).column("user_id").to_pylist() == list(range(5000))

    project.skeleton = write_skeleton(tmp_path / "skeleton", project.table, files=3, groups=97)
    monkeypatch.setattr(enrich_columns, "_MIN_CACHED", 3)
    monkeypatch.setattr("daedalus.pipelines.enrich.runtime._MAX_CACHE_BYTES", 1)
    second = project.run().days[0]
    assert second.reason == "its skeleton changed"
    assert {path.name: path.read_bytes() for path in second.path.glob("*.parquet")} == written
    assert second.content_hash == first.content_hash


def test_resume_says_why(project: Project, tmp_path: Path) -> None:
    first = project.run()
    said: list[str] = []
    again = project.run(notify=said.append)
    assert (again.days[0].written, again.days[0].reason, again.workers, said) == (False, "up to date", 0, [])
    assert again.days[0].nulls == first.days[0].nulls
    assert project.run(refresh=True).days[0].reason == "asked for"

    fixed = [OPERATORS[0], pool("liked_mean", "liked", dtype="HALF_FLOAT[8]")]
    assert project.run(operators=fixed).days[0].reason == (
        "column liked_mean changed (dtype HALF_FLOAT[] to HALF_FLOAT[8])"
    )
    assert project.run(operators=OPERATORS[:1]).days[0].reason == "column liked_mean is gone"
    assert project.run().days[0].reason == "column liked_mean is new"

    table = vector_table(range(200), vectors_of(range(200), 8, seed=9))
    write_source(tmp_path / "source/vectors.parquet", table, mtime=60)
    build_store(project.store)
    changed = project.run(notify=said.append)
    assert changed.days[0].reason == "store items changed, version 2 to 4"
    assert said == ["enrich 2026-03-01 again: store items changed, version 2 to 4"]

    write_skeleton(tmp_path / "skeleton", project.table.slice(1))
    assert project.run().days[0].reason == "its skeleton changed"


def test_progress_counts_rows(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrich_shards, "SHARD_ROWS", 1024)
    seen: list[EnrichProgress] = []
    project.run(progress=seen.append)
    assert [(one.rows_done, one.rows_total) for one in seen] == [(1024, 3000), (2048, 3000), (3000, 3000)]


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lookup("image", "item_id", "itemz"), r"unknown embedding store 'itemz'.*Did you mean 'items'"),
        (lookup("image", "item_id", udf_name="lookup_embeding_udf"), r"Did you mean 'lookup_embedding_udf'"),
        (lookup("image", "itme_id"), r"no id column 'itme_id'.*Did you mean 'item_id'"),
        (lookup("image", "image"), r"no id column 'image'"),
        (lookup("image", "liked"), r"takes one id per row, column liked is list"),
        (pool("image", "item_id"), r"takes a list of ids per row, column item_id is int64"),
        (lookup("image", "country"), r"ids here are string, those of embedding store items are int64"),
        (lookup("image", "score"), r"ids are integers or text, this column is double"),
        (
            lookup("image", "item_id", dtype="FLOAT[]"),
            r"is FLOAT\[\], the vectors are float16.*HALF_FLOAT\[\]",
        ),
        (lookup("image", "item_id", dtype="HALF_FLOAT[9]"), r"dimension 9"),
        (lookup("image", "item_id", dimension=9), r"dimension 9"),
        (lookup("image", "item_id", dtype="BIGINT"), r"enrichment fills lists"),
        (lookup("score", "item_id"), r"skeleton's column score is DOUBLE, the contract says HALF_FLOAT\[\]"),
    ],
)
def test_wrong_operator_is_refused_before_anything_is_written(
    project: Project, operator: Any, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        project.run(operators=[operator])
    assert not project.output.root.exists()


def test_two_operators_for_one_column(project: Project) -> None:
    with pytest.raises(DefinitionError, match="two operators fill the column 'image'"):
        project.run(operators=[OPERATORS[0], OPERATORS[0]])


def test_missing_store_and_missing_skeleton(project: Project, tmp_path: Path) -> None:
    absent = store_def(tmp_path / "nowhere", embedding_dim=8)
    with pytest.raises(ExecutionError, match="daeda store build items"):
        project.run(stores={"items": absent})
    with pytest.raises(
        ExecutionError, match=r"day 2026-03-02: .*there is no skeleton to enrich.*--enrich-only"
    ):
        project.run(days=[DAY, dt.date(2026, 3, 2)])
    assert not project.output.root.exists()


def test_another_run_of_the_day_is_refused(project: Project) -> None:
    with project.output.locked(DAY), pytest.raises(ExecutionError, match="being written by process"):
        project.run()


def test_skeleton_replaced_meanwhile(project: Project, tmp_path: Path) -> None:
    def replace_skeleton(_seen: EnrichProgress) -> None:
        write_skeleton(tmp_path / "skeleton", project.table.slice(5))

    with pytest.raises(ExecutionError, match="replaced while it was enriched"):
        project.run(progress=replace_skeleton)
    assert project.leftovers() == []
    assert project.output.days() == []


def test_damaged_skeleton_names_the_file(project: Project) -> None:
    path = project.skeleton.path(DAY) / "part-1-0.parquet"
    data = bytearray(path.read_bytes())
    data[100:400] = bytes(300)
    path.write_bytes(data)
    with pytest.raises(ExecutionError, match=r"part-1-0\.parquet: cannot read the skeleton"):
        project.run()
    assert project.output.days() == []


def test_store_rebuilt_while_days_are_enriched(project: Project, tmp_path: Path) -> None:
    days = [DAY, dt.date(2026, 3, 2)]
    write_skeleton(tmp_path / "skeleton", project.table, day=days[1])
    project.run(days=days)
    wanted = [read_day(project.output, day) for day in days]

    def rebuild(seen: EnrichProgress) -> None:
        if seen.day == "2026-03-01":
            table = vector_table(range(200), vectors_of(range(200), 8, seed=9))
            write_source(tmp_path / "source/vectors.parquet", table, mtime=60)
            build_store(project.store)

    project.run(days=days, refresh=True, progress=rebuild)
    assert [read_day(project.output, day).equals(table) for day, table in zip(days, wanted, strict=True)] == [
        True
    ] * 2
    reasons = [day.reason for day in project.run(days=days).days]
    assert reasons == ["store items changed, version 2 to 4"] * 2


def test_finished_days_stay_when_a_later_one_fails(project: Project, tmp_path: Path) -> None:
    second = dt.date(2026, 3, 2)
    write_skeleton(tmp_path / "skeleton", project.table, day=second)
    (project.skeleton.path(second) / "part-0-0.parquet").chmod(0o644)

    def damage(seen: EnrichProgress) -> None:
        if seen.day == DAY.isoformat():
            path = project.skeleton.path(second) / "part-0-0.parquet"
            path.write_bytes(bytes(path.stat().st_size))

    with pytest.raises(ExecutionError, match="cannot read the skeleton"):
        project.run(days=[DAY, second], progress=damage)
    assert project.output.days() == [DAY]
    assert project.leftovers() == []


def test_constants_are_whole_multiples() -> None:
    assert enrich_plan.SHARD_ROWS % enrich_plan.BATCH_ROWS == 0
