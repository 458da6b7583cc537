"""What can be wrong in the configuration, as `DefinitionError`s that name file, line, path and mend."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Protocol, get_args

from pydantic import BaseModel, ValidationError

from daedalus.catalog.model import FeatureColumnRef
from daedalus.errors import DaedalusError, DefinitionError, did_you_mean
from daedalus.pipelines.settings.model import (
    AGGREGATIONS_FILE,
    BASE_FILE,
    ENV_PREFIX,
    RUNTIME_FILE,
    TrainingSettings,
)
from daedalus.secrets import is_secret_name, looks_like_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daedalus.pipelines.settings.layers import Layer, Steps

    class _Add(Protocol):
        """Notes a problem of the setting at a path."""

        def __call__(self, path: Steps, what: str, hint: str = "") -> None: ...


_KEYS = frozenset(TrainingSettings.model_fields)
_SENTENCES = {
    "missing": "the key is required",
    "string_too_short": "the value is empty",
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "string_type": "expected text",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
}

#: What the keys with a pattern expect.
_PATTERNS = {
    "feed_start": "expected a month, YYYYMM",
    "feed_end": "expected a month, YYYYMM",
    "namespace": "expected 1 to 64 letters, digits, '_', '.' or '-'",
}


def locate(layers: Sequence[Layer], path: Steps) -> str:
    """Where the strongest layer that says something at the path (or nearest above it) says it."""
    for length in range(len(path), 0, -1):
        for layer in layers:
            if layer.holds(path[:length]):
                return _place(layer, path)
    return ", ".join(part for part in (BASE_FILE, ".".join(map(str, path))) if part)


def _place(layer: Layer, path: Steps) -> str:
    if layer.label == "flag":
        return "--" + "-".join(map(str, path)).replace("_", "-")
    if layer.label == "environment":
        return "environment " + ENV_PREFIX + "__".join(map(str, path)).upper()
    return layer.locate(path)


def runtime_keys(layer: Layer) -> list[DefinitionError]:
    """Keys of the runtime file that belong in the aggregations file."""
    return [
        DefinitionError(f"{key!r} belongs in {AGGREGATIONS_FILE}", where=layer.locate((key,)))
        for key in layer.data
        if key in TrainingSettings.aggregation_keys
    ]


def aggregation_keys(layer: Layer) -> list[DefinitionError]:
    """Keys of the aggregations file that belong in another one."""
    return [
        DefinitionError(f"{key!r} belongs in {RUNTIME_FILE}", where=layer.locate((key,)))
        for key in layer.data
        if key in _KEYS - TrainingSettings.aggregation_keys
    ]


def validation(exc: ValidationError, layers: Sequence[Layer]) -> list[DefinitionError]:
    """One problem for each of pydantic's, in the order of the files."""
    found: dict[str, DefinitionError] = {}
    for error in exc.errors(include_url=False):
        path: Steps = error["loc"]
        if isinstance(error.get("input"), str) and "${base." in error["input"]:
            continue  # an unknown constant, which is reported as such
        problem = _problem(path, error["type"], error["msg"], error.get("input"), layers)
        # A union reports one line per member; the place is one.
        found.setdefault(problem.where + problem.what, problem)
    return list(found.values())


def _problem(path: Steps, kind: str, message: str, value: Any, layers: Sequence[Layer]) -> DefinitionError:
    if kind == "extra_forbidden":
        return DefinitionError(
            f"unknown key {path[-1]!r}",
            where=locate(layers, path),
            hint=did_you_mean(str(path[-1]), _known_keys(path[:-1])),
        )
    if kind == "missing":
        return DefinitionError(f"the key {path[-1]!r} is missing", where=locate(layers, path[:-1]))
    if path and path[0] == "constants":
        path, kind, message = path[:2], "", "expected a number, text, or a list of one of them"
    expected = _PATTERNS.get(str(path[-1])) if path and kind == "string_pattern_mismatch" else None
    sentence = expected or _SENTENCES.get(kind) or message.removeprefix("Value error, ")
    sentence = sentence[:1].lower() + sentence[1:]
    shown = "" if isinstance(value, dict | list | bool) or value is None else f", found {value!r}"
    hidden = bool(path) and (is_secret_name(str(path[-1])) or looks_like_secret(str(value)))
    return DefinitionError(sentence + ("" if hidden else shown), where=locate(layers, path))


def _known_keys(path: Steps) -> Iterable[str]:
    model: type[BaseModel] = TrainingSettings
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return model.model_fields


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def cross_checks(settings: TrainingSettings, layers: Sequence[Layer]) -> list[DefinitionError]:
    """What only several keys together can show."""
    problems: list[DefinitionError] = []

    def add(path: Steps, what: str, hint: str = "") -> None:
        problems.append(DefinitionError(what, where=locate(layers, path), hint=hint))

    if settings.feed_start > settings.feed_end:
        add(("feed_end",), f"feed_end {settings.feed_end} is before feed_start {settings.feed_start}")
    for index, text in enumerate(settings.feature_refs):
        try:
            FeatureColumnRef.parse(text)
        except ValueError as exc:
            add(("feature_refs", index), str(exc))
    for index, column in enumerate(settings.output_columns):
        if {"default", "default_sql"} <= column.model_fields_set:
            add(("output_columns", index), "give default or default_sql, not both")
    for key, value in settings.compute.duckdb_config.items():
        if (is_secret_name(key) and not value.startswith("${")) or looks_like_secret(value):
            add(
                ("compute", "duckdb_config", key),
                "a credential in the configuration",
                "Write ${NAME} and export it.",
            )
    for path, text in _places(settings):
        if any(ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in text):
            add(path, "a control character in a path", "Write the path without it.")
        if ("://" in text or "=" in text) and looks_like_secret(text):
            add(path, "a credential in the configuration", "Write ${NAME} and export it.")
    _check_engine(settings, add)
    _check_sink(settings, add)
    _check_stores(settings, add)
    _check_names(settings, add)
    _check_specs(settings, layers, problems)
    return problems


def _places(settings: TrainingSettings) -> Iterable[tuple[Steps, str]]:
    """The settings that name a folder, a file or a URL."""
    for key in ("data_root", "output_root", "feature_s3_root_dir"):
        yield (key,), str(getattr(settings, key, "") or "")
    yield ("embedding_coverage_filter", "id_relation"), settings.embedding_coverage_filter.id_relation or ""
    for index, store in enumerate(settings.embedding_stores):
        yield ("embedding_stores", index, "path"), store.path
        yield ("embedding_stores", index, "source_parquet"), store.source_parquet or ""


def _check_engine(settings: TrainingSettings, add: _Add) -> None:
    from daedalus.compute import Engine

    known = [engine.value for engine in Engine]
    if settings.compute.engine not in known:
        engine = settings.compute.engine
        add(("compute", "engine"), f"unknown engine {engine!r}", did_you_mean(engine, known))


def _check_sink(settings: TrainingSettings, add: _Add) -> None:
    from daedalus.pipelines.settings.sink_places import place_problems

    sink = settings.sink
    for key, what, mend in place_problems(sink.format, sink.path, sink.data_path):
        add(("sink", key), what, mend)


def _check_stores(settings: TrainingSettings, add: _Add) -> None:
    known = [store.name for store in settings.embedding_stores]
    for index, spec in enumerate(settings.enrichment_specs):
        if spec.store_name not in known:
            add(
                ("enrichment_specs", index, "store_name"),
                f"unknown embedding store {spec.store_name!r}",
                did_you_mean(spec.store_name, known),
            )
    coverage = settings.embedding_coverage_filter
    if coverage.store and coverage.store not in known:
        add(
            ("embedding_coverage_filter", "store"),
            f"unknown embedding store {coverage.store!r}",
            did_you_mean(coverage.store, known),
        )
    if coverage.store and coverage.id_relation:
        add(("embedding_coverage_filter", "id_relation"), "give store or id_relation, not both")


def _check_names(settings: TrainingSettings, add: _Add) -> None:
    named = {
        "output_columns": [column.name for column in settings.output_columns],
        "enrichment_specs": [spec.name for spec in settings.enrichment_specs],
        "embedding_stores": [store.name for store in settings.embedding_stores],
        "aggregation_specs": [str(spec.get("name", "")) for spec in settings.aggregation_specs],
    }
    for key, names in named.items():
        for index, name in enumerate(names):
            if name and name in names[:index]:
                add((key, index), f"the name {name!r} is used twice in {key}")


def _check_specs(
    settings: TrainingSettings, layers: Sequence[Layer], problems: list[DefinitionError]
) -> None:
    from daedalus.catalog.aggregation import AggregationSpec

    for index, spec in enumerate(settings.aggregation_specs):
        where = locate(layers, ("aggregation_specs", index))
        try:
            AggregationSpec.from_mapping(spec, where=where)
        except DefinitionError as exc:
            problems.append(exc)
        except DaedalusError as exc:
            problems.append(DefinitionError(exc.what, where=exc.where or where, hint=exc.hint))


def environment_notices(environ: Mapping[str, str]) -> list[str]:
    """A notice for each `DAEDALUS_...` variable that is nearly, but not quite, the name of a setting.

    >>> environment_notices({"DAEDALUS_DAY_WORKER": "4", "DAEDALUS_DAY_WORKERS": "4", "DAEDALUS_PG": "x"})
    ['environment DAEDALUS_DAY_WORKER has no effect. Did you mean DAEDALUS_DAY_WORKERS?']
    """
    known = {ENV_PREFIX + key.upper() for key in _KEYS}
    notices = []
    for name in sorted(environ):
        top = name.upper().split("__")[0]
        if not name.upper().startswith(ENV_PREFIX) or top in known:
            continue
        close = difflib.get_close_matches(top, known, n=1, cutoff=0.9)
        if close:
            notices.append(f"environment {name} has no effect. Did you mean {close[0]}?")
    return notices
