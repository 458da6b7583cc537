"""The UDF registry, the UDFs of a user, and how their faults read."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.support import user_udfs
from tests.support.embeddings import DAY, make_store, pool, read_day, vectors_of, write_skeleton

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.metadata.days import DayStore
from daedalus.pipelines.dynamic_feature import run_enrich_stage
from daedalus.pipelines.enrich import udfs as enrich_udfs
from daedalus.pipelines.enrich.runtime import GIB, Machine, RayEnvelope
from daedalus.pipelines.enrich.udfs import (
    RegisteredUdf,
    UdfBatch,
    avg_pool_embeddings_udf,
    known_udfs,
    lookup_embedding_udf,
    register_udf,
    resolve_udf,
)

USER = "tests.support.user_udfs"


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrich_udfs, "_REGISTERED", dict(enrich_udfs._REGISTERED))


def run(folder: Path, udf_name: str) -> pa.ChunkedArray:
    definition = make_store(folder, range(10), vectors_of(range(10), 4))
    liked = pa.array([[1, 2, 2, 99], [], None, [99]], pa.list_(pa.int64()))
    run_enrich_stage(
        skeleton=write_skeleton(folder / "skeleton", pa.table({"liked": liked})),
        output=DayStore(folder / "enriched"),
        days=[DAY],
        operators=[pool("out", "liked", udf_name=udf_name, dtype="DOUBLE[]", dimension=1)],
        stores={"items": definition},
        runtime="in_process",
    )
    return read_day(DayStore(folder / "enriched")).column("out")


@pytest.mark.parametrize("name", [f"{USER}:found_count", f"{USER}:CountingCalls", "counted", "plugin"])
def test_a_users_udf_runs(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    register_udf("counted", user_udfs.found_count, takes="ids")
    point = importlib.metadata.EntryPoint("plugin", f"{USER}:found_count", "daedalus.udfs")
    monkeypatch.setattr(
        enrich_udfs, "entry_points", lambda **by: [point] if by.get("name", "plugin") == "plugin" else []
    )
    user_udfs.CountingCalls.made = 0
    assert run(tmp_path, name).to_pylist() == [[3.0], [0.0], [0.0], [0.0]]
    assert user_udfs.CountingCalls.made == (name == f"{USER}:CountingCalls")
    assert "plugin" in known_udfs()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "avg_pool_embedding_udf",
            "unknown UDF.*Did you mean 'avg_pool_embeddings_udf'.*package.module:function",
        ),
        ("no_such_package.udfs:mean", "cannot be imported: ModuleNotFoundError"),
        (f"{USER}:fount_count", "cannot be imported: AttributeError"),
        (f"{USER}:NOT_A_FUNCTION", "is a int, not a function"),
    ],
)
def test_unknown_udf(name: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        resolve_udf(name, "operator x")


def test_dotted_path_is_found_in_the_projects_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_project_udfs.py").write_text("def mean(batch):\n    return None\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert resolve_udf("my_project_udfs:mean").function.__module__ == "my_project_udfs"  # type: ignore[attr-defined]


def test_shipped_names_are_kept() -> None:
    with pytest.raises(DefinitionError, match="is a shipped UDF"):
        register_udf("lookup_embedding_udf", user_udfs.found_count)
    with pytest.raises(DefinitionError, match="not a function"):
        register_udf("seven", user_udfs.NOT_A_FUNCTION)  # type: ignore[arg-type]


def test_entry_point_may_be_a_registered_udf(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RegisteredUdf(name="whole", function=user_udfs.found_count, takes="ids")
    monkeypatch.setattr(user_udfs, "WHOLE", whole, raising=False)
    assert resolve_udf(f"{USER}:WHOLE") is whole


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", r"UDF tests.support.user_udfs:fails: RuntimeError: no model for 4 rows"),
        ("wrong_type", r"returned list<item: int64>, the contract says DOUBLE\[\]"),
        ("wrong_width", "returned 2 elements for row 1, the contract says 1"),
        ("too_few_rows", "returned 3 rows for 4"),
        ("not_arrow", r"returned a list, not a pyarrow\.Array"),
    ],
)
def test_faulty_udf_names_day_operator_and_batch(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ExecutionError, match=message) as caught:
        run(tmp_path, f"{USER}:{name}")
    assert (caught.value.day, caught.value.operator) == ("2026-03-01", "enrich_out")
    assert "batch 0 (rows 0 to 4)" in str(caught.value)
    assert [path.name for path in (tmp_path / "enriched").iterdir()] == [".locks"]


def batch_of(lists: list[list[int]], vectors: np.ndarray) -> UdfBatch:
    flat = [slot for one in lists for slot in one]
    return UdfBatch(
        ids=pa.array(lists, pa.list_(pa.int64())),
        offsets=np.cumsum([0, *map(len, lists)]),
        slots=np.array(flat, dtype=np.int64),
        vectors=vectors,
    )


def test_every_half_float_is_widened_exactly() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    vectors = bits.view(np.float16).reshape(-1, 1)
    means = avg_pool_embeddings_udf(batch_of([[slot] for slot in range(1 << 16)], vectors))
    out = means.values.to_numpy(zero_copy_only=False)
    assert np.array_equal(out, vectors.reshape(-1), equal_nan=True)


def test_pooling_keeps_list_order_and_float32() -> None:
    vectors = np.array([[1e8], [1.0], [-1e8]], dtype=np.float32)
    there = avg_pool_embeddings_udf(batch_of([[0, 2, 1], [0, 1, 2]], vectors)).to_pylist()
    assert there == [[np.float32(1) / np.float32(3)], [0.0]]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_rows_and_no_vectors(dtype: str) -> None:
    vectors = np.empty((1, 3), dtype=dtype)
    for udf in (lookup_embedding_udf, avg_pool_embeddings_udf):
        assert udf(batch_of([], vectors)).to_pylist() == []
        assert udf(batch_of([[-1], [-1]], vectors)).to_pylist() == [None, None]
        assert str(udf(batch_of([], vectors)).type.value_type) in ("halffloat", "float")


@pytest.mark.parametrize(
    ("machine", "cut", "said"),
    [
        (Machine(cpus=32, memory_bytes=128 * GIB), (16, 64), False),
        (Machine(cpus=4, memory_bytes=128 * GIB), (4, 64), True),
        (Machine(cpus=32, memory_bytes=8 * GIB), (16, 8), True),
    ],
)
def test_envelope_is_cut_to_the_machine(machine: Machine, cut: tuple[int, int], said: bool) -> None:
    fitted, line = RayEnvelope().fitted(machine)
    assert (fitted.num_cpus, fitted.memory_bytes // GIB) == cut
    assert bool(line) == said
    assert "\n" not in line


def test_envelope_on_a_cluster_is_not_cut() -> None:
    asked = RayEnvelope(num_cpus=100, address="ray://head:10001")
    assert asked.fitted(Machine(cpus=1, memory_bytes=GIB)) == (asked, "")


def test_this_machine() -> None:
    here: Any = Machine.here()
    assert here.cpus >= 1
    assert here.memory_bytes > 100 << 20


def test_the_udf_in_the_documentation_runs() -> None:
    text = (Path(__file__).parents[3] / "docs" / "enrich.md").read_text()
    scope: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], scope)
    vectors = vectors_of(range(3), 2, "float32")
    answer = scope["first_embedding"](batch_of([[2, 0], [], [-1, 1]], vectors))
    assert answer.to_pylist() == [vectors[2].tolist(), None, None]
