"""`daeda pipeline`: compile a service, explain what would run, train."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from daedalus.cli.options import (
    AggregationOption,
    OutputRootOption,
    RuntimeOption,
    ServiceArgument,
    chosen_stages,
    parse_day,
    run_options,
    service_or_default,
)
from daedalus.cli.profiles import print_profile
from daedalus.cli.render import Format, FormatOption, notices, print_json, print_table, say

app = typer.Typer(
    help="Compile, explain and run the pipeline of a service.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("compile")
def compile_service(
    *,
    service: ServiceArgument = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Where to write; by default config/pipelines.")
    ] = None,
    no_write: Annotated[bool, typer.Option("--no-write", help="Only print; write nothing.")] = False,
    runtime_config_path: RuntimeOption = None,
    aggregation_config_path: AggregationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Compile a service to an editable YAML.

    Writes config/pipelines/SERVICE.generated.yaml and prints it. A hand-edited SERVICE.yaml beside it is what
    `train` runs.
    """
    from daedalus.platform import PlatformRegistry

    compiled = PlatformRegistry.open().compile(
        service_or_default(service),
        options=run_options(runtime_config_path, aggregation_config_path),
        write=not no_write,
        output_dir=output_dir,
    )
    if output is Format.JSON:
        print_json(compiled.to_dict())
        return
    sys.stdout.write(compiled.yaml)
    if compiled.path is not None:
        notices([f"wrote {compiled.path}"])
    if compiled.edited is not None:
        notices([f"{compiled.edited} takes precedence over what was compiled"])
    notices(compiled.notices)


@app.command("explain")
def explain(
    *,
    service: ServiceArgument = None,
    target_date: Annotated[
        str | None, typer.Option("--target-date", metavar="YYYY-MM-DD", help="Fill in the SQL of this day.")
    ] = None,
    runtime_config_path: RuntimeOption = None,
    aggregation_config_path: AggregationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what would run.

    Every operator with its engine, inputs, columns and SQL.
    """
    from daedalus.platform import PlatformRegistry

    explanation = PlatformRegistry.open().explain(
        service_or_default(service),
        target_date=None if target_date is None else parse_day(target_date),
        options=run_options(runtime_config_path, aggregation_config_path),
    )
    if output is Format.JSON:
        print_json(explanation.to_dict())
    else:
        say(explanation.to_text())


@app.command("train")
def train(
    *,
    service: ServiceArgument = None,
    target_date: Annotated[
        list[str] | None,
        typer.Option(
            "--target-date", metavar="YYYY-MM-DD", help="Only this day; may be repeated. Default: every day."
        ),
    ] = None,
    skeleton_only: Annotated[bool, typer.Option("--skeleton-only", help="Only the SQL stage.")] = False,
    enrich_only: Annotated[
        bool, typer.Option("--enrich-only", help="Only the embeddings, on the skeleton that is there.")
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Read databases again; else days that were read from them stand."),
    ] = False,
    runtime_config_path: RuntimeOption = None,
    aggregation_config_path: AggregationOption = None,
    output_root: OutputRootOption = None,
    day_workers: Annotated[
        int | None, typer.Option("--day-workers", min=1, help="Days run at a time.")
    ] = None,
    ray_num_cpus: Annotated[
        int | None, typer.Option("--ray-num-cpus", min=1, help="CPUs of the local Ray session.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="A running Ray cluster for days and embeddings.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time goes, operator by operator.")
    ] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Compile, run the skeleton, then enrich.

    The one way to make training data. Days that are up to date are kept.
    """
    stages = chosen_stages(skeleton_only=skeleton_only, enrich_only=enrich_only)
    days = [parse_day(text) for text in target_date or []]
    from daedalus.cli.training import run_training

    report = run_training(
        service_or_default(service),
        target_dates=days,
        stages=stages,
        refresh=refresh,
        profile=profile,
        options=run_options(
            runtime_config_path,
            aggregation_config_path,
            output_root=output_root,
            day_workers=day_workers,
            ray_num_cpus=ray_num_cpus,
            ray_address=ray_address,
        ),
    )
    if output is Format.JSON:
        print_json(report)
        return
    columns = ("day", "stage", "state", "rows", "reason")
    print_table(columns, [[day.get(column) for column in columns] for day in report["days"]])
    if "profile" in report:
        print_profile(report["profile"])
    say(f"output: {report['output_path']}")
    notices(report["notices"])
