"""Trust in a service's days: proofs, lint, explanations, feature tests."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError
from daedalus.platform.project import RunOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from daedalus.metadata.store import MetadataStore
    from daedalus.pipelines.compiling.columns import ContractColumns
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.registry import PlatformRegistry
    from daedalus.trust.feature_runs import FeatureTestResult

_FOLDER = "daedalus-proof-"
_RUNS_LOOKED_AT = 50
TESTS_FOLDER = "feature_tests"


def prove(
    registry: PlatformRegistry,
    service: str,
    day: date,
    *,
    rows: int = 200,
    options: RunOptions | None = None,
) -> dict[str, Any]:
    """The verdict on a day of a service, recorded as a run of the kind `prove`.

    Raises:
        DefinitionError: no such service, or the day is outside the configured months.
        ExecutionError: there are no events on that day.
        SourceError: a source cannot be read.
    """
    from daedalus.platform.records import recorded_run
    from daedalus.trust.prove import prove_day

    if rows < 1:
        raise DefinitionError(f"rows is {rows}, but must be at least 1", where="prove")
    config = registry.config(options)
    pipeline = registry.pipeline(service, config)
    asked = {"target_dates": [day.isoformat()], "rows": rows}
    with (
        recorded_run(registry, kind="prove", service=service, config=config, request=asked) as run,
        tempfile.TemporaryDirectory(prefix=_FOLDER) as folder,
    ):
        verdict = prove_day(
            pipeline, contract(registry, service, config), config, day, Path(folder), rows=rows
        )
        verdict = {**verdict, "run_id": run.run_id}
        run.attach("prove", verdict)
        trained = _trained(run.store, service, day)
        if trained:
            short = {key: value for key, value in verdict.items() if key != "checks"}
            run.store.attach(trained, "prove", short)
    return verdict


def explain_row(
    registry: PlatformRegistry,
    service: str,
    day: date,
    where: str,
    *,
    options: RunOptions | None = None,
) -> dict[str, Any]:
    """Each value of one row of a day with what it is made of; see `daedalus.trust.explain_row`."""
    from daedalus.trust import explain_row as rows

    config = registry.config(options)
    pipeline, columns = registry.pipeline(service, config), contract(registry, service, config)
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder:
        return rows.explain_row(pipeline, columns, config, day, where=where, folder=Path(folder))


def lint(
    registry: PlatformRegistry,
    service: str,
    day: date | None = None,
    *,
    options: RunOptions | None = None,
) -> dict[str, Any]:
    """What stands out in a day of a service, the newest one by default; see `daedalus.trust.lint`.

    Raises:
        DefinitionError: the day's month is not one of the run's.
        ExecutionError: the day has no events.
    """
    from daedalus.trust.copies import newest_day
    from daedalus.trust.lint import lint_day

    config = registry.config(options)
    if day is not None:
        config.require_day(day)
    pipeline, columns = registry.pipeline(service, config), contract(registry, service, config)
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder:
        return lint_day(pipeline, columns, config, day or newest_day(columns, config), Path(folder))


def run_feature_tests(
    registry: PlatformRegistry,
    paths: Sequence[Path] = (),
    *,
    service: str | None = None,
    options: RunOptions | None = None,
) -> list[FeatureTestResult]:
    """Run the project's feature tests: all of `feature_tests/`, or those of `paths`.

    The embedding coverage filter is off, and every month may be a target.

    Raises:
        DefinitionError: a file is wrong, or there are no tests.
    """
    from daedalus.trust.feature_runs import run_feature_test
    from daedalus.trust.feature_tests import load_feature_tests

    tests = [
        test
        for test in load_feature_tests(_test_files(registry, paths))
        if service is None or test.service == service
    ]
    if service is not None:
        registry.facade().catalog.service(service)
    if not tests:
        raise DefinitionError(
            "there are no feature tests" + (f" of service {service}" if service else ""),
            where=str(registry.project_root / TESTS_FOLDER),
            hint="docs/trust.md shows how to write one",
        )
    results = []
    for test in tests:
        month = f"{test.day:%Y%m}"
        given = options or RunOptions()
        off = {"embedding_coverage_filter": {"enabled": False}, "feed_start": month, "feed_end": month}
        config = registry.config(replace(given, overrides={**given.overrides, **off}))
        pipeline = registry.pipeline(test.service, config)
        with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder:
            results.append(
                run_feature_test(test, pipeline, registry.facade(config).catalog, config, Path(folder))
            )
    return results


def _test_files(registry: PlatformRegistry, paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths or (registry.project_root / TESTS_FOLDER,):
        if path.is_dir():
            found += sorted(one for one in path.rglob("*.y*ml") if one.suffix in {".yaml", ".yml"})
        elif path.is_file():
            found.append(path)
        elif paths:
            raise DefinitionError(
                "there is no such file",
                where=str(path),
                hint="Tests of one service are asked for by --service",
            )
    return found


def _trained(store: MetadataStore, service: str, day: date) -> str:
    """The newest training run that wrote the day; empty when there is none among the last."""
    for run in store.runs(service=service, kind="train", limit=_RUNS_LOOKED_AT):
        payload = store.days(run.run_id).get(("skeleton", day.isoformat()))
        if payload is not None and payload.get("state") == "written":
            return run.run_id
    return ""


def contract(registry: PlatformRegistry, service: str, config: TrainingRunConfig) -> ContractColumns:
    """What the definitions say about a service's columns."""
    from daedalus.pipelines.compiler import build_compile_request
    from daedalus.pipelines.compiling.columns import ContractColumns

    catalog = registry.facade(config).catalog
    request = build_compile_request(service, catalog, config)
    return ContractColumns.of(request.service, request.catalog, request.config)
