"""MkDocs hooks: the same Markdown reads well on GitHub and as a site.

- Pages that are made from code, the examples' pages and the changelog join the site without being copied into docs/.
- Links to files of the repository become links to the site's pages.
- A code block whose first line is a comment with a path gets that path as its title.
- Drawings are set into the page, so that they follow its light or dark colours.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mkdocs.structure.files import File
from pages import command_pages, notebook_page, operations_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

#: Files of the repository that are pages of the site.
COPIED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/pixai/README.md": "examples/pixai.md",
    "examples/flights/README.md": "examples/flights.md",
}
#: What else links may name, and where the site has it.
ELSEWHERE = {
    "README.md": "README.md",
    "examples/pixai": "examples/pixai.md",
    "examples/flights": "examples/flights.md",
    "docs/notebooks/training-data.ipynb": "notebooks/training-data.md",
}
_BUTTONS = (
    "[Your own data in 15 minutes](tutorial.md){ .md-button .md-button--primary } "
    "[The ideas, drawn](concepts/time.md){ .md-button }"
)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^(```+).*?^\1", re.MULTILINE | re.DOTALL)
_TITLED = re.compile(r"^(```\w+)\n# ([\w./-]+\.\w+)\n", re.MULTILINE)
_DRAWING = re.compile(r'<img alt="([^"]*)" src="([^"]*drawn/[\w-]+\.svg)"\s*/?>')


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    made = {target: (ROOT / source).read_text(encoding="utf-8") for source, target in COPIED.items()}
    made["reference/operations.md"] = operations_page()
    made |= command_pages()
    made["notebooks/training-data.md"] = notebook_page(ROOT / "docs/notebooks/training-data.ipynb")
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at pages, name the files that blocks show."""
    origins = {target: source for source, target in COPIED.items()}
    origin = PurePosixPath(origins.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    here = PurePosixPath(page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if "://" in target or not target:
            return match[0]
        path = os.path.normpath(origin.parent / target)
        uri = COPIED.get(path) or ELSEWHERE.get(path) or path.removeprefix("docs/")
        relative = os.path.relpath(uri, here)
        return f"{match[1]}{relative}{'#' + anchor if anchor else ''}{match[3]}"

    if page.file.src_uri == "README.md":
        # On the site the way in is a pair of buttons.
        markdown = markdown.replace("\n```yaml", f"\n{_BUTTONS}\n\n```yaml", 1)
    text, last = [], 0
    for fence in _FENCE.finditer(markdown):
        text += [_LINK.sub(link, markdown[last : fence.start()]), fence[0]]
        last = fence.end()
    text.append(_LINK.sub(link, markdown[last:]))
    return _TITLED.sub(r'\1 title="\2"\n', "".join(text))


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Set drawings into the page; the page's stylesheet colours them."""

    def inline(match: re.Match[str]) -> str:
        path = ROOT / "docs/drawn" / PurePosixPath(match[2]).name
        svg = re.sub(r"\s*<style>.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        return svg.replace("<svg ", f'<svg class="drawn" role="img" aria-label="{match[1]}" ', 1).strip()

    return _DRAWING.sub(inline, html)
