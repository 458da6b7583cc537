"""`TrainingData`: the finished days of one service, to be read in any of several ways."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.reading.batches import BatchStream
from daedalus.reading.day_file import DayFile

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping, Sequence

    import polars as pl
    from pyarrow.dataset import Dataset

    from daedalus.metadata.days import DayManifest, DayStore
    from daedalus.reading.arrays import NumpyBatches

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The rows of a service's days, in the order of days and, in each, of its file.

    Attributes:
        stage: `skeleton` or `enriched`.
        days: the days that are in it, ISO, ascending.
        rows: how many there are.
        schema: of the chosen columns, in the chosen order.
        dimensions: by column the length that the contract declares for its lists.
    """

    service: str
    stage: str
    days: tuple[str, ...]
    rows: int
    schema: pa.Schema
    files: tuple[DayFile, ...]
    dimensions: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        span = self.days[0] if len(self.days) == 1 else f"{self.days[0]} to {self.days[-1]}"
        return (
            f"TrainingData({self.service} {self.stage}, {len(self.days)} days, {span}, "
            f"{self.rows} rows, {len(self.schema)} columns)"
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The chosen columns."""
        return tuple(self.schema.names)

    def select(self, columns: Sequence[str]) -> TrainingData:
        """The same rows with these columns alone, in this order.

        Raises:
            DefinitionError: one of them is not there, or named twice.
        """
        for index, name in enumerate(columns):
            if name not in self.schema.names:
                raise DefinitionError(
                    f"there is no column {name!r}",
                    where=f"{self.service} {self.stage}",
                    hint=did_you_mean(str(name), self.schema.names),
                )
            if name in columns[:index]:
                raise DefinitionError(f"the column {name!r} is named twice", where="columns")
        return replace(self, schema=pa.schema([self.schema.field(name) for name in columns]))

    def arrow(self) -> Dataset:
        """A dataset; scans and `to_table` keep the order of the rows."""
        import pyarrow.dataset as ds
        from pyarrow.fs import LocalFileSystem

        paths = [file.path for file in self.files]
        return ds.dataset(paths, schema=self.schema, format="parquet", filesystem=LocalFileSystem())

    def polars(self) -> pl.LazyFrame:
        """A lazy frame; nothing is read before it is collected."""
        import polars as pl

        paths = [Path(file.path) for file in self.files]
        return pl.scan_parquet(paths, glob=False, hive_partitioning=False).select(self.columns)

    def batches(
        self,
        batch_size: int = 1024,
        *,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        even: bool = True,
        drop_last: bool = False,
        shuffle_rows: int = 65_536,
    ) -> BatchStream:
        """Record batches of `batch_size` rows, read as they are asked for.

        Args:
            batch_size: rows of each batch but the last.
            seed: shuffles; None keeps the order of the rows. Equal seed and epoch give equal batches.
            rank: which of `world_size` equal parts to read.
            world_size: how many readers share the rows; no row comes to two of them.
            even: give each rank equally many rows, as distributed training needs: the last
                `rows % world_size` of them are left out of the epoch.
            drop_last: leave out a last batch that is not full.
            shuffle_rows: how many rows are held to be mixed; they bound the memory.
        """
        return BatchStream(
            self.files,
            self.columns,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            even=even,
            drop_last=drop_last,
            shuffle_rows=shuffle_rows,
        )

    def numpy(self, batch_size: int = 1024, **options: Any) -> NumpyBatches:
        """The same as mappings of NumPy arrays; options as for `batches`.

        Numbers and booleans are arrays; `NAME.valid` says which rows are not NULL (there the array holds 0 or NaN).
        Lists of numbers are all items in one array and `NAME.offsets`, one more than rows; where the contract
        declares a dimension, a matrix, with zeros for NULL. Times are `datetime64`. All else is objects.
        """
        from daedalus.reading.arrays import NumpyBatches

        return NumpyBatches(self.batches(batch_size, **options), self.dimensions)

    def torch(
        self,
        batch_size: int = 1024,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        **options: Any,
    ) -> Any:
        """A `torch.utils.data.IterableDataset` of tensors by name, batched: `DataLoader(data, batch_size=None)`.

        Workers of the loader share the rows of their rank. Rank and world size are those of
        `torch.distributed` where it is initialized; other options as for `batches`, values as for `numpy`, times as
        microseconds since 1970.

        Raises:
            MissingExtraError: torch is not installed.
        """
        from daedalus.reading.torch_dataset import own_place, torch_dataset

        own_rank, own_size = own_place()
        stream = self.batches(
            batch_size,
            rank=own_rank if rank is None else rank,
            world_size=own_size if world_size is None else world_size,
            **options,
        )
        return torch_dataset(stream, self.dimensions)


def open_days(
    service: str,
    stage: str,
    store: DayStore,
    days: Sequence[dt.date],
    *,
    skip_missing: bool = False,
    dimensions: Mapping[str, int] | None = None,
) -> TrainingData:
    """The days of a store, by their manifests.

    Raises:
        ExecutionError: a day is not there (all of them are named), or days have different columns.
    """
    found = {day: manifest for day in days if (manifest := store.manifest(day)) is not None}
    missing = [day.isoformat() for day in days if day not in found]
    if (missing and not skip_missing) or not found:
        raise _absent(service, stage, store, missing, others=bool(found))
    files = [
        DayFile.of(day.isoformat(), store.path(day) / name)
        for day, manifest in found.items()
        for name, _ in manifest.files
        if name.endswith(".parquet")
    ]
    return TrainingData(
        service=service,
        stage=stage,
        days=tuple(day.isoformat() for day in found),
        rows=sum(manifest.row_count for manifest in found.values()),
        schema=_schema(service, found, files),
        files=tuple(files),
        dimensions=dict(dimensions or {}),
    )


def _absent(
    service: str, stage: str, store: DayStore, missing: Sequence[str], *, others: bool
) -> ExecutionError:
    """What to raise for days that are not there; `others`: some that were asked for are."""
    shown = ", ".join(missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    what = "this day is" if len(missing) == 1 else f"{len(missing)} days are"
    options = f"--target-date {missing[0]}" if len(missing) == 1 else "for them"
    return ExecutionError(
        f"{what} not there: {shown}{more}",
        where=str(store.root),
        hint=f"Run daeda pipeline train {service} {options}"
        + (", or take stage='skeleton'" if stage == "enriched" else "")
        + (f", or leave {'it' if len(missing) == 1 else 'them'} out: missing='skip'" if others else ""),
        day=missing[0],
    )


def _schema(service: str, found: Mapping[dt.date, DayManifest], files: Iterable[DayFile]) -> pa.Schema:
    """The schema of all days, which the manifests say is one."""
    first, *rest = found.items()
    for day, manifest in rest:
        if manifest.schema != first[1].schema:
            differing = set(manifest.schema) ^ set(first[1].schema)
            names = ", ".join(sorted({name for name, _ in differing})) or "their order"
            raise ExecutionError(
                f"its columns are not those of {first[0]}: {names}",
                where=service,
                hint="Train the older days again, or load them apart",
                day=day.isoformat(),
            )
    file = next(iter(files))
    with file.open() as opened:
        return opened.schema_arrow.remove_metadata()
