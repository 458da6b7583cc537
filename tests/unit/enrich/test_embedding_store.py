"""Building, opening and reading embedding stores."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.support.embeddings import make_store, store_def, taken, vector_table, vectors_of, write_source

from daedalus.errors import DefinitionError, ExecutionError, SourceError
from daedalus.storage.embedding_cache import VectorCache
from daedalus.storage.embedding_store import EmbeddingStoreDef, build_store, open_store, show_store


def content(definition: EmbeddingStoreDef, version: int | None = None) -> dict[object, list[float]]:
    store = open_store(definition, version)
    ids = pa.Table.from_batches(list(store.ids())).column(0).combine_chunks()
    found, values = taken(store, ids)
    assert len(found) == len(ids)
    return dict(zip(ids.to_pylist(), values.tolist(), strict=True))


def test_store_holds_each_vector(tmp_path: Path) -> None:
    values = vectors_of(range(300), 4)
    definition = make_store(tmp_path, range(300), values, build_batch_size=70)
    assert content(definition) == {i: values[i].tolist() for i in range(300)}
    info = show_store(definition)
    assert (info.count, info.dimension, info.dtype, info.id_type) == (300, 4, "float16", "int64")
    assert info.indexed
    assert not info.interrupted
    assert info.size_bytes > 300 * 8


@pytest.mark.parametrize("element", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_source_type_is_stored_exactly_or_rounded(
    tmp_path: Path, element: pa.DataType, kind: str, dtype: str
) -> None:
    values = vectors_of(range(5), 4, "float64")
    lists = {"list": pa.list_(element), "large_list": pa.large_list(element), "fixed": pa.list_(element, 4)}
    column = vector_table(range(5), values).column("embedding").cast(lists[kind])
    write_source(tmp_path / "source/a.parquet", pa.table({"id": range(5), "embedding": column}))
    definition = store_def(tmp_path, embedding_dtype=dtype)
    build_store(definition)
    expected = values.astype(str(element).replace("halffloat", "float16")).astype(dtype)
    assert content(definition) == {i: expected[i].tolist() for i in range(5)}


def test_newest_file_then_last_row_wins_and_the_report_counts(tmp_path: Path) -> None:
    old, new = vectors_of(range(4), 4, seed=1), vectors_of(range(4), 4, seed=2)
    write_source(tmp_path / "source/z.parquet", vector_table([1, 2, None, 3], old), mtime=0)
    write_source(tmp_path / "source/a.parquet", vector_table([2, 4, 2, 2], new), mtime=60)
    definition = store_def(tmp_path)
    report = build_store(definition)
    assert content(definition) == {
        1: old[0].tolist(),
        3: old[3].tolist(),
        4: new[1].tolist(),
        2: new[3].tolist(),
    }
    assert (report.source_rows, report.rows, report.duplicates, report.null_ids) == (8, 4, 3, 1)


def test_newest_row_without_vector_removes_the_id(tmp_path: Path) -> None:
    write_source(tmp_path / "source/a.parquet", vector_table([1, 2], vectors_of(range(2), 4)), mtime=0)
    gone = pa.table({"id": [1], "embedding": pa.array([None], pa.list_(pa.float16()))})
    write_source(tmp_path / "source/b.parquet", gone, mtime=60)
    definition = store_def(tmp_path)
    report = build_store(definition)
    assert sorted(content(definition)) == [2]
    assert (report.rows, report.null_vectors, report.duplicates) == (1, 1, 1)


def test_text_ids(tmp_path: Path) -> None:
    values = vectors_of(range(3), 4)
    write_source(tmp_path / "source/a.parquet", vector_table(["JFK", "LGA", "JFK"], values))
    definition = store_def(tmp_path)
    build_store(definition)
    assert content(definition) == {"LGA": values[1].tolist(), "JFK": values[2].tolist()}
    found, vectors = taken(open_store(definition), pa.array(["EWR", "JFK", None], pa.large_string()))
    assert found.tolist() == [1]
    assert vectors.tolist() == [values[2].tolist()]


def test_what_is_found_and_read_is_each_ids_own_and_null_is_nowhere(tmp_path: Path) -> None:
    values = vectors_of(range(100), 4)
    store = open_store(make_store(tmp_path, range(100, 200), values))
    found, vectors = taken(store, pa.array([199, 5, None, 100, 150]))
    assert found.tolist() == [0, 3, 4]
    assert vectors.tolist() == values[[99, 0, 50]].tolist()


def test_empty_store(tmp_path: Path) -> None:
    definition = make_store(tmp_path, pa.array([], pa.int64()), vectors_of([], 4))
    store = open_store(definition)
    found, vectors = taken(store, pa.array([1, 2]))
    assert (store.count, found.tolist(), vectors.shape) == (0, [], (0, 4))


def test_broken_files_of_a_store_are_told_as_such(tmp_path: Path) -> None:
    definition = make_store(tmp_path, range(500), vectors_of(range(500), 4))
    for file in Path(definition.path).glob("data/*.lance"):
        file.write_bytes(b"")
    with pytest.raises(ExecutionError, match=r"cannot (open the store|read ids)") as caught:
        open_store(definition).find(pa.array([1]))
    assert definition.name in str(caught.value)
    assert "daeda store build" in caught.value.hint


def test_wrong_dimension_names_the_first_bad_id(tmp_path: Path) -> None:
    lists = pa.array([[1.0] * 4, [1.0] * 3, [1.0] * 5], pa.list_(pa.float32()))
    source = write_source(tmp_path / "source/a.parquet", pa.table({"id": [7, 8, 9], "embedding": lists}))
    definition = store_def(tmp_path)
    with pytest.raises(
        SourceError, match=r"vector of id 8 has 3 elements, the store has embedding_dim 4"
    ) as caught:
        build_store(definition)
    assert str(source) in str(caught.value)
    assert not Path(definition.path).exists()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 1.0, None, 1.0]], "id 7 holds a NULL element"),
        ([[1.0, 1.0, 1e6, 1.0]], r"id 7 holds 1e\+06, which is beyond float16"),
    ],
)
def test_vector_that_does_not_fit_is_refused(
    tmp_path: Path, vectors: list[list[float]], message: str
) -> None:
    table = pa.table({"id": [7], "embedding": pa.array(vectors, pa.list_(pa.float64()))})
    write_source(tmp_path / "source/a.parquet", table)
    with pytest.raises(SourceError, match=message):
        build_store(store_def(tmp_path))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1.5], "embedding": [[1.0]]}, "ids are integers or text, this column is double"),
        ({"id": [1], "embedding": [[1]]}, "not a list of floating-point numbers"),
        ({"ide": [1], "embedding": [[1.0]]}, "no column 'id'.*Did you mean 'ide'"),
    ],
)
def test_wrong_column_is_refused(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    write_source(tmp_path / "source/a.parquet", pa.table(columns))
    with pytest.raises(DefinitionError, match=message):
        build_store(store_def(tmp_path, embedding_dim=1))


def test_id_beyond_int64_is_refused(tmp_path: Path) -> None:
    table = vector_table([2**63], vectors_of([0], 4), id_type=pa.uint64())
    write_source(tmp_path / "source/a.parquet", table)
    with pytest.raises(SourceError, match="9223372036854775808"):
        build_store(store_def(tmp_path))


def test_missing_source_and_missing_store(tmp_path: Path) -> None:
    definition = store_def(tmp_path)
    with pytest.raises(DefinitionError, match="no Parquet file at"):
        build_store(definition)
    with pytest.raises(ExecutionError, match=r"no store at .*make it with `daeda store build items`"):
        open_store(definition)


def test_foreign_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "items.lance").mkdir()
    (tmp_path / "items.lance" / "thesis.txt").write_text("mine")
    with pytest.raises(ExecutionError, match="not a Lance store"):
        make_store(tmp_path, range(3), vectors_of(range(3), 4))
    assert (tmp_path / "items.lance" / "thesis.txt").read_text() == "mine"


def test_definition_and_store_must_agree(tmp_path: Path) -> None:
    make_store(tmp_path, range(3), vectors_of(range(3), 4))
    with pytest.raises(DefinitionError, match=r"holds fixed_size_list<item: halffloat>\[4\].*\[5\]"):
        open_store(store_def(tmp_path, embedding_dim=5))
    with pytest.raises(DefinitionError, match=r"halffloat.*float"):
        open_store(store_def(tmp_path, embedding_dtype="float32"))
    with pytest.raises(DefinitionError, match=r"no column 'embeding'.*Did you mean 'embedding'"):
        open_store(store_def(tmp_path, embedding_column="embeding"))


def test_second_build_of_the_same_files_changes_nothing(tmp_path: Path) -> None:
    definition = make_store(tmp_path, range(9), vectors_of(range(9), 4))
    before = open_store(definition).snapshot
    report = build_store(definition)
    assert report.unchanged
    assert report.rows == 9
    assert open_store(definition).snapshot == before


def test_reader_keeps_its_version_while_the_store_is_rebuilt(tmp_path: Path) -> None:
    old, new = vectors_of(range(50), 4, seed=1), vectors_of(range(50), 4, seed=2)
    definition = make_store(tmp_path, range(50), old)
    reader = open_store(definition)
    write_source(tmp_path / "source/vectors.parquet", vector_table(range(50), new), mtime=60)
    report = build_store(definition)
    _, values = taken(reader, pa.array(range(50)))
    assert values.tolist() == old.tolist()
    assert content(definition, reader.version) == {i: old[i].tolist() for i in range(50)}
    assert content(definition) == {i: new[i].tolist() for i in range(50)}
    assert report.version > reader.version
    assert open_store(definition).snapshot != reader.snapshot


def test_rebuilt_from_nothing_is_another_snapshot(tmp_path: Path) -> None:
    definition = make_store(tmp_path / "one", range(5), vectors_of(range(5), 4, seed=1))
    other = make_store(tmp_path / "two", range(5), vectors_of(range(5), 4, seed=2))
    first, second = open_store(definition), open_store(other)
    assert first.version == second.version
    assert first.snapshot != second.snapshot


_BUILD = """
    import os, signal, sys
    from pathlib import Path
    from daedalus.storage import embedding_build
    from daedalus.storage.embedding_store import EmbeddingStoreDef

    point, folder = sys.argv[1], Path(sys.argv[2])
    definition = EmbeddingStoreDef(
        name="items", path=str(folder / "items.lance"), embedding_dim=4,
        source_parquet=str(folder / "source"), build_batch_size=50,
    )
    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)
    def progress(done, total):
        if point == "batch" and done >= 150:
            die()
    if point == "unnoted":
        note, seen = embedding_build._Journal._note, []
        embedding_build._Journal._note = lambda self, entry: (
            die() if len(seen) == 2 else (seen.append(1), note(self, entry)))
    if point == "line":
        def half(self, entry):
            with self._file.open("a") as file:
                file.write('{"fragm')
            die()
        note, seen = embedding_build._Journal._note, []
        embedding_build._Journal._note = lambda self, entry: (
            half(self, entry) if len(seen) == 2 else (seen.append(1), note(self, entry)))
    if point == "commit":
        embedding_build._Journal.commit = die
    if point == "index":
        embedding_build._Build._publish = die
    embedding_build.build_store(definition, progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["batch", "unnoted", "line", "commit", "index"])
@pytest.mark.parametrize("existing", [False, True], ids=["first", "rebuild"])
def test_killed_build_leaves_the_store_as_it_was_and_goes_on(
    tmp_path: Path, point: str, existing: bool
) -> None:
    old, new = vectors_of(range(300), 4, seed=1), vectors_of(range(300), 4, seed=2)
    definition = store_def(tmp_path, build_batch_size=50)
    if existing:
        make_store(tmp_path, range(300), old, build_batch_size=50)
    write_source(tmp_path / "source/vectors.parquet", vector_table(range(300), new), mtime=60)
    script = [sys.executable, "-c", textwrap.dedent(_BUILD), point, str(tmp_path)]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    if existing and point != "index":
        assert content(definition) == {i: old[i].tolist() for i in range(300)}
    if not existing:
        with pytest.raises(ExecutionError, match="an interrupted build is there"):
            open_store(definition)
    report = build_store(definition)
    assert content(definition) == {i: new[i].tolist() for i in range(300)}
    assert report.rows == 300
    if point in ("batch", "unnoted", "line"):
        assert report.resumed_rows == {"batch": 150, "unnoted": 100, "line": 100}[point]
    info = show_store(definition)
    assert info.indexed
    assert not info.interrupted
    files = {path.name for path in (Path(definition.path) / "data").iterdir()}
    assert len(files) == (12 if existing else 6)


@pytest.mark.slow
def test_changed_source_starts_an_interrupted_build_over(tmp_path: Path) -> None:
    values = vectors_of(range(300), 4, seed=3)
    write_source(tmp_path / "source/vectors.parquet", vector_table(range(300), vectors_of(range(300), 4)))
    script = [sys.executable, "-c", textwrap.dedent(_BUILD), "batch", str(tmp_path)]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    write_source(tmp_path / "source/vectors.parquet", vector_table(range(300), values), mtime=60)
    definition = store_def(tmp_path, build_batch_size=50)
    report = build_store(definition)
    assert report.resumed_rows == 0
    assert content(definition) == {i: values[i].tolist() for i in range(300)}


@pytest.mark.slow
def test_full_disk_fails_the_build_and_leaves_no_store(tmp_path: Path) -> None:
    count = 4000
    write_source(
        tmp_path / "source/vectors.parquet", vector_table(range(count), vectors_of(range(count), 64))
    )
    script = """
        import resource, signal, sys
        from pathlib import Path
        from daedalus.errors import ExecutionError
        from daedalus.storage.embedding_store import EmbeddingStoreDef, build_store

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        folder = Path(sys.argv[1])
        definition = EmbeddingStoreDef(
            name="items", path=str(folder / "items.lance"), embedding_dim=64,
            source_parquet=str(folder / "source"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            build_store(definition)
        except ExecutionError as error:
            print(error)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "embedding store items: cannot write the store" in ran.stdout
    definition = store_def(tmp_path, embedding_dim=64)
    assert not Path(definition.path).exists()
    assert build_store(definition).rows == count


def test_second_builder_is_refused(tmp_path: Path) -> None:
    from filelock import FileLock

    write_source(tmp_path / "source/vectors.parquet", vector_table(range(3), vectors_of(range(3), 4)))
    with (
        FileLock(tmp_path / ".items.lance.lock"),
        pytest.raises(ExecutionError, match="another build of this store is running"),
    ):
        build_store(store_def(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_dtype": "float61"}, "Did you mean 'float16'"),
        ({"type": "lanse"}, "Did you mean 'lance'"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1"),
        ({"id_column": "embedding"}, "the same column"),
    ],
)
def test_wrong_definition_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        store_def(tmp_path, **changes)


def cache_over(store: np.ndarray, capacity: int, reads: list[object]) -> VectorCache:
    def fetch(rows: np.ndarray, slots: np.ndarray, vectors: np.ndarray) -> None:
        assert (np.diff(rows) > 0).all()
        reads.extend(rows.tolist())
        vectors[slots] = store[rows]

    def fetch_all(vectors: np.ndarray) -> None:
        reads.append("all")
        vectors[:] = store

    return VectorCache(
        count=len(store), capacity=capacity, dimension=3, dtype="float32", fetch=fetch, fetch_all=fetch_all
    )


@pytest.mark.parametrize("capacity", [12, 40])
def test_cache_gives_the_same_vectors_whatever_its_capacity(capacity: int) -> None:
    rng = np.random.default_rng(0)
    store = rng.standard_normal((40, 3)).astype(np.float32)
    cache = cache_over(store, capacity, [])
    for _ in range(200):
        groups = [rng.integers(-1, 40, size) for size in (1, 5, 6)]
        answer = cache.slots(groups[: rng.integers(1, 4)])
        assert answer is not None
        for rows, slots in zip(groups, answer, strict=False):
            assert (slots[rows < 0] == -1).all()
            assert np.array_equal(cache.vectors[slots[rows >= 0]], store[rows[rows >= 0]])


def test_cache_reads_each_vector_once_and_the_whole_store_when_much_is_asked() -> None:
    store = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    reads: list[object] = []
    cache = cache_over(store, 12, reads)
    cache.slots([np.array([3, 3, 4, 3])])
    cache.slots([np.array([3, 4]), np.array([4, -1, 3])])
    assert reads == [3, 4]
    assert cache.slots([np.arange(13)]) is None
    assert cache.slots([np.arange(12)]) is not None
    whole = cache_over(store, 100, reads)
    reads.clear()
    whole.slots([np.array([1, 2])])
    whole.slots([np.array([5, 6, 7]), np.array([1])])
    whole.slots([np.arange(40)])
    assert reads == [1, 2, "all"]
