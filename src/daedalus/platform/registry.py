"""`PlatformRegistry`: one project, its definitions, its configuration, and compile and train over them.

Results are plain data where a person reads them and frozen objects where a program goes on with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daedalus.catalog.facade import CatalogFacade, describe
from daedalus.errors import DefinitionError
from daedalus.operator_config import effective_config, read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.executor import ExecutionRequest, ExecutionResult
    from daedalus.pipelines.explain import Explanation
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig

Stages = Literal["all", "skeleton", "enrich"]
PIPELINES_DIR = "config/pipelines"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a caller may set for one compile or run; None leaves it to the configuration.

    Attributes:
        overrides: settings by key, stronger than every file (the flags of the command line).
    """

    runtime_path: Path | None = None
    aggregation_path: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as run records keep it."""
        return {
            "runtime_path": None if self.runtime_path is None else str(self.runtime_path),
            "aggregation_path": None if self.aggregation_path is None else str(self.aggregation_path),
            "overrides": dict(self.overrides),
        }


def train_request(
    days: Sequence[date], stages: Stages, options: RunOptions, *, refresh: bool = False
) -> dict[str, Any]:
    """What was asked of `train`, as its record keeps it."""
    return {
        "target_dates": [day.isoformat() for day in days],
        "stages": stages,
        **({"refresh": True} if refresh else {}),
        **options.to_dict(),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledService:
    """A service as an operator DAG.

    Attributes:
        yaml: the pipeline file's text.
        path: where it was written; None when it was not.
        edited: the hand-edited file that `train` uses instead; None when there is none.
    """

    service: str
    pipeline: OperatorPipeline
    yaml: str
    path: Path | None
    edited: Path | None
    notices: tuple[str, ...]


class PlatformRegistry:
    """One project: its catalog, its configuration and what can be done with them."""

    def __init__(self, project_root: Path, *, views_dir: Path, services_dir: Path) -> None:
        self.project_root = project_root
        self.views_dir = views_dir
        self.services_dir = services_dir
        self._catalogs: dict[str, FeatureCatalog] = {}

    @classmethod
    def open(
        cls,
        project_root: Path | str = ".",
        *,
        feature_views_dir: Path | str | None = None,
        feature_services_dir: Path | str | None = None,
    ) -> PlatformRegistry:
        """The project in this folder; the definitions' folders default to the operator's configuration.

        Raises:
            DefinitionError: the folder holds no views.
        """
        root = Path(project_root).absolute()
        operator = effective_config()
        views = root / (feature_views_dir or operator["feature_views_dir"])
        services = root / (feature_services_dir or operator["feature_services_dir"])
        if not views.is_dir():
            raise DefinitionError(
                "no feature views here",
                where=str(views),
                hint="Run daeda in a project's folder, or start one: daeda init my_project",
            )
        return cls(root, views_dir=views, services_dir=services)

    def config(self, options: RunOptions | None = None) -> TrainingRunConfig:
        """The configuration of a run."""
        from daedalus.pipelines.settings import load_training_config

        options = options or RunOptions()
        operator = {key: value for key, value in read_config().items() if key == "output_root"}
        return load_training_config(
            self.project_root,
            runtime_path=options.runtime_path,
            aggregation_path=options.aggregation_path,
            overrides=options.overrides,
            operator_defaults=operator,
        )

    @property
    def catalog(self) -> FeatureCatalog:
        """Entities, views and services."""
        return self._catalog(None)

    def _catalog(self, config: TrainingRunConfig | None) -> FeatureCatalog:
        from daedalus.catalog.registry import FeatureCatalog

        config = config or self.config()
        constants = dict(config.constants)
        rolling = {spec.name: "" for spec in config.aggregation_specs}
        key = repr((sorted(constants.items()), sorted(rolling)))
        if key not in self._catalogs:
            self._catalogs[key] = FeatureCatalog.from_yaml_dir(
                self.views_dir,
                services_dir=self.services_dir if self.services_dir.is_dir() else None,
                constants=constants,
                rolling=rolling,
            )
        return self._catalogs[key]

    def facade(self, config: TrainingRunConfig | None = None) -> CatalogFacade:
        """The definitions, for reading: the one way in which anything above the catalog reads them."""
        from daedalus.pipelines.training_adapter import embedding_definitions, resolve_training_service

        settings = config or self.config()
        catalog = self._catalog(settings)
        return CatalogFacade(
            catalog=catalog,
            project_root=self.project_root,
            specs=settings.aggregation_specs,
            embeddings=embedding_definitions(settings),
            resolve=lambda service: resolve_training_service(service, catalog, settings),
        )

    def list_views(self) -> list[dict[str, Any]]:
        """Every view in short, by name."""
        return self.facade().list_views()

    def show_view(self, name: str) -> dict[str, Any]:
        """One view as plain data, secrets masked."""
        return self.facade().show_view(name)

    def list_services(self) -> list[dict[str, Any]]:
        """Every service in short, by name."""
        return self.facade().list_services()

    def show_service(self, name: str) -> dict[str, Any]:
        """One service as plain data."""
        return self.facade().show_service(name)

    def compile(
        self,
        service: str,
        *,
        options: RunOptions | None = None,
        write: bool = True,
        output_dir: Path | None = None,
    ) -> CompiledService:
        """Compile a service to its operator DAG and write `<service>.generated.yaml`."""
        from daedalus.pipelines.compiler import build_compile_request, compile_service_to_pipeline
        from daedalus.pipelines.notices import pipeline_notices
        from daedalus.pipelines.pipeline_files import pipeline_to_yaml, write_generated

        config = self.config(options)
        pipeline = compile_service_to_pipeline(build_compile_request(service, self._catalog(config), config))
        folder = self.project_root / PIPELINES_DIR if output_dir is None else Path(output_dir).absolute()
        try:
            path = write_generated(pipeline, folder) if write else None
        except OSError as exc:
            raise DefinitionError(f"the file cannot be written: {exc}", where=str(folder)) from exc
        edited = self.project_root / PIPELINES_DIR / f"{service}.yaml"
        return CompiledService(
            service=service,
            pipeline=pipeline,
            yaml=pipeline_to_yaml(pipeline),
            path=path,
            edited=edited if edited.is_file() else None,
            notices=(*config.notices, *pipeline_notices(pipeline, self._catalog(config), config)),
        )

    def pipeline(self, service: str, config: TrainingRunConfig) -> OperatorPipeline:
        """The DAG that runs: the hand-edited file when there is one, else the service compiled now."""
        from daedalus.pipelines.compiler import build_compile_request, compile_service_to_pipeline
        from daedalus.pipelines.pipeline_files import load_hand_edited

        # Resolved also for a hand-edited file: an unknown service is refused with near matches.
        request = build_compile_request(service, self._catalog(config), config)
        edited = load_hand_edited(service, self.project_root / PIPELINES_DIR)
        return edited or compile_service_to_pipeline(request)

    def explain(
        self, service: str, *, target_date: date | None = None, options: RunOptions | None = None
    ) -> Explanation:
        """What would run, operator by operator; `target_date` fills in the day's SQL."""
        from daedalus.pipelines.explain import explain_pipeline

        config = self.config(options)
        return explain_pipeline(
            self.pipeline(service, config), catalog=self._catalog(config), config=config, day=target_date
        )

    def train(
        self,
        service: str,
        *,
        target_dates: Sequence[date] = (),
        stages: Stages = "all",
        options: RunOptions | None = None,
        progress: Callable[..., None] | None = None,
        refresh: bool = False,
        profile: bool = False,
        queued: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> ExecutionResult:
        """Compile, then run skeleton and enrich; no `target_dates` is every day of the configured months.

        The run is recorded under the run root; one that cannot be recorded does not begin. Days that were read from
        a database stand as they are unless `refresh` has it read again. `profile` measures where the time goes.
        `queued` is the id of the recorded run that waited for this, `facts` what else to record of it.
        """
        from daedalus.pipelines.executor import ExecutionRequest

        config = self.config(options)
        pipeline = self.pipeline(service, config)
        return self.run_recorded(
            ExecutionRequest(
                pipeline=pipeline,
                run_config=config,
                catalog=self._catalog(config),
                target_dates=tuple(target_dates),
                stages=stages,
                progress=progress,
                refresh=refresh,
                profile=profile,
            ),
            kind="train",
            asked=train_request(target_dates, stages, options or RunOptions(), refresh=refresh),
            facts=facts,
            queued=queued,
        )

    def run_recorded(
        self,
        request: ExecutionRequest,
        *,
        kind: str,
        asked: Mapping[str, Any],
        facts: Mapping[str, Any] | None = None,
        queued: str = "",
    ) -> ExecutionResult:
        """Run the stages of a pipeline, recorded as one run; `asked` is what was asked for, as plain data."""
        from daedalus.pipelines.executor import run_pipeline
        from daedalus.platform.openlineage import lineage_events
        from daedalus.platform.records import recorded_run
        from daedalus.platform.tracking import tracked_run

        service, config = request.pipeline.service, request.run_config
        with (
            tracked_run(self, kind, config, asked) as tracking,
            recorded_run(
                self, kind=kind, service=service, config=config, request=asked, facts=facts, queued=queued
            ) as run,
            lineage_events(self, service, config, run.run_id, kind) as lineage,
        ):
            tracking.run_id = run.run_id
            result = run_pipeline(
                replace(request, progress=run.watching(request.progress), run_id=run.run_id)
            )
            run.record_days(result)
            lineage.finished(result)
        return replace(
            result, run_id=run.run_id, notices=(*result.notices, *lineage.notices, *tracking.notices)
        )

    def list_stores(self) -> list[dict[str, Any]]:
        """Every configured embedding store, as configured; nothing is opened."""
        return [dict(describe(store)) for store in self.config().embedding_stores]

    def build_store(self, name: str, *, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Build an embedding store from its `source_parquet`; resumes what was interrupted."""
        from daedalus.pipelines.days.embedding_ids import store_definition
        from daedalus.storage.embedding_store import build_store

        return dict(describe(build_store(store_definition(self.config(), name), progress=progress)))

    def show_store(self, name: str) -> dict[str, Any]:
        """What an embedding store holds."""
        from daedalus.pipelines.days.embedding_ids import store_definition
        from daedalus.storage.embedding_store import show_store

        return dict(describe(show_store(store_definition(self.config(), name))))
