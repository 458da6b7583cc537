"""The documentation site: it builds without a warning, fetches nothing, and its pictures are fit to print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.main import get_command

from daedalus.cli.main import build_app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DRAWINGS = sorted(path for path in (DOCS / "drawn").glob("*.svg") if path.name != "logo.svg")
PICTURES = sorted([*(DOCS / "drawn").glob("*.svg"), *(DOCS / "screens").glob("*.svg")])
_SVG = "{http://www.w3.org/2000/svg}"


class Fetched(HTMLParser):
    """What a browser loads for a page without being asked, and the pictures without a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.silent: list[str] = []
        self.headings = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "link" and found.get("rel") in {"stylesheet", "preload", "preconnect", "icon"}:
            self.addresses.append(found["href"])
        elif tag in {"script", "img", "iframe", "source"} and "src" in found:
            self.addresses.append(found["src"])
        if tag == "img" and not found.get("alt") and "twemoji" not in found.get("class", ""):
            self.silent.append(found.get("src", ""))
        self.headings += tag == "h1"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_whole_and_fetches_nothing(site):
    pages = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    sources = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    made = {path.relative_to(site).with_suffix("").as_posix().replace("index", "README") for path in pages}
    assert sources <= made
    assert {"changelog", "contributing", "examples/pixai", "reference/operations"} <= made
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = Fetched(text)
        assert not [address for address in fetched.addresses if re.match(r"(https?:)?//", address)], page
        assert not fetched.silent, page
        assert fetched.headings == 1, page
        assert 'class="mermaid"' not in text, (
            "a diagram would be drawn by a script from elsewhere: draw it as SVG"
        )
        linked = {Path(address).name for address in fetched.addresses} & {path.name for path in DRAWINGS}
        assert not linked, "drawings are set into the page, to follow its colours"
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"url\(['\"]?(https?:)?//", styles)
    assert "exclude_self" in (site / "search/search_index.json").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_reference_is_made_from_the_code(site):
    commands = (site / "reference/commands.html").read_text(encoding="utf-8")
    groups = get_command(build_app()).commands
    assert all(f"daeda {name}" in commands for name in groups)
    assert "--ray-address" in commands
    python = (site / "reference/python.html").read_text(encoding="utf-8")
    for name in (
        "aggregate_pit_table",
        "AggregationSpec",
        "PlatformRegistry",
        "RedisOnlineStore",
        "RollingAggregate",
    ):
        assert f">{name}<" in python or f"{name}</span>" in python, name


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_small_and_fetches_nothing(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 40_000
    assert re.findall(r"https?://[^\"' )]+", text) in (["http://www.w3.org/2000/svg"], [])
    assert not {node.tag for node in ET.fromstring(text).iter()} & {f"{_SVG}script", f"{_SVG}image"}
    name = f"{path.parent.name}/{path.name}"
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "mkdocs.yml"]
    assert any(name in page.read_text(encoding="utf-8") for page in pages), "no page shows it"


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)
def test_a_drawing_keeps_to_its_frame_and_to_the_colours_of_all(path):
    tree = ET.parse(path).getroot()
    style = tree.find(f"{_SVG}style").text
    assert style == ET.parse(DRAWINGS[0]).getroot().find(f"{_SVG}style").text
    known = set(re.findall(r"\.([a-z-]+)", style))
    coloured = (DOCS / "site.css").read_text(encoding="utf-8")
    _, _, width, height = (float(number) for number in tree.get("viewBox").split())
    for node in tree.iter():
        if name := node.get("class"):
            assert name in known
            assert f".drawn .{name}" in coloured, "the site would not colour it"
        if node.tag == f"{_SVG}text":
            x, y, wide = float(node.get("x")), float(node.get("y")), 6.6 * len("".join(node.itertext()))
            left = x - wide / 2 if node.get("text-anchor") == "middle" else x
            assert left >= -4, node.text
            assert left + wide <= width + 24, node.text
            assert 0 < y <= height, node.text


def test_the_architecture_page_names_every_package():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    packages = {path.name for path in (ROOT / "src/daedalus").iterdir() if (path / "__init__.py").exists()}
    assert {name for name in packages if f"`{name}`" not in text} == set()
