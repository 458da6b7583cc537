"""Build a Lance store from Parquet: in batches, resumable, and never half done under its final name.

Every batch becomes one data file that no version of the store mentions yet, noted in a journal beside the
store. One commit makes them all the new version. So a kill loses at most one batch, and readers see the store
before or after, never in between. The first build happens in the journal's folder, which is renamed at the
end; a rebuild writes into the store itself, whose old versions stay for whoever reads them.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from daedalus.errors import DefinitionError, ExecutionError, SourceError
from daedalus.storage.embedding_lance import BUILD_KEY, build_record, import_lance, is_indexed, open_dataset
from daedalus.storage.embedding_model import StoreReport
from daedalus.storage.embedding_sources import find_source_files, newest_last, plan_build, source_fingerprint
from daedalus.storage.embedding_vectors import store_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from daedalus.storage.embedding_model import EmbeddingStoreDef
    from daedalus.storage.embedding_sources import BuildPlan

_READ_ROWS = 8192
_OLD_VERSIONS_STAY = dt.timedelta(days=14)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Vectors to write, and how far in the plan they reach."""

    table: pa.Table
    planned_rows: int
    null_vectors: int


def build_store(
    definition: EmbeddingStoreDef,
    progress: Callable[[int, int], None] | None = None,
) -> StoreReport:
    """Make the store hold one vector per id of the files under its `source_parquet`.

    Args:
        definition: what the store is.
        progress: called with (rows brought in, rows to bring in).

    Semantics: the newest row of an id decides (modification time of its file, then path, then row); where
        that row has no vector, the id is not in the store. Rows without an id are left out. A build that was
        killed goes on where it stopped as long as files and definition are the same, else it starts over.

    Raises:
        DefinitionError: there is no source file, or columns or types do not fit the definition.
        SourceError: a source value does not fit; the message names the first id.
        ExecutionError: another build of the store is running, or the disk refused.
    """
    if "://" in definition.path:
        raise DefinitionError(
            "a store is built on a local or mounted disk",
            where=definition.where,
            hint="Build there, then copy it",
        )
    files = newest_last(find_source_files(definition))
    final = Path(definition.path)
    final.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(final.parent / f".{final.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExecutionError("another build of this store is running", where=definition.where) from None
    try:
        return _Build(definition, files, progress).run()
    except OSError as problem:
        raise ExecutionError(
            f"cannot write the store: {problem}",
            where=definition.where,
            hint="Make room and run it again: it goes on where it stopped",
        ) from problem
    finally:
        lock.release()


def journal_folder(path: Path) -> Path:
    """Where a build of the store at `path` keeps its journal until it is finished."""
    return path.parent / f".{path.name}.building"


class _Build:
    """One build of a store; `files` as `newest_last` orders them."""

    def __init__(
        self,
        definition: EmbeddingStoreDef,
        files: Sequence[Path],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._definition = definition
        self._files = files
        self._progress = progress or (lambda _done, _total: None)
        self._final = Path(definition.path)
        self._folder = journal_folder(self._final)
        self._fingerprint = source_fingerprint(definition, files)

    def run(self) -> StoreReport:
        finished = self._already_built()
        if finished is not None:
            return finished
        if self._staged_is_complete():
            return self._publish(first=True)
        plan = plan_build(self._definition, self._files)
        first = open_dataset(self._final) is None
        journal = _Journal.resume(self._folder, self._fingerprint, first=first, final=self._final)
        resumed = journal.planned_rows
        schema = pa.schema(
            [
                pa.field(self._definition.id_column, plan.id_type),
                pa.field(self._definition.embedding_column, self._definition.vector_type),
            ]
        )
        total = int(sum(keep.sum() for keep in plan.keep))
        for batch in _batches(self._definition, plan, schema, journal.planned_rows):
            journal.write(batch, schema)
            self._progress(journal.planned_rows, total)
        report = StoreReport(
            name=self._definition.name,
            path=self._definition.path,
            version=0,
            rows=total - journal.null_vectors,
            source_files=len(plan.files),
            source_rows=plan.source_rows,
            duplicates=plan.duplicates,
            null_ids=plan.null_ids,
            null_vectors=journal.null_vectors,
            resumed_rows=resumed,
        )
        journal.commit(schema, {"fingerprint": self._fingerprint, "report": asdict(report)})
        return self._publish(first=first)

    def _already_built(self) -> StoreReport | None:
        """The report of the store's newest version when it was made from exactly these files."""
        dataset = open_dataset(self._final)
        record = build_record(dataset)
        if dataset is None or record.get("fingerprint") != self._fingerprint:
            return None
        if is_indexed(dataset, self._definition.id_column):
            shutil.rmtree(self._folder, ignore_errors=True)
            return replace(
                StoreReport(**record["report"]),
                version=dataset.version,
                path=self._definition.path,
                unchanged=True,
            )
        return self._publish(first=False)

    def _staged_is_complete(self) -> bool:
        staged = self._folder / "dataset"
        return (
            open_dataset(self._final) is None
            and build_record(open_dataset(staged)).get("fingerprint") == self._fingerprint
        )

    def _publish(self, *, first: bool) -> StoreReport:
        """Index the committed version and put a first build under its final name."""
        base = self._folder / "dataset" if first else self._final
        dataset = open_dataset(base)
        if not is_indexed(dataset, self._definition.id_column):
            dataset.create_scalar_index(self._definition.id_column, "BTREE")
        if first:
            _make_way(self._final)
            base.rename(self._final)
        else:
            dataset.cleanup_old_versions(older_than=_OLD_VERSIONS_STAY)
        shutil.rmtree(self._folder, ignore_errors=True)
        dataset = open_dataset(self._final)
        return replace(StoreReport(**build_record(dataset)["report"]), version=dataset.version)


def _make_way(final: Path) -> None:
    if final.is_dir() and not any(final.iterdir()):
        final.rmdir()
    elif final.exists():
        raise ExecutionError(
            "this path holds something that is not a Lance store",
            where=str(final),
            hint="Move it away, or give the store another path",
        )


class _Journal:
    """The data files written so far, one line each, flushed before the next is begun."""

    def __init__(self, folder: Path, base: Path) -> None:
        self._base = base
        self._file = folder / "fragments.jsonl"
        self._fragments: list[Any] = []
        self.planned_rows = 0
        self.null_vectors = 0

    @classmethod
    def resume(cls, folder: Path, fingerprint: str, *, first: bool, final: Path) -> _Journal:
        """Go on with the journal in `folder` when it is of the same build, else begin a new one."""
        base = folder / "dataset" if first else final
        head = folder / "build.json"
        expected = {"fingerprint": fingerprint, "first": first}
        try:
            same = {key: json.loads(head.read_text())[key] for key in expected} == expected
        except (OSError, ValueError, KeyError):
            same = False
        journal = cls(folder, base)
        if same:
            journal._read()
            journal._sweep(keep=json.loads(head.read_text())["files"])
            return journal
        if head.exists() and not first:
            journal._read()
            journal._remove_fragments()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        present = [] if first else [path.name for path in (final / "data").iterdir()]
        _write_flushed(head, json.dumps(expected | {"files": present}))
        return cls(folder, base)

    def write(self, batch: _Batch, schema: pa.Schema) -> None:
        """Write one batch and note it."""
        write_fragments = import_lance().fragment.write_fragments

        fragments = (
            write_fragments(batch.table, str(self._base), schema=schema, mode="overwrite")
            if len(batch.table)
            else []
        )
        self._note(
            {
                "fragments": [fragment.to_json() for fragment in fragments],
                "planned_rows": batch.planned_rows,
                "null_vectors": batch.null_vectors,
            }
        )

    def commit(self, schema: pa.Schema, record: dict[str, Any]) -> None:
        """Make everything noted the store's next version."""
        lance = import_lance()
        fragments = [lance.fragment.FragmentMetadata.from_json(json.dumps(one)) for one in self._fragments]
        lance.LanceDataset.commit(
            str(self._base),
            lance.LanceOperation.Overwrite(schema.with_metadata({BUILD_KEY: json.dumps(record)}), fragments),
        )

    def _note(self, entry: dict[str, Any]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._add(entry)

    def _add(self, entry: dict[str, Any]) -> None:
        self._fragments += entry["fragments"]
        self.planned_rows += entry["planned_rows"]
        self.null_vectors += entry["null_vectors"]

    def _read(self) -> None:
        if not self._file.exists():
            return
        lines = self._file.read_text().split("\n")
        for line in lines[:-1]:
            self._add(json.loads(line))
        if lines[-1]:  # the kill came within a line: its batch is done again
            _write_flushed(self._file, "".join(line + "\n" for line in lines[:-1]))

    def _names(self) -> set[str]:
        return {file["path"] for fragment in self._fragments for file in fragment["files"]}

    def _sweep(self, keep: list[str]) -> None:
        """Remove data files that a killed build wrote and did not note."""
        data = self._base / "data"
        known = self._names() | set(keep)
        for path in list(data.iterdir()) if data.is_dir() else []:
            if path.name not in known:
                path.unlink()

    def _remove_fragments(self) -> None:
        for name in self._names():
            (self._base / "data" / name).unlink(missing_ok=True)


def _write_flushed(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _batches(
    definition: EmbeddingStoreDef, plan: BuildPlan, schema: pa.Schema, done: int
) -> Iterator[_Batch]:
    """The planned rows after the first `done`, `build_batch_size` at a time."""
    pieces: list[pa.Table] = []
    planned = null_vectors = 0
    for ids, vectors, where in _planned_rows(definition, plan, done):
        start = 0
        while start < len(ids):
            stop = min(len(ids), start + definition.build_batch_size - planned)
            piece, nulls = _piece(definition, ids[start:stop], vectors[start:stop], schema, where)
            pieces.append(piece)
            planned += stop - start
            null_vectors += nulls
            start = stop
            if planned == definition.build_batch_size:
                yield _Batch(table=pa.concat_tables(pieces), planned_rows=planned, null_vectors=null_vectors)
                pieces, planned, null_vectors = [], 0, 0
    if planned:
        yield _Batch(table=pa.concat_tables(pieces), planned_rows=planned, null_vectors=null_vectors)


def _piece(
    definition: EmbeddingStoreDef, ids: pa.Array, vectors: pa.Array, schema: pa.Schema, where: str
) -> tuple[pa.Table, int]:
    if vectors.null_count:
        present = vectors.is_valid()
        ids, vectors, nulls = ids.filter(present), vectors.filter(present), vectors.null_count
    else:
        nulls = 0
    columns = [ids.cast(schema.field(0).type), store_vectors(definition, ids, vectors, where)]
    return pa.table(columns, schema=schema), nulls


def _planned_rows(
    definition: EmbeddingStoreDef, plan: BuildPlan, done: int
) -> Iterator[tuple[pa.Array, pa.Array, str]]:
    """(ids, vectors, place) of the rows to keep, in file order, without the first `done` of them."""
    columns = [definition.id_column, definition.embedding_column]
    for path, planned in zip(plan.files, plan.keep, strict=True):
        keep = _without_first(planned, done)
        done -= int(planned.sum() - keep.sum())
        if not keep.any():
            continue
        where = str(path)
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                row = 0
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if keep[row : row + rows].any():
                        at = row
                        for batch in file.iter_batches(
                            batch_size=min(_READ_ROWS, definition.build_batch_size),
                            row_groups=[group],
                            columns=columns,
                        ):
                            wanted = pa.array(keep[at : at + len(batch)])
                            at += len(batch)
                            kept = batch.filter(wanted)
                            yield kept.column(columns[0]), kept.column(columns[1]), where
                    row += rows
        except (OSError, pa.ArrowInvalid) as problem:
            raise SourceError(
                f"cannot read vectors: {problem}", where=f"{definition.where}, {path}"
            ) from problem


def _without_first(keep: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """`keep` without its first `count` True values."""
    if count <= 0:
        return keep
    rest = keep.copy()
    rest[np.flatnonzero(keep)[:count]] = False
    return rest
