"""What an enrichment run does, as plain data that travels to its workers, and the checks before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from daedalus.catalog.dtypes import from_arrow, to_arrow, to_duckdb
from daedalus.errors import DefinitionError, did_you_mean
from daedalus.pipelines.days.embedding_ids import store_definition
from daedalus.pipelines.enrich.udfs import RegisteredUdf, resolve_udf
from daedalus.storage.arrow_kinds import is_list
from daedalus.storage.embedding_store import EmbeddingStore, EmbeddingStoreDef, open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daedalus.pipelines.settings import TrainingRunConfig

#: Rows of one output file: fixed, so files depend on the data alone; whole row groups of the skeleton.
SHARD_ROWS = 65_536
#: Rows of one row group, and of one batch a UDF sees.
BATCH_ROWS = 8_192


class EnrichOperator(Protocol):
    """What enrichment reads of a `RayUdfTransform`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def udf_name(self) -> str: ...  # noqa: D102
    @property
    def source_id_column(self) -> str: ...  # noqa: D102
    @property
    def store_name(self) -> str: ...  # noqa: D102
    @property
    def column(self) -> str: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def dimension(self) -> int | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """One column to fill.

    Attributes:
        name: the operator's name.
        contract: the column's Arrow type, a list or a fixed-size list.
        dimension: elements of every value that is not NULL.
    """

    name: str
    udf: RegisteredUdf
    source_id_column: str
    store_name: str
    column: str
    contract: pa.DataType
    dimension: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedStore:
    """A store at the version that the whole run reads."""

    definition: EmbeddingStoreDef
    version: int
    snapshot: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichPlan:
    """The columns to fill and the stores they need.

    Attributes:
        cache_bytes: memory for vectors in one worker, all stores together; set when the workers are known.
        profiled: whether workers measure where the time goes.
    """

    transforms: tuple[Transform, ...]
    stores: tuple[PinnedStore, ...]
    cache_bytes: int = 0
    profiled: bool = False


def configured_stores(
    operators: Iterable[EnrichOperator], config: TrainingRunConfig
) -> dict[str, EmbeddingStoreDef]:
    """The stores that operators name, by name, as the configuration describes them.

    Raises:
        DefinitionError: there is no such store; with near matches.
    """
    return {one.store_name: store_definition(config, one.store_name) for one in operators}


def plan_enrichment(
    operators: Sequence[EnrichOperator], stores: Mapping[str, EmbeddingStoreDef]
) -> EnrichPlan:
    """Resolve UDFs, pin stores and check contracts.

    Args:
        operators: the pipeline's `RayUdfTransform` nodes, in its order.
        stores: the configured stores by name.

    Raises:
        DefinitionError: an unknown store or UDF, two operators for one column, or a contract that the store's
            vectors cannot meet.
        ExecutionError: a store is not built.
    """
    opened: dict[str, EmbeddingStore] = {}
    for operator in operators:
        if operator.store_name not in stores:
            raise DefinitionError(
                f"unknown embedding store {operator.store_name!r}",
                where=f"operator {operator.name}",
                hint=did_you_mean(operator.store_name, stores),
            )
        if operator.store_name not in opened:
            opened[operator.store_name] = open_store(stores[operator.store_name])
    transforms = tuple(_transform(operator, opened[operator.store_name]) for operator in operators)
    columns = [transform.column for transform in transforms]
    for column in columns:
        if columns.count(column) > 1:
            raise DefinitionError(f"two operators fill the column {column!r}", where="enrichment")
    return EnrichPlan(
        transforms=transforms,
        stores=tuple(
            PinnedStore(
                definition=stores[name], version=store.version, snapshot=store.snapshot, count=store.count
            )
            for name, store in opened.items()
        ),
    )


def _transform(operator: EnrichOperator, store: EmbeddingStore) -> Transform:
    where = f"operator {operator.name}"
    definition = store.definition
    udf = resolve_udf(operator.udf_name, where)
    contract = (
        to_arrow(operator.dtype) if operator.dtype else pa.list_(pa.field("item", definition.element_type))
    )
    fixed = pa.types.is_fixed_size_list(contract)
    if not (fixed or pa.types.is_list(contract)):
        raise DefinitionError(
            f"column {operator.column} is {operator.dtype}; enrichment fills lists",
            where=where,
            hint=f"Declare {from_arrow(pa.list_(definition.element_type))}",
        )
    if udf.store_typed and contract.value_type != definition.element_type:
        raise DefinitionError(
            f"column {operator.column} is {operator.dtype}, the vectors are {definition.embedding_dtype}",
            where=where,
            hint=f"Declare {from_arrow(pa.list_(definition.element_type))}, or change embedding_dtype",
        )
    declared = operator.dimension or (contract.list_size if fixed else definition.embedding_dim)
    if (udf.store_typed and declared != definition.embedding_dim) or (
        fixed and declared != contract.list_size
    ):
        by_dtype = fixed and not udf.store_typed
        expected = contract.list_size if by_dtype else definition.embedding_dim
        says = "its dtype says" if by_dtype else f"the vectors of {definition.where} have"
        raise DefinitionError(
            f"column {operator.column} has dimension {declared}, but {says} {expected}",
            where=where,
            hint="Correct shape.dimension, the dtype, or embedding_dim",
        )
    return Transform(
        name=operator.name,
        udf=udf,
        source_id_column=operator.source_id_column,
        store_name=operator.store_name,
        column=operator.column,
        contract=contract,
        dimension=declared,
    )


def enriched_schema(plan: EnrichPlan, skeleton: pa.Schema, stores: Mapping[str, EmbeddingStore]) -> pa.Schema:
    """The schema of an enriched day: placeholders replaced in place, further columns at the end.

    Raises:
        DefinitionError: a source column is missing or holds other ids than the store, or a placeholder has
            another dtype than the contract.
    """
    filled = {transform.column for transform in plan.transforms}
    schema = skeleton
    for transform in plan.transforms:
        where = f"operator {transform.name}"
        source = transform.source_id_column
        if source not in skeleton.names or source in filled:
            raise DefinitionError(
                f"the skeleton has no id column {source!r}",
                where=where,
                hint=did_you_mean(source, [name for name in skeleton.names if name not in filled]),
            )
        _check_source(transform, skeleton.field(source).type, stores[transform.store_name], where)
        field = pa.field(transform.column, transform.contract)
        at = schema.get_field_index(transform.column)
        if at < 0:
            schema = schema.append(field)
            continue
        _check_placeholder(transform, schema.field(at).type, where)
        schema = schema.set(at, field.with_metadata(schema.field(at).metadata))
    return schema


def _check_source(transform: Transform, kind: pa.DataType, store: EmbeddingStore, where: str) -> None:
    lists = is_list(kind)
    takes = transform.udf.takes
    if takes != "any" and lists != (takes == "ids"):
        needs = "a list of ids" if takes == "ids" else "one id"
        raise DefinitionError(
            f"{transform.udf.name} takes {needs} per row, column {transform.source_id_column} is {kind}",
            where=where,
            hint="Name another source_id_column or udf_name",
        )
    store.check_ids(kind.value_type if lists else kind, f"{where}, column {transform.source_id_column}")


def _check_placeholder(transform: Transform, kind: pa.DataType, where: str) -> None:
    """The skeleton may hold the contract's type, or what DuckDB widens it to."""
    contract = from_arrow(transform.contract)
    if from_arrow(kind) not in (contract, to_duckdb(contract)):
        raise DefinitionError(
            f"the skeleton's column {transform.column} is {from_arrow(kind)}, the contract says {contract}",
            where=where,
            hint="Run the skeleton again, or correct the dtype in the service",
        )
