"""Aggregation divided into buckets on disk: the same rows as in one piece, and what happens without room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from daedalus.errors import ExecutionError
from daedalus.pipelines.days import aggregates as day_aggregates
from daedalus.pipelines.days import resources as day_resources
from daedalus.pipelines.days import stream as day_stream
from daedalus.pipelines.days.spilled_rows import (
    BUCKET,
    JoinedBuckets,
    SpillFolder,
    SpillWriter,
    deal_out,
    read_rows,
)
from support.pixai import make_project
from support.project import Project

DAY = "2026-05-02"


@pytest.fixture(scope="module")
def pixai(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(make_project(tmp_path_factory.mktemp("pixai"), events=5_000))
    project.write("covered.parquet", pa.table({"artwork_id": list(range(5_000_000, 5_004_000))}))
    return project


def _hash(project: Project, root: Path, service: str, **options: object) -> str:
    coverage = {"store": None, "id_relation": "data/covered.parquet"}
    run = project.run(service, [DAY], output_root=str(root), embedding_coverage_filter=coverage, **options)
    return run.hashes[DAY]


@pytest.mark.parametrize("service", ["dssm_ranking", "xgb_reranker"])
def test_buckets_and_chunks_decide_nothing(
    service: str, pixai: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _hash(pixai, tmp_path / "whole", service, engine="kernel")
    monkeypatch.setattr(day_stream, "CHUNK_ROWS", 100)
    monkeypatch.setattr(day_stream, "SLICE_ROWS", 150)
    assert _hash(pixai, tmp_path / "chunks", service, engine="kernel") == whole
    monkeypatch.setattr(day_resources, "BUCKETS", 13)
    monkeypatch.setattr(day_aggregates, "_JOINED_ROWS", 1)
    assert _hash(pixai, tmp_path / "buckets", service, engine="kernel") == whole


def test_memory_decides_how_many_buckets(
    pixai: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    finish = day_aggregates.DayAggregate._in_buckets

    def note(self: day_aggregates.DayAggregate, *arguments: object) -> JoinedBuckets:
        seen.append(len(arguments[1]))  # type: ignore[arg-type]
        return finish(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(day_aggregates.DayAggregate, "_in_buckets", note)
    ample = _hash(pixai, tmp_path / "ample", "dssm_ranking", engine="kernel")
    assert not seen
    monkeypatch.setattr(day_resources, "AGGREGATION_SHARE", 1e-5)
    assert _hash(pixai, tmp_path / "scarce", "dssm_ranking", engine="kernel") == ample
    assert seen
    assert all(2 <= buckets <= 256 for buckets in seen)


def _config(**settings: str) -> dict[str, object]:
    return {"compute": {"engine": "kernel", "duckdb_config": {"threads": 1, **settings}}}


def test_a_memory_limit_far_too_small_says_so(pixai: Project, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="memory_limit is too small") as caught:
        _hash(pixai, tmp_path, "dssm_ranking", **_config(memory_limit="2MB"))
    assert "Raise compute.duckdb_config.memory_limit" in str(caught.value)
    assert not list((tmp_path / "dssm_ranking" / "skeleton").glob("dt=*"))


def test_a_full_spill_disk_says_so_and_leaves_nothing(
    pixai: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_resources, "BUCKETS", 3)
    spill = tmp_path / "spill"
    settings = _config(temp_directory=str(spill), max_temp_directory_size="20KB")
    with pytest.raises(
        ExecutionError, match="the spill disk is full: more than max_temp_directory_size"
    ) as caught:
        _hash(pixai, tmp_path / "out", "dssm_ranking", **settings)
    assert caught.value.day == DAY
    assert caught.value.operator == "rolling"
    assert list(spill.iterdir()) == []
    assert not list((tmp_path / "out" / "dssm_ranking" / "skeleton").glob("dt=*"))


def test_the_disk_s_own_refusal_is_an_error_of_ours(tmp_path: Path) -> None:
    rows = pa.table({"x": np.arange(1_000_000)})
    with pytest.raises(ExecutionError, match=r"the spill disk is full.*No space left"):
        SpillWriter(SpillFolder(tmp_path), Path("/dev/full"), rows.schema).write(rows)


@pytest.mark.parametrize("seed", range(20))
def test_rows_dealt_out_come_together_again(seed: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    size, buckets = int(draw.integers(0, 300)), int(draw.integers(1, 9))
    rows = np.sort(draw.choice(10_000, size, replace=False)) + (121 << 40)
    table = pa.table(
        {
            "__row": rows,
            "words": pa.array([None if row % 7 == 0 else f"w{row}" for row in rows], pa.string()),
            "numbers": pa.array([list(range(row % 5)) for row in rows.tolist()], pa.list_(pa.int32())),
            "gaps": pa.array(
                [None if row % 3 else [row, None] for row in rows.tolist()], pa.list_(pa.int64())
            ),
            BUCKET: pa.array(draw.integers(0, buckets, size), pa.uint16()),
        }
    )
    folder = SpillFolder(tmp_path)
    paths = deal_out(folder, table.to_reader(max_chunksize=17), buckets)
    wanted = table.drop_columns([BUCKET])
    assert sum(pa.ipc.open_file(str(path)).read_all().num_rows for path in paths) == size
    joined = JoinedBuckets(paths, wanted.schema)
    places = np.flatnonzero(draw.random(size) < 0.8)
    for start in range(0, len(places) + 1, 23):
        part = places[start : start + 23]
        columns = joined.columns(rows[part])
        assert [column.to_pylist() for column in columns] == [
            wanted[name].take(pa.array(part)).to_pylist() for name in wanted.column_names[1:]
        ]
    joined.close()
    read_rows(paths[0])
    assert not paths[0].exists()


def test_lists_of_shorter_windows_are_spilled_as_lengths_alone(
    pixai: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: dict[str, pa.DataType] = {}
    open_writer = SpillFolder.writer

    def note(self: SpillFolder, schema: pa.Schema) -> SpillWriter:
        kinds.update({field.name: field.type for field in schema})
        return open_writer(self, schema)

    monkeypatch.setattr(SpillFolder, "writer", note)
    monkeypatch.setattr(day_resources, "BUCKETS", 2)
    _hash(pixai, tmp_path, "dssm_ranking", engine="kernel")
    assert {name for name, kind in kinds.items() if name.endswith("_7d") and pa.types.is_list(kind)}
    assert kinds["like_artwork_tack_ids_1d"] == kinds["view_artwork_ids_3d"] == pa.int32()
