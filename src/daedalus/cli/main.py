"""The entry point: build the commands, run one, turn whatever happens into an exit code.

Exit codes: 0 done; 1 the work failed; 2 the command or the definitions are wrong; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import Abort, TyperException

from daedalus.cli import (
    api,
    config,
    demo,
    doctor,
    init,
    lineage,
    materialize,
    mcp,
    online,
    pipeline,
    records,
    registry,
    report,
    runs,
    serve,
    services,
    skew,
    stores,
    trust,
    views,
)
from daedalus.cli.render import print_error, print_plain_error, wants_json
from daedalus.errors import CompileError, DaedalusError, DefinitionError

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_NO_COMMAND = re.compile(r"No such command '([^']*)'\.")

_EPILOG = (
    "Runs in a project's folder: feature_views/, feature_services/ and config/ are read from the "
    "working directory. Exit codes: 0 done, 1 the work failed, 2 the command or the definitions are "
    "wrong, 130 interrupted."
)


def _version(wanted: bool) -> None:
    if wanted:
        from daedalus import __version__

        sys.stdout.write(f"daeda {__version__}\n")
        raise typer.Exit


def build_app() -> typer.Typer:
    """The whole command tree; importing a command imports no engine."""
    # Plain help: rich's help formatter alone costs more than the start-up budget.
    app = typer.Typer(
        name="daeda",
        help="Point-in-time-correct training sets from YAML feature definitions.",
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def root(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit."),
        ] = False,
    ) -> None:
        pass

    app.command("init")(init.init)
    app.command("demo")(demo.demo)
    app.command("doctor")(doctor.doctor)
    app.add_typer(pipeline.app, name="pipeline")
    app.add_typer(views.app, name="view")
    app.add_typer(services.app, name="service")
    app.add_typer(stores.app, name="store")
    app.add_typer(registry.app, name="registry")
    app.command("lineage")(lineage.lineage)
    app.add_typer(lineage.app, name="platform")
    app.command("report")(report.report)
    app.command("prove")(trust.prove)
    app.command("explain-row")(trust.explain_row)
    app.command("lint")(trust.lint)
    app.command("test")(trust.run_tests)
    app.command("materialize")(materialize.materialize)
    app.command("materialize-day")(materialize.materialize_day)
    app.add_typer(online.app, name="online")
    app.add_typer(runs.app, name="runs")
    app.command("plan")(records.plan)
    app.command("reproduce")(records.reproduce)
    app.command("diff-runs")(records.diff_runs)
    app.add_typer(config.app, name="config")
    app.command("skew")(skew.skew)
    app.command("serve")(serve.serve)
    app.command("serve-api")(api.serve_api)
    app.command("mcp")(mcp.mcp)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code is the result."""
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = wants_json(args)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An argument that is no UTF-8, or a terminal that is none, must not end the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    if any(0xD800 <= ord(char) <= 0xDFFF for text in args for char in text):
        print_plain_error("UsageError", "an argument is not UTF-8", as_json=as_json, hint="Name it in UTF-8.")
        return USAGE
    try:
        result = build_app()(args, prog_name="daeda", standalone_mode=False)
        sys.stdout.flush()
        if result == INTERRUPTED:  # what Typer makes of Ctrl-C
            raise KeyboardInterrupt
    except BrokenPipeError:
        # The reader (`| head`) went away; python would complain once more while closing the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, Abort):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except TyperException as error:
        return _usage(error, as_json=as_json)
    except DaedalusError as error:
        print_error(error, as_json=as_json)
        return USAGE if isinstance(error, DefinitionError | CompileError) else FAILED
    except OSError as error:
        return _refused(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user
        return _unexpected(error, as_json=as_json)
    return result if isinstance(result, int) else OK


def _usage(error: TyperException, *, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(error.format_message().rstrip() + "\n")
        return USAGE
    command = context.command_path if context is not None else "daeda"
    message, hint = error.format_message(), f"Try '{command} --help'."
    found = _NO_COMMAND.match(message)
    if found and (meant := _commands_called(found[1])):
        message = found[0]
        hint = f"Did you mean {' or '.join(repr(one) for one in meant)}?"
    print_plain_error("UsageError", message, as_json=as_json, hint=hint)
    return USAGE


def _commands_called(name: str) -> list[str]:
    """Commands of that name, wherever they are: `daeda pipeline train` for `train`."""
    app = build_app()
    found = [f"daeda {one.name}" for one in app.registered_commands if one.name == name]
    for group in app.registered_groups:
        commands = group.typer_instance.registered_commands if group.typer_instance else []
        found += [f"daeda {group.name} {one.name}" for one in commands if one.name == name]
    return found


def _refused(error: OSError, *, as_json: bool) -> int:
    """The system refuses a file (a name too long, no permission): the user's to mend, if we know which."""
    if error.filename is None or error.strerror is None:
        return _unexpected(error, as_json=as_json)
    from daedalus.cli.crash import write_log
    from daedalus.errors import ExecutionError

    hint = f"The traceback is in {write_log(error)}"
    print_error(ExecutionError(error.strerror, where=_name(error.filename), hint=hint), as_json=as_json)
    return FAILED


def _name(file: object) -> str:
    text = os.fsdecode(file) if isinstance(file, str | bytes | os.PathLike) else str(file)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _unexpected(error: Exception, *, as_json: bool) -> int:
    from daedalus.cli.crash import write_log

    path = write_log(error)
    message = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
    print_plain_error("unexpected error", message, as_json=as_json, hint=f"The traceback is in {path}")
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
