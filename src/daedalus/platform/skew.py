"""Skew of a service: sampled entities as the sources give them, as Quack serves them, as the online store does."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.errors import ExecutionError, ParameterError, did_you_mean
from daedalus.platform.materialization import parse_instant
from daedalus.trust.skew import (
    Cause,
    ColumnTraits,
    Key,
    Question,
    Row,
    ServedPath,
    SkewReport,
    aligned,
    differences,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from daedalus.catalog.model import FeatureServiceDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.materialization import Instant
    from daedalus.platform.project import RunOptions
    from daedalus.platform.registry import PlatformRegistry
    from daedalus.serving.relations import ServedService

PATHS = ("quack", "online")


@dataclass(slots=True)
class _Offline:
    """The sampled entities as the sources give them now, at any instant; each instant is computed once."""

    registry: PlatformRegistry
    config: TrainingRunConfig
    catalog: FeatureCatalog
    service: str
    names: tuple[str, ...]
    entities: pa.Table
    keys: tuple[Key, ...]
    _tables: dict[dt.datetime, pa.Table] = field(default_factory=dict)

    def table(self, instant: dt.datetime) -> pa.Table:
        from daedalus.pipelines.instants.materialize_run import MaterializeRequest, run_materialization

        if instant not in self._tables:
            with tempfile.TemporaryDirectory(prefix="daedalus-skew-") as folder:
                result = run_materialization(
                    MaterializeRequest(
                        pipeline=self.registry.pipeline(self.service, self.config),
                        run_config=self.config,
                        catalog=self.catalog,
                        as_of=instant,
                        output=folder,
                        entities=self.entities,
                    )
                )
                self._tables[instant] = _rows_in(Path(result.path))
        return self._tables[instant]

    def rows(self, instant: dt.datetime) -> list[Row]:
        return aligned(self.table(instant), self.names, self.keys)


def skew(
    registry: PlatformRegistry,
    service: str,
    *,
    rows: int = 100,
    seed: int = 0,
    as_of: Instant = None,
    paths: Sequence[str] = (),
    quack_uri: str = "",
    options: RunOptions | None = None,
) -> SkewReport:
    """Compare what is served with what the sources give now, at one instant, for sampled entities.

    Args:
        registry: the project.
        service: its name; it says `serving_allowed: true` and is materialized.
        rows: entities to sample, from the newest materialization.
        seed: chooses other entities.
        as_of: the instant; None is that of the newest materialization, where lag explains nothing.
        paths: `quack`, `online`; empty is Quack, and the online store where one is configured.
        quack_uri: a running daemon, asked with the token in `DAEDALUS_SERVE_TOKEN`; empty starts one for this.
        options: settings for this run.

    Raises:
        DefinitionError: no such service or path, or nothing of it is in the online store.
        ExecutionError: it is not materialized, or a way of serving does not answer.
    """
    from daedalus.serving.relations import find_served

    for one in paths:
        if one not in PATHS:
            raise ParameterError(f"unknown path {one!r}", where="paths", hint=did_you_mean(one, PATHS))
    config = registry.config(options)
    catalog = registry.facade(config).catalog
    definition = catalog.service(service)
    (served,), notices = find_served(catalog, config.output_path, [service])
    made_at = served.as_of.replace(tzinfo=dt.UTC)
    instant = made_at if as_of is None else parse_instant(as_of)
    entities = _sample(served, rows, seed)
    keys = tuple(zip(*(entities.column(name).to_pylist() for name in served.keys), strict=True))
    offline = _Offline(registry, config, catalog, service, served.keys, entities, keys)
    asked = tuple(paths) or (("quack", "online") if config.online_store.url else ("quack",))
    found = []
    for name in dict.fromkeys(asked):
        if name == "quack":
            found.append(_quack(offline, served, quack_uri))
        else:
            found.append(_online(offline, instant, options))
    question = Question(
        names=served.keys,
        keys=keys,
        columns=_columns(definition, catalog, offline.table(instant).column_names, served.keys),
        version=definition.version,
        as_of=instant,
    )
    wanted = offline.rows(instant)
    return SkewReport(
        service=service,
        version=definition.version,
        as_of=instant,
        entities=len(keys),
        made_at={one.name: "" if one.made_at is None else one.made_at.isoformat() for one in found},
        compared={
            one.name: sum(row is not None for row in one.rows) * len(question.columns) for one in found
        },
        differences=tuple(difference for one in found for difference in differences(question, one, wanted)),
        notices=tuple(notices),
    )


# ------------------------------------------------------------------ the ways of serving


def _quack(offline: _Offline, served: ServedService, uri: str) -> ServedPath:
    from daedalus.serving.client import QuackServingBackend, ServingClient
    from daedalus.serving.daemon import QuackDaemon
    from daedalus.serving.settings import TOKEN_VARIABLE, Identity, ServingSettings, token_digest

    with contextlib.ExitStack() as opened:
        token = os.environ.get(TOKEN_VARIABLE, "")
        if not uri:
            token = secrets.token_hex(32)
            settings = ServingSettings(identities=(Identity(name="skew", digest=token_digest(token)),))
            uri = opened.enter_context(QuackDaemon([served], settings, port=0)).uri
        client = opened.enter_context(ServingClient(QuackServingBackend(uri, token=token)))
        answer = client.get(served.name, offline.entities.select(list(served.keys)).to_pylist())
    rows = [row if there else None for row, there in zip(answer.table.to_pylist(), answer.found, strict=True)]
    return ServedPath(
        name="quack",
        rows=rows,
        own=offline.rows(answer.as_of),
        written=_written(offline, answer.as_of),
        versions=[answer.about.version if row is not None else "" for row in rows],
        made_at=answer.as_of,
    )


def _online(offline: _Offline, instant: dt.datetime, options: RunOptions | None) -> ServedPath:
    """The online store, asked as a request does: by key, and with what rolling features need of the event."""
    import pyarrow as pa

    from daedalus.platform.online import online_service, rolling_plan

    plan = rolling_plan(offline.registry, offline.service, options)
    wanted = offline.rows(instant)
    definition = offline.catalog.service(offline.service)
    columns = {name: offline.entities.column(name) for name in offline.names}
    for name in () if plan is None else plan.request_columns():
        if name not in columns:
            output = next(
                (
                    one.name
                    for one in definition.columns
                    if one.ref is not None and (one.ref.view, one.ref.column) == (definition.spine, name)
                ),
                None,
            )
            if output is None:
                raise ExecutionError(
                    f"its rolling features need {name} of the request, which is not among its columns",
                    where=f"service {offline.service}",
                    hint=f"Add {definition.spine}:{name} to columns, or leave the online store out",
                )
            kind = offline.table(instant).schema.field(output).type
            columns[name] = pa.array([None if row is None else row[output] for row in wanted], kind)
    with online_service(offline.registry, offline.service, options=options) as online:
        answer = online.get(pa.table(columns), as_of=instant)
    own = answer.tables[f"service {offline.service}"]
    there = [status == "found" for status in own.statuses]
    times = [time for time in own.event_times.to_pylist() if time is not None]
    made_at = max(times, default=None)
    hints: dict[tuple[int, str], Cause] = {}
    for column, origin in answer.origins.items():
        table = next((one for one in answer.tables.values() if origin == one.table.subject), None)
        for at, status in enumerate(() if table is None else table.statuses):
            if status in {"expired", "not_yet"}:
                hints[at, column] = Cause.TTL if status == "expired" else Cause.LAG
        if origin == "events" and made_at is not None and made_at < instant:
            hints |= {(at, column): Cause.LAG for at in range(len(wanted))}
    for at, status in enumerate(own.statuses):
        if status == "not_yet":
            hints[at, ""] = Cause.LAG
    values = answer.values.to_pylist()
    return ServedPath(
        name="online",
        rows=[row if found else None for row, found in zip(values, there, strict=True)],
        own=wanted if made_at is None else offline.rows(made_at),
        written=_written(offline, made_at),
        versions=[str(one) for one in own.definition],
        made_at=made_at,
        hints=hints,
    )


# ------------------------------------------------------------------ what was written, and what is compared


def _written(offline: _Offline, instant: dt.datetime | None) -> list[Row]:
    """What the materialization of that instant holds of the entities; None where it is gone."""
    from daedalus.metadata.days import InstantStore
    from daedalus.pipelines.instants.materialize_run import FOLDER

    store = InstantStore(offline.config.output_path / offline.service / FOLDER)
    if instant is None or store.manifest(naive := instant.replace(tzinfo=None)) is None:
        return [None] * len(offline.keys)
    return aligned(_rows_in(store.path(naive), offline.entities), offline.names, offline.keys)


def _rows_in(folder: Path, entities: pa.Table | None = None) -> pa.Table:
    """The rows of a materialization, those of the entities alone where they are given."""
    from daedalus.sql.identifiers import quote_ident, quote_literal
    from daedalus.storage.duckdb_extensions import bare_connection

    files = quote_literal([str(path) for path in sorted(folder.glob("part-*.parquet"))])
    sql = f"SELECT * FROM read_parquet({files}, hive_partitioning = false)"
    with bare_connection() as connection:
        if entities is not None:
            connection.register("entities", entities)
            names = ", ".join(quote_ident(name) for name in entities.column_names)
            sql += f" SEMI JOIN entities USING ({names})"
        return connection.execute(sql).to_arrow_table()


def _sample(served: ServedService, rows: int, seed: int) -> pa.Table:
    """Entity keys of the materialization, chosen by a hash of key and seed: the same ones each time."""
    from daedalus.sql.identifiers import quote_ident, quote_literal
    from daedalus.storage.duckdb_extensions import bare_connection

    absent = [name for name in served.keys if name not in served.columns]
    if absent:
        raise ExecutionError(
            f"its rows are found by {', '.join(served.keys)}, but {absent[0]} is not among its columns",
            where=f"service {served.name}",
            hint="Add the key to columns",
        )
    names = ", ".join(quote_ident(name) for name in served.keys)
    files = quote_literal([str(file) for file in served.files])
    with bare_connection() as connection:
        return connection.execute(
            f"SELECT {names} FROM read_parquet({files}, hive_partitioning = false) "
            f"ORDER BY hash({int(seed)}, {names}), {names} LIMIT {int(rows)}"
        ).to_arrow_table()


def _columns(
    service: FeatureServiceDef, catalog: FeatureCatalog, columns: Sequence[str], keys: Sequence[str]
) -> dict[str, ColumnTraits]:
    """The columns to compare: not the keys, nor the spine's time, which is the instant itself."""
    spine = catalog.view(service.spine)
    views = {join.alias: catalog.view(join.view) for join in service.views}
    found: dict[str, ColumnTraits] = {}
    contract = {one.name: one for one in service.columns}
    for name in columns:
        ref = contract[name].ref if name in contract else None
        if name in keys or (
            ref is not None and (ref.view, ref.column) == (spine.name, spine.timestamp_field)
        ):
            continue
        view = views.get(ref.view) if ref is not None else None
        found[name] = ColumnTraits(
            ttl=view is not None and view.ttl_seconds is not None,
            inexact=ref is not None and ref.view == "rolling",
        )
    return found
