"""Where a sink writes: what may be said in a definition or setting, and what the defaults are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from daedalus.secrets import looks_like_secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daedalus.pipelines.settings.run_config import TrainingRunConfig

LAKE_NAME = "lake.sqlite"
_KIND = re.compile(r"^(ducklake:)?((sqlite|duckdb):(?!//))?", re.IGNORECASE)
_ELSEWHERE = re.compile(r"^(\$\{|[a-zA-Z][a-zA-Z0-9+.-]+:)")


def place_problems(format_: str, path: str, data_path: str) -> Iterator[tuple[str, str, str]]:
    """(key, what, mend) of everything that is wrong with a sink's place."""
    if format_ == "parquet":
        for key, value in (("path", path), ("data_path", data_path)):
            if value:
                yield (
                    key,
                    f"a parquet sink has no {key}: it writes under output_root",
                    "Remove it, or set format",
                )
    if format_ == "duckdb" and data_path:
        yield "data_path", "a duckdb sink has no data_path: its rows are in the file", "Remove it"
    if format_ == "duckdb" and _ELSEWHERE.match(path) and not path.startswith("${"):
        yield "path", f"a DuckDB file is a local path, found {path.partition(':')[0]}:", "Write a path"
    for key, value in (("path", path), ("data_path", data_path)):
        if looks_like_secret(value):
            yield key, "a credential in the place of a sink", "Write ${NAME} and export it."


def duckdb_file(path: str, config: TrainingRunConfig, service: str) -> str:
    """The DuckDB file: as written, relative to the project, or `<output_root>/<service>.duckdb`."""
    return (
        absolute_place(path, config.project_root) if path else str(config.output_path / f"{service}.duckdb")
    )


def lake_catalog(path: str, config: TrainingRunConfig) -> str:
    """The lake's catalog: as written, relative to the project, or `<output_root>/lake.sqlite`."""
    return absolute_place(path, config.project_root) if path else str(config.output_path / LAKE_NAME)


def absolute_place(text: str, root: Path) -> str:
    """The place with a relative path made absolute; `${ENV}` stays, URLs and connection texts stay.

    >>> from pathlib import Path
    >>> absolute_place("sqlite:lake/c.db", Path("/p")), absolute_place("postgresql://db/x", Path("/p"))
    ('sqlite:/p/lake/c.db', 'postgresql://db/x')
    """
    match = _KIND.match(text)
    kind = match[0] if match else ""
    rest = text[len(kind) :]
    return text if not rest or _ELSEWHERE.match(rest) else f"{kind}{root / rest}"
