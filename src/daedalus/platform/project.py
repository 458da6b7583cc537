"""`Project`: definitions and configuration of one project, and what can be told from them alone.

Results are plain data where a person reads them and frozen objects where a program goes on with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from daedalus.catalog.facade import CatalogFacade
from daedalus.errors import DefinitionError
from daedalus.operator_config import effective_config, read_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.explain import Explanation
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.results import CompiledPipeline

#: What of a run is asked for.
Stages = Literal["all", "skeleton", "enrich"]
#: The folders in which finished days of a service lie.
Stage = Literal["skeleton", "enriched"]


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

    def to_dict(self) -> CompiledPipeline:
        """Plain data: the operators in place of the file's text."""
        return {
            "service": self.service,
            "path": None if self.path is None else str(self.path),
            "edited": None if self.edited is None else str(self.edited),
            "notices": list(self.notices),
            "pipeline": self.pipeline.to_yaml_dict(),
        }


class Project:
    """One project: its catalog, its configuration, its pipelines; nothing is run."""

    def __init__(self, project_root: Path, *, views_dir: Path, services_dir: Path) -> None:
        self.project_root = project_root
        self.views_dir = views_dir
        self.services_dir = services_dir
        self._catalogs: dict[str, FeatureCatalog] = {}
        self._read_in = Path.cwd()

    @classmethod
    def open(
        cls,
        project_root: Path | str = ".",
        *,
        feature_views_dir: Path | str | None = None,
        feature_services_dir: Path | str | None = None,
    ) -> Self:
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
            self._read_in = Path.cwd()
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
        from daedalus.pipelines.pipeline_files import PIPELINES_DIR, pipeline_to_yaml, write_generated

        config = self.config(options)
        pipeline = compile_service_to_pipeline(build_compile_request(service, self._catalog(config), config))
        folder = self.project_root / PIPELINES_DIR if output_dir is None else Path(output_dir).absolute()
        try:
            path = write_generated(pipeline, folder) if write else None
        except OSError as exc:
            raise DefinitionError(f"the file cannot be written: {exc}", where=str(folder)) from exc
        edited = self.edited_file(service)
        return CompiledService(
            service=service,
            pipeline=pipeline,
            yaml=pipeline_to_yaml(pipeline),
            path=path,
            edited=edited if edited.is_file() else None,
            notices=(*config.notices, *pipeline_notices(pipeline, self._catalog(config), config)),
        )

    def definition_file(self, shown: str) -> Path:
        """The file of a view or service, which says it as messages do: from the working directory it was read in."""
        return self._read_in / shown

    def edited_file(self, service: str) -> Path:
        """Where a hand-edited pipeline of the service is, or would be."""
        from daedalus.pipelines.pipeline_files import PIPELINES_DIR

        return self.project_root / PIPELINES_DIR / f"{service}.yaml"

    def pipeline(self, service: str, config: TrainingRunConfig) -> OperatorPipeline:
        """The DAG that runs: the hand-edited file when there is one, else the service compiled now."""
        from daedalus.pipelines.compiler import build_compile_request, compile_service_to_pipeline
        from daedalus.pipelines.pipeline_checks import check_scans
        from daedalus.pipelines.pipeline_files import load_hand_edited

        # Resolved also for a hand-edited file: an unknown service is refused with near matches.
        request = build_compile_request(service, self._catalog(config), config)
        edited = load_hand_edited(service, self.edited_file(service).parent)
        if edited is None:
            return compile_service_to_pipeline(request)
        check_scans(edited, request.catalog)
        return edited

    def explain(
        self, service: str, *, target_date: date | None = None, options: RunOptions | None = None
    ) -> Explanation:
        """What would run, operator by operator; `target_date` fills in the day's SQL."""
        from daedalus.pipelines.explain import explain_pipeline

        config = self.config(options)
        return explain_pipeline(
            self.pipeline(service, config), catalog=self._catalog(config), config=config, day=target_date
        )


def final_stage(pipeline: OperatorPipeline) -> Stage:
    """The folder of the last stage that a pipeline has, where its finished days lie."""
    return "enriched" if pipeline.by_kind("ray_udf_transform") else "skeleton"
