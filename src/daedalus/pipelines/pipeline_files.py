"""Pipeline YAML on disk: the compiler's `<service>.generated.yaml`, and a hand-edited `<service>.yaml` that wins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from daedalus.catalog.yaml_reader import parse_yaml
from daedalus.errors import CompileError
from daedalus.pipelines.operators import OperatorPipeline
from daedalus.pipelines.pipeline_checks import check_pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping

PIPELINES_DIR = Path("config/pipelines")
_HEADER = """\
# Compiled from the service definition by `daeda pipeline compile {service}`; compiling again overwrites this file.
# To change what runs, copy it to {service}.yaml and edit that: it takes precedence over the definition.
"""


class _Dumper(yaml.SafeDumper):
    """Block style for structure, one line for short lists of plain values."""


def _represent_list(dumper: yaml.SafeDumper, data: list[object]) -> yaml.Node:
    flow = all(isinstance(item, str | int | float | bool) or item is None for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _represent_list)


def _represent_text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    # YAML folds its three rarer line breaks into spaces unless they are escaped.
    style = '"' if any(mark in data for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _represent_text)


def pipeline_to_yaml(pipeline: OperatorPipeline) -> str:
    """The pipeline as YAML text: equal pipelines give equal bytes."""
    data: Mapping[str, object] = pipeline.to_yaml_dict()
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def pipeline_from_yaml(text: str, file: str = "") -> OperatorPipeline:
    """Parse and check pipeline YAML.

    Raises:
        CompileError: not YAML, not a pipeline, or one that `check_pipeline` refuses; names file and operator.
    """
    # The strict reader bounds depth and size and refuses tags and doubled keys; but it takes dates for text.
    for problem in parse_yaml(text, file=file or "pipeline").problems:
        raise CompileError(problem.what, where=problem.where, hint=problem.hint)
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2026-02-30
        raise CompileError(f"not valid YAML: {' '.join(str(error).split())}", where=file) from error
    if not isinstance(data, dict):
        raise CompileError("a pipeline is a mapping with service and operators", where=file)
    pipeline = OperatorPipeline.from_yaml_dict(data, file)
    check_pipeline(pipeline)
    return pipeline


def generated_path(service: str, folder: Path) -> Path:
    """Where the compiler writes."""
    return folder / f"{service}.generated.yaml"


def write_generated(pipeline: OperatorPipeline, folder: Path) -> Path:
    """Write the generated YAML, in one step; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = generated_path(pipeline.service, folder)
    text = _HEADER.format(service=pipeline.service) + pipeline_to_yaml(pipeline)
    part = path.with_suffix(f".{os.getpid()}.tmp")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def load_hand_edited(service: str, folder: Path) -> OperatorPipeline | None:
    """The hand-edited pipeline of a service, or None when there is no such file."""
    path = folder / f"{service}.yaml"
    if not path.is_file():
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CompileError(
            f"the file cannot be read: {error}", where=str(path), hint="Save it as UTF-8."
        ) from error
    pipeline = pipeline_from_yaml(text, str(path))
    if pipeline.service != service:
        raise CompileError(
            f"this file says service {pipeline.service!r}",
            where=str(path),
            hint=f"Rename it, or set {service!r}",
        )
    return pipeline
