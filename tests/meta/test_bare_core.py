"""Without any extra: everything of the core imports and runs, and each absent surface says what to install."""

from __future__ import annotations

import json
import pkgutil
from typing import TYPE_CHECKING

import pytest

import daedalus
from support.bare import PROJECT, BareEnvironment, bare_environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bare")]
EXTRAS = {name for name in PROJECT["project"]["optional-dependencies"] if name != "all"}
#: Stacks that no start-up loads: extras, which are not even there, and the heavy ones of the core.
HEAVY = {
    *(
        "fastapi",
        "uvicorn",
        "mcp",
        "dagster",
        "mlflow",
        "snowflake",
        "openlineage",
        "jinja2",
        "plotly",
        "torch",
    ),
    *("ray", "lance", "duckdb", "pandas", "polars", "numba", "pyarrow", "numpy", "redis"),
}
_TIMED = """
import json, resource, subprocess, sys
used = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
print(json.dumps(min(used)))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> BareEnvironment:
    return bare_environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def project(bare: BareEnvironment) -> Path:
    """The project of `daeda init`, with a day that the bare core made."""
    code = (
        "import datetime as dt, json, os\n"
        "from daedalus.cli.main import main\n"
        "from daedalus.platform import PlatformRegistry\n"
        "assert main(['init', 'shop', '--format', 'json']) == 0\n"
        "os.chdir('shop')\n"
        "os.environ['DAEDALUS_TRACKING'] = 'mlflow'\n"
        "done = PlatformRegistry.open().train('product_ranking', target_dates=[dt.date(2026, 1, 5)])\n"
        "print(json.dumps(done.notices))"
    )
    done = bare.run("-c", code)
    assert done.returncode == 0, done.stderr
    (bare.home / "notices.json").write_text(done.stdout.splitlines()[-1])
    return bare.home / "shop"


def test_every_module_imports_or_names_its_extra(bare):
    names = [
        info.name
        for info in pkgutil.walk_packages(daedalus.__path__, prefix="daedalus.")
        if info.name != "daedalus.__main__"
    ]
    code = (
        "import importlib, json\n"
        "refused = {}\n"
        f"for name in {names!r}:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        refused[name] = f'{type(error).__name__}: {error}'\n"
        "print(json.dumps(refused))"
    )
    done = bare.run("-c", code)
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout)
    # Dagster imports the definitions by this name, and cannot without Dagster.
    assert set(refused) <= {"daedalus.definitions"}, refused
    for message in refused.values():
        assert message.startswith("MissingExtraError")
        assert 'pip install "daedalus[dagster]"' in message


@pytest.mark.parametrize(
    "code",
    [
        "import daedalus",
        "from daedalus.cli.main import main; assert main(['--help']) == 0",
        "from daedalus.cli.main import main; assert main(['pipeline', 'train', '--help']) == 0",
    ],
)
def test_starting_loads_no_heavy_stack(bare, code):
    done = bare.run("-c", f"{code}\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & HEAVY


#: What asks for each extra: arguments of `python`, run in a project that has one finished day.
ASKING = {
    "api": ("-m", "daedalus", "serve-api"),
    "mcp": ("-m", "daedalus", "mcp"),
    "dagster": ("-c", "from daedalus.definitions import defs"),
    # The run's notice: it is made nevertheless.
    "mlflow": ("-c", "import json; raise SystemExit(json.load(open('../notices.json'))[-1])"),
    "snowflake": (
        "-c",
        "from daedalus.storage.sources._snowflake_client import _connector as ask\nask()",
    ),
    "openlineage": ("-m", "daedalus", "lineage", "--format", "openlineage"),
    "report": ("-m", "daedalus", "report", "product_ranking"),
}


def test_every_extra_has_a_surface_that_asks_for_it():
    assert set(ASKING) == EXTRAS


@pytest.mark.parametrize("extra", sorted(ASKING))
def test_an_absent_surface_names_the_install_line(bare, project, extra):
    done = bare.run(*ASKING[extra], cwd=project)
    assert done.returncode != 0
    assert f'pip install "daedalus[{extra}]"' in done.stdout + done.stderr
    if ASKING[extra][0] == "-m":
        assert "Traceback" not in done.stderr


def test_the_day_is_loaded_and_torch_is_named_too(bare, project):
    code = (
        "import daedalus\n"
        "data = daedalus.load('product_ranking', '2026-01-05')\n"
        "print(len(next(iter(data.batches(8)))), data.polars().collect().height == data.rows)\n"
        "data.torch()"
    )
    done = bare.run("-c", code, cwd=project)
    assert done.stdout == "8 True\n", done.stderr
    assert "pip install torch" in done.stderr


def test_starting_is_quick(bare, capsys):
    """In CPU time of Python's own start, the best of four: the machine may be busy, or slow."""
    seconds = {}
    for name, arguments in {
        "python": ["-c", "pass"],
        "import daedalus": ["-c", "import daedalus"],
        "daeda --help": ["-m", "daedalus", "--help"],
    }.items():
        seconds[name] = float(bare.run("-c", _TIMED, *arguments).stdout)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name}: {value:.3f} s" for name, value in seconds.items()))
    assert seconds["import daedalus"] < 6 * seconds["python"]
    assert seconds["daeda --help"] < 20 * seconds["python"]
