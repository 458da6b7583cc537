"""Arguments and options that several commands take, and what they come to."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from daedalus.platform import RunOptions, Stages

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

ServiceArgument = Annotated[
    str | None,
    typer.Argument(metavar="SERVICE", help="The service; left out, default_service of `daeda config`."),
]
RuntimeOption = Annotated[
    Path | None, typer.Option("--runtime-config-path", help="In place of config/training/runtime.yaml.")
]
AggregationOption = Annotated[
    Path | None,
    typer.Option("--aggregation-config-path", help="In place of config/training/aggregations.yaml."),
]
OutputRootOption = Annotated[
    str | None, typer.Option("--output-root", help="Where to write; relative to the working directory.")
]
ServedRootOption = Annotated[
    str | None,
    typer.Option("--output-root", help="Where materializations are; relative to the working directory."),
]
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", metavar="TIME", help="ISO time, UTC where it has no zone. Default: now."),
]


def service_or_default(service: str | None) -> str:
    """The service that was named, or the operator's default.

    Raises:
        DefinitionError: none was named, and the project does not have the default one.
    """
    if service:
        return service
    from daedalus.errors import DaedalusError, DefinitionError
    from daedalus.operator_config import effective_config
    from daedalus.platform import PlatformRegistry

    default = effective_config()["default_service"]
    try:
        known = sorted(PlatformRegistry.open().catalog.services)
    except DaedalusError:  # which the command itself will meet, and say
        return default
    if default not in known:
        raise DefinitionError(
            f"no service is named, and default_service, {default!r}, is none of this project's",
            hint=f"Name one: {', '.join(known)}; or keep one: daeda config set default_service NAME",
        )
    return default


def parse_day(text: str, option: str = "--target-date") -> date:
    """A `YYYY-MM-DD`; anything else is wrong usage."""
    try:
        if not _DAY.fullmatch(text):  # `fromisoformat` also takes 20260501 and 2026-W18-5
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"expected YYYY-MM-DD, got {text!r}", param_hint=option) from None


def chosen_stages(*, skeleton_only: bool, enrich_only: bool) -> Stages:
    """What of a run two flags ask for; both at once are wrong usage."""
    if skeleton_only and enrich_only:
        raise typer.BadParameter("choose one of the two", param_hint="--skeleton-only / --enrich-only")
    return "skeleton" if skeleton_only else "enrich" if enrich_only else "all"


def run_options(runtime: Path | None = None, aggregation: Path | None = None, **flags: Any) -> RunOptions:
    """The options of a run; flags that were not given leave their setting as configured."""
    from daedalus.platform import RunOptions

    overrides = {key: value for key, value in flags.items() if value is not None}
    return RunOptions(runtime_path=runtime, aggregation_path=aggregation, overrides=overrides)
