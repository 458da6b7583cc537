"""The documentation holds: code runs, YAML loads, commands exist, links resolve, the reference has every key."""

from __future__ import annotations

import dataclasses
import doctest
import re
import shlex
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from typer.main import get_command

from daedalus import FeatureCatalog, aggregate_pit_table, load_training_config
from daedalus.catalog import entities, service_reader, sources, views
from daedalus.catalog.aggregation import AggregationSpec, Operation
from daedalus.catalog.dtype_tree import SCALARS
from daedalus.catalog.model import AgeColumn, Lookback, SessionFilter, ViewJoin
from daedalus.catalog.references import expand_references
from daedalus.cli.main import build_app, main
from daedalus.pipelines._plain import from_mapping
from daedalus.pipelines.compiler import build_compile_request, compile_service_to_pipeline
from daedalus.pipelines.operators import OPERATOR_KINDS, ProjectColumn, operator_from_dict
from daedalus.pipelines.settings.model import OnlineStoreSection, ProjectConstants
from daedalus.platform import PlatformRegistry
from daedalus.platform.trust import run_feature_tests
from daedalus.trust.feature_tests import load_feature_tests

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").glob("*/README.md")]
}
_BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_COMMAND_LANGUAGES = {"bash", "sh", "console"}
#: Pages whose blocks are done one after the other; in the project of `daeda init`, or in an empty folder.
WORKED_THROUGH = {"docs/tutorial.md": False, "docs/feature-catalog.md": True}


@pytest.fixture(autouse=True)
def nobodys_machine(tmp_path, monkeypatch):
    """Neither the operator's file nor the terminal's width decides."""
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("COLUMNS", "200")


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of these languages, unindented."""
    found = _BLOCK.findall(PAGES[page].read_text(encoding="utf-8"))
    return [
        "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        for indent, language, body in found
        if language in languages
    ]


def pages_with(*languages: str) -> list[str]:
    return [page for page in PAGES if blocks(page, *languages)]


# ------------------------------------------------------------------ pages and links


def anchors(path: Path) -> set[str]:
    """What a heading can be linked by, as GitHub spells it."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page].read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (PAGES[page].parent / name).resolve() if name else PAGES[page]
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_the_index_names_every_page():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for path in DOCS.rglob("*.md"):
        if path.name != "README.md":
            assert f"({path.relative_to(DOCS).as_posix()})" in index, path.name


@pytest.mark.parametrize("page", PAGES)
def test_fences_have_a_language_and_pages_no_machine_paths(page):
    text = PAGES[page].read_text(encoding="utf-8")
    assert text.count("```") % 2 == 0
    assert not re.search(r"/(?:work|home|root|Users)/", text)
    known = {"", "yaml", "python", "mermaid", *_COMMAND_LANGUAGES}
    assert {language for _, language, _ in _BLOCK.findall(text)} <= known


# ------------------------------------------------------------------ YAML

_SERVICE_KEYS = set(service_reader._KEYS)
_VIEW_KEYS = set(views._KEYS)


def kind_of(data: dict) -> str:
    """Which loader reads a block."""
    keys = set(data)
    if "op_kind" in keys:
        return "operator"
    if keys <= {"name", "sql", "dtype"}:
        return "project column"
    if "spine" in keys:
        return "service"
    if "source" in keys and keys <= _VIEW_KEYS:
        return "view"
    if {"service", "tests"} <= keys:
        return "feature tests"
    if keys == {"entities"}:
        return "entities"
    if keys <= {"aggregation_specs", "enrichment_specs", "embedding_stores"}:
        return "aggregations"
    if keys == {"online_store"}:
        return "online store"
    return "constants"


def write_project(page: str, folder: Path) -> list[str]:
    """The page's blocks as one project; returns the names of its services. Parses what is in no project."""
    services, aggregations = [], {}
    for sub in ("feature_views", "feature_services", "config/training"):
        (folder / sub).mkdir(parents=True)
    (folder / "config/training/runtime.yaml").write_text("embedding_coverage_filter: disabled\n")
    for text in blocks(page, "yaml"):
        data = yaml.load(text, Loader=yaml.BaseLoader)
        match kind_of(data):
            case "operator":
                operator_from_dict(yaml.safe_load(text))
            case "project column":
                from_mapping(ProjectColumn, yaml.safe_load(text), page)
            case "service":
                services.append(data["name"])
                (folder / f"feature_services/{data['name']}.yaml").write_text(text)
            case "view":
                (folder / f"feature_views/{data['name']}.yaml").write_text(text)
            case "feature tests":
                (folder / "feature_tests.yaml").write_text(text)
                assert load_feature_tests([folder / "feature_tests.yaml"])
            case "entities":
                (folder / "feature_views/entities.yaml").write_text(text)
            case "aggregations":
                for key, entries in yaml.safe_load(text).items():
                    aggregations.setdefault(key, []).extend(entries)
            case "online store":
                OnlineStoreSection.model_validate(data["online_store"])
            case "constants":
                known = {**ProjectConstants().model_dump(), "store_version": "v6"}
                known["artwork_features"] = ["artwork_properties:author_id"]
                _, problems = expand_references(yaml.safe_load(text), known, locate=str)
                assert "${base." in text, f"no loader reads this block:\n{text}"
                assert not problems
    (folder / "config/training/aggregations.yaml").write_text(yaml.safe_dump(aggregations))
    return services


@pytest.mark.parametrize("page", [page for page in pages_with("yaml") if page not in WORKED_THROUGH])
def test_yaml_is_what_the_loaders_read(page, tmp_path):
    services = write_project(page, tmp_path)
    config = load_training_config(tmp_path)
    catalog = FeatureCatalog.from_yaml_dir(
        tmp_path / "feature_views",
        services_dir=tmp_path / "feature_services",
        constants=dict(config.constants),
        rolling={spec.name: "" for spec in config.aggregation_specs},
    )
    assert set(catalog.services) == set(services)
    for name in services:
        columns = catalog.service(name).columns
        pipeline = compile_service_to_pipeline(build_compile_request(name, catalog, config))
        assert len(pipeline.by_kind("project")[-1].columns) >= len(columns)


@pytest.mark.slow
def test_the_recipes_give_what_their_tests_say(tmp_path):
    assert write_project("docs/recipes.md", tmp_path) == ["shop_ranking"]
    registry = PlatformRegistry.open(tmp_path)
    (result,) = run_feature_tests(registry, [tmp_path / "feature_tests.yaml"])
    assert result.passed, result


def test_the_first_page_shows_what_its_spec_gives():
    page = PAGES["docs/README.md"].read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d):00 \| (\w+) \| (\d) \| `(\[.*?\])`", page, re.MULTILINE)
    hours, events, artworks, values = zip(*rows, strict=True)
    spine = pa.table(
        {
            "user_id": [1] * len(rows),
            "event_timestamp": [int(hour) * 3_600_000 for hour in hours],
            "event": events,
            "artwork_id": [int(artwork) for artwork in artworks],
        }
    )
    (spec,) = yaml.safe_load(blocks("docs/README.md", "yaml")[0])["aggregation_specs"]
    found = aggregate_pit_table(spine, [spec])["liked_7d"].to_pylist()
    assert found == [yaml.safe_load(value) for value in values]


# ------------------------------------------------------------------ Python and commands


def commands(page: str) -> list[str]:
    """The command lines of a page's shell blocks."""
    lines = []
    for text in blocks(page, *_COMMAND_LANGUAGES):
        joined = text.replace("\\\n", " ")
        prompted = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
        lines += prompted or joined.splitlines()
    parts = [part for line in lines for part in re.split(r"&&|\|\|", line.partition(" #")[0])]
    return [part.strip() for part in parts if part.strip()]


@pytest.mark.parametrize("page", pages_with(*_COMMAND_LANGUAGES))
def test_commands_exist_with_their_options(page):
    app = get_command(build_app())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(page):
        program, *words = shlex.split(line)
        if program == "make":
            assert {word for word in words if "=" not in word} <= targets, line
        elif program == "python":
            assert any((base / words[0]).is_file() for base in (ROOT, PAGES[page].parent)), line
        elif program == "daeda":
            command = app
            while hasattr(command, "commands"):
                assert words, line
                assert words[0] in command.commands, line
                command = command.commands[words.pop(0)]
            # Parses the arguments and runs nothing.
            command.make_context(line, [word for word in words if word != "--help"])


#: Pages whose code runs in the project of `daeda init`.
STARTED = ("docs/pipeline.md", "docs/registry.md", "docs/lineage.md", "docs/report.md", "docs/records.md")


@pytest.fixture
def documented_project(request, tmp_path, monkeypatch):
    """The folder that a page's code runs in: the project of its own YAML, or the one of `daeda init`."""
    folder = tmp_path / "project"
    if request.param == "docs/definitions.md":
        write_project(request.param, folder)
    elif request.param in (*STARTED, "docs/api.md", "docs/python-api.md", "docs/platform-surfaces.md"):
        monkeypatch.chdir(tmp_path)
        assert main(["init", "project"]) == 0
    else:
        folder.mkdir()
    monkeypatch.chdir(folder)
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize(
    "documented_project",
    [page for page in pages_with("python") if page.startswith("docs/") and page not in WORKED_THROUGH],
    indirect=True,
)
def test_python_runs(documented_project, capsys):
    namespace = {"__name__": "documentation"}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for number, text in enumerate(blocks(documented_project, "python")):
        place = f"{documented_project} block {number}"
        if ">>>" in text:
            test = parser.get_doctest(text, namespace, place, None, 0)
            assert test.examples
            runner.run(test, clear_globs=False)
            namespace.update(test.globs)
            assert not runner.summarize(verbose=False).failed, capsys.readouterr().out
        else:
            exec(compile(text, place, "exec"), namespace)


@pytest.mark.parametrize("page", [page for page in pages_with("python") if not page.startswith("docs/")])
def test_python_that_needs_data_compiles(page):
    for text in blocks(page, "python"):
        compile(text, page, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("documented_project", STARTED, indirect=True)
def test_console_shows_what_the_commands_print(documented_project, capsys):
    ran = 0
    for text in blocks(documented_project, "console"):
        printed = ""
        for line in text.splitlines():
            if line.startswith("$ daeda "):
                capsys.readouterr()
                assert main(shlex.split(line)[2:]) == 0
                printed = " ".join(capsys.readouterr().out.split())
                ran += 1
            else:
                assert " ".join(line.split()) in printed, line
    assert ran >= 2


def shows(text: str, capsys: pytest.CaptureFixture) -> None:
    """Run the commands of a block; what it shows between them is what they print."""
    printed = ""
    for line in text.replace("\\\n", " ").splitlines():
        if not line.startswith("$ "):
            assert " ".join(line.split()) in printed, f"{line}\n{printed}"
            continue
        command, _, otherwise = line[2:].partition(" || echo ")
        program, *words = shlex.split(command)
        assert program == "daeda"
        capsys.readouterr()
        code = main(words)
        assert bool(code) == bool(otherwise), line
        out, err = capsys.readouterr()
        printed = " ".join(f"{out} {err} {otherwise}".split())


@pytest.mark.slow
@pytest.mark.parametrize("page", WORKED_THROUGH)
def test_a_page_is_worked_through(page, tmp_path, monkeypatch, capsys):
    """Its blocks in their order: YAML becomes the file it names, Python and commands run."""
    monkeypatch.chdir(tmp_path)
    if WORKED_THROUGH[page]:
        assert main(["init", "project"]) == 0
        monkeypatch.chdir(tmp_path / "project")
    namespace = {"__name__": "documentation"}
    for _, language, body in _BLOCK.findall(PAGES[page].read_text(encoding="utf-8")):
        match language:
            case "yaml":
                path = Path(body.partition("\n")[0].removeprefix("# "))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(body)
            case "python":
                exec(compile(body, page, "exec"), namespace)
            case "console":
                shows(body, capsys)


@pytest.mark.slow
def test_the_edit_of_the_pipeline_page_runs(tmp_path, monkeypatch):
    """The documented operator and column, put where the page says."""
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    assert main(["init", "shop"]) == 0
    monkeypatch.chdir(tmp_path / "shop")
    assert main(["pipeline", "compile", "product_ranking"]) == 0
    pipelines = Path("config/pipelines")
    edited = shutil.copy(pipelines / "product_ranking.generated.yaml", pipelines / "product_ranking.yaml")
    data = yaml.safe_load(Path(edited).read_text())
    operator, column = (yaml.safe_load(text) for text in blocks("docs/pipeline.md", "yaml"))
    by_name = {one["name"]: one for one in data["operators"]}
    by_name["ages"]["inputs"] = [operator["name"]]
    by_name["output"]["columns"].append(column)
    data["operators"].insert(data["operators"].index(by_name["ages"]), operator)
    Path(edited).write_text(yaml.safe_dump(data, sort_keys=False))
    assert main(["pipeline", "train", "product_ranking", "--target-date", "2026-01-05"]) == 0
    day = Path("data/training_output/product_ranking/skeleton/dt=2026-01-05/part-0-0.parquet")
    rows = pq.ParquetFile(day).read(["purchased_products_7d", "purchases"]).to_pylist()
    assert any(row["purchases"] for row in rows)
    assert all(len(row["purchased_products_7d"]) == row["purchases"] for row in rows)


# ------------------------------------------------------------------ completeness


def names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


REFERENCE = {
    "docs/definitions.md": {
        *views._KEYS,
        *views._FIELD_KEYS,
        *sources._KEYS,
        *service_reader._KEYS,
        *service_reader._COLUMN_KEYS,
        *names(ViewJoin),
        *names(Lookback),
        *names(AgeColumn),
        *names(SessionFilter),
        *names(AggregationSpec),
        *map(str, Operation),
        *entities.ENTITIES,
        *SCALARS,
        "keys",
    },
    "docs/semantics.md": {*map(str, Operation), "delay_seconds", "max_items", "exclude_self", "qid"},
    "docs/pipeline.md": {
        *OPERATOR_KINDS,
        *(name for kind in OPERATOR_KINDS.values() for name in names(kind)),
        *names(ProjectColumn),
        "sql",
        "sql_arrow_udf",
        "pythonic",
    },
}


@pytest.mark.parametrize(
    ("page", "key"), [(page, key) for page, keys in REFERENCE.items() for key in sorted(keys)]
)
def test_the_reference_names_every_key(page, key):
    text = re.sub(r"```.*?```", "", PAGES[page].read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.search(rf"`[^`\n]*\b{re.escape(key)}\b[^`\n]*`", text), key
