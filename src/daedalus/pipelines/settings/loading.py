"""From files, environment and flags to a `TrainingRunConfig`; every problem is found before any is raised."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
    YamlConfigSettingsSource,
)

from daedalus.catalog.references import expand_references
from daedalus.errors import DefinitionError
from daedalus.pipelines.settings import problems as problems_of
from daedalus.pipelines.settings.domain import to_run_config
from daedalus.pipelines.settings.layers import Layer, read_layer
from daedalus.pipelines.settings.model import (
    AGGREGATIONS_FILE,
    BASE_FILE,
    ENV_PREFIX,
    RUNTIME_FILE,
    ProjectConstants,
    TrainingSettings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daedalus.pipelines.settings.run_config import TrainingRunConfig

Model = TypeVar("Model", bound=BaseSettings)


class _FileSource(YamlConfigSettingsSource):
    """A YAML file, as read by `read_layer` and with its `${base.name}` references replaced."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        self._data = layer.data
        super().__init__(settings_cls, yaml_file=layer.path)

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return self._data


def load(
    project_root: Path,
    *,
    runtime_path: Path | None,
    aggregation_path: Path | None,
    overrides: dict[str, Any],
    operator_defaults: dict[str, Any],
) -> TrainingRunConfig:
    """See `settings.load_training_config`."""
    files, problems, notices = _read_files(project_root, runtime_path, aggregation_path)
    flags = Layer(label="flag", data=overrides)
    operator = Layer(label="config.toml", data=operator_defaults)
    environment = _environment(problems)
    layers = [flags, environment, *files, operator]
    constants = _constants(layers, problems)
    for layer in files:
        layer.data, unknown = expand_references(
            layer.data, constants, locate=layer.locate, on_splice=layer.forget
        )
        problems.extend(unknown)
    settings: TrainingSettings | None = None
    try:
        settings = _settings(TrainingSettings, layers)
    except ValidationError as exc:
        problems.extend(problems_of.validation(exc, layers))
    if settings is not None:
        problems.extend(problems_of.cross_checks(settings, layers))
    if settings is None or problems:
        raise DefinitionError.gather(problems)
    return to_run_config(
        settings,
        project_root=project_root,
        constants=constants,
        config_files=tuple(layer.label for layer in files),
        notices=(*notices, *problems_of.environment_notices(os.environ)),
    )


def _read_files(
    project_root: Path, runtime_path: Path | None, aggregation_path: Path | None
) -> tuple[list[Layer], list[DefinitionError], list[str]]:
    """The layers of the files that exist, strongest first."""
    layers: list[Layer] = []
    problems: list[DefinitionError] = []
    notices: list[str] = []
    wanted = (
        (RUNTIME_FILE, runtime_path, problems_of.runtime_keys),
        (AGGREGATIONS_FILE, aggregation_path, problems_of.aggregation_keys),
        (BASE_FILE, None, None),
    )
    for default, given, keys_check in wanted:
        path = given if given is not None else project_root / default
        if given is None and not path.exists():
            if default == RUNTIME_FILE:
                notices.append(f"{default} does not exist: the documented defaults apply")
            continue
        layer, found = read_layer(path, _label(path, project_root))
        problems.extend(found)
        if keys_check is not None:
            problems.extend(keys_check(layer))
        layers.append(layer)
    return layers, problems, notices


def _label(path: Path, project_root: Path) -> str:
    absolute = path.absolute()
    return (
        absolute.relative_to(project_root).as_posix() if absolute.is_relative_to(project_root) else str(path)
    )


def _environment(problems: list[DefinitionError]) -> Layer:
    try:
        data = EnvSettingsSource(TrainingSettings)()
    except SettingsError as exc:
        problems.append(
            DefinitionError(
                str(exc), where=f"environment {ENV_PREFIX}...", hint="Lists and mappings are written as JSON."
            )
        )
        data = {}
    return Layer(label="environment", data=data)


def _constants(layers: Sequence[Layer], problems: list[DefinitionError]) -> dict[str, Any]:
    """What `${base.name}` stands for; a wrong constant is a default here, the full validation reports it."""
    try:
        found = _settings(ProjectConstants, layers)
    except ValidationError:
        found = ProjectConstants.model_construct()
    values: dict[str, Any] = found.model_dump()
    own: dict[str, Any] = values.pop("constants")
    problems.extend(
        DefinitionError(
            f"constant {name!r} has the name of a documented key",
            where=problems_of.locate(layers, ("constants", name)),
            hint=f"Set {name} itself, or choose another name.",
        )
        for name in sorted(own.keys() & values.keys())
    )
    return values | own


def _settings(model: type[Model], layers: Sequence[Layer]) -> Model:
    class Layered(model):  # type: ignore[misc, valid-type]
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], **_: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(
                _FileSource(settings_cls, layer)
                if layer.path
                else InitSettingsSource(settings_cls, init_kwargs=layer.data)
                for layer in layers
            )

    settings: Model = Layered()
    return settings
