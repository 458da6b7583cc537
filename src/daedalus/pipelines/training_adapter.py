"""The bridge from a service to what training outputs, shared by the compiler and every other reader.

The service is the contract. Only one that declares no `columns` takes `feature_refs` and `output_columns` of
`runtime.yaml`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import FeatureColumnRef, Unset, ViewJoin
from daedalus.catalog.services import assembled_columns
from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daedalus.catalog.model import FeatureServiceDef, ServiceColumn
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.settings import TrainingRunConfig


def resolve_training_service(
    service: FeatureServiceDef, catalog: FeatureCatalog, config: TrainingRunConfig
) -> FeatureServiceDef:
    """The service with its views, session column and every contract column's reference filled in.

    Raises:
        DefinitionError: a service without columns where the configuration gives none either, or a bare name
            that no part of the service makes.
    """
    resolved = service
    if not service.columns:
        resolved = _from_runtime(service, config)
    columns, problems = [], []
    bare = any(column.ref is None for column in resolved.columns)
    candidates = _candidates(resolved, catalog, config) if bare else {}
    for column in resolved.columns:
        try:
            columns.append(_with_ref(column, resolved, candidates))
        except DefinitionError as error:
            problems.append(error)
    if problems:
        raise DefinitionError.gather(problems)
    return dataclasses.replace(resolved, columns=tuple(columns))


def _from_runtime(service: FeatureServiceDef, config: TrainingRunConfig) -> FeatureServiceDef:
    if not config.output_columns:
        raise DefinitionError(
            "the service declares no columns, and runtime.yaml no output_columns",
            where=f"service {service.name} ({service.file})",
            hint="List the contract's columns in the service",
        )
    known = {join.view for join in service.views}
    added = dict.fromkeys(ref.view for ref in config.feature_refs if ref.view not in known)
    views = (*service.views, *(ViewJoin(view=view, alias=view) for view in added if view != service.spine))
    return dataclasses.replace(service, views=views, columns=config.output_columns)


def _with_ref(
    column: ServiceColumn, service: FeatureServiceDef, candidates: Mapping[str, list[FeatureColumnRef]]
) -> ServiceColumn:
    """A bare name finds the one part of the service that makes it; one with only a default stays as it is."""
    if column.ref is not None:
        return column
    refs = candidates.get(column.name, [])
    if len(refs) == 1:
        return dataclasses.replace(column, ref=refs[0])
    where = f"service {service.name} ({service.file}), column {column.name}"
    if len(refs) > 1:
        options = " or ".join(str(ref) for ref in refs)
        raise DefinitionError(
            f"{column.name!r} is made by several parts", where=where, hint=f"Write {options}"
        )
    if column.default_sql is not None or column.default is not Unset.UNSET:
        return column
    raise DefinitionError(
        f"nothing makes column {column.name!r}", where=where, hint=did_you_mean(column.name, candidates)
    )


def embedding_definitions(config: TrainingRunConfig) -> dict[str, dict[str, Any]]:
    """What makes each embedding column: ids, function, store and its width, by enrichment name."""
    widths = {store.name: store.embedding_dim for store in config.embedding_stores}
    found: dict[str, dict[str, Any]] = {}
    for spec in config.enrichment_specs:
        found[spec.name] = {
            "source_id_column": spec.source_id_column,
            "udf_name": spec.udf_name,
            "store_name": spec.store_name,
        }
        if spec.store_name in widths:
            found[spec.name]["dimension"] = widths[spec.store_name]
    return found


def _candidates(
    service: FeatureServiceDef, catalog: FeatureCatalog, config: TrainingRunConfig
) -> dict[str, list[FeatureColumnRef]]:
    found: dict[str, list[FeatureColumnRef]] = {}
    for name, (ref, _) in assembled_columns(service, catalog).items():
        found.setdefault(name, []).append(ref)
    for spec in (*config.aggregation_specs, *service.aggregation_specs):
        ref = FeatureColumnRef("rolling", spec.name)
        if ref not in found.setdefault(spec.name, []):
            found[spec.name].append(ref)
    for enrichment in config.enrichment_specs:
        found.setdefault(enrichment.name, []).append(FeatureColumnRef("embedding", enrichment.name))
    return found
