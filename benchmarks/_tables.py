"""Put the newest results into docs/performance.md and docs/reliability.md, between their marks.

    python benchmarks/_tables.py

A mark names a file of benchmarks/results: `<!-- bench attribute_joins-1000000 -->` to `<!-- end -->`. Where there is
no such file, what stands there stays.
"""

from __future__ import annotations

import json
import re
from typing import Any

from _harness import ROOT, Measured, markdown

PAGE = ROOT / "docs" / "performance.md"
RELIABILITY = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results"
_MARKED = re.compile(r"(<!-- bench ([\w.-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def tables(name: str, old: str) -> str:
    """The file's tables, each under its title."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return old
    parts: list[str] = []
    for case in json.loads(path.read_text())["cases"]:
        machine = _machine(case["machine"])
        if machine not in parts:
            parts.append(machine)
        methods = [Measured(**one) for one in case["methods"]]
        base = next(one for one in methods if one.method == case["base"])
        parts.append(f"{case['title']}:\n\n{markdown(methods, base)}\n")
    return "\n" + "\n".join(parts) + "\n"


def _machine(at: dict[str, Any]) -> str:
    peers = {**at["versions"], **at["peers"]}
    packages = ", ".join(f"{package} {version}" for package, version in sorted(peers.items()))
    hardware = f"{at['cpus']} CPUs ({at['cpu']}), {at['memory_gib']} GiB"
    return f"{at['at'][:10]}, commit {at['commit']}, {hardware}; {packages}.\n"


def fault_tables() -> None:
    """The same for `<!-- faults kills -->` and its like, of `faults.json`."""
    from faults import tables as fault_tables_of

    path = RESULTS / "faults.json"
    if not path.exists():
        return
    parts = json.loads(path.read_text())
    text = RELIABILITY.read_text(encoding="utf-8")
    for name, table in fault_tables_of(parts).items():
        at = parts[name]["machine"]
        shown = f"{at['at'][:10]}, commit {at['commit']}, seed {parts[name]['seed']}:\n\n{table}"
        mark = re.compile(rf"(<!-- faults {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = mark.sub(lambda match, shown=shown: f"{match[1]}\n{shown}\n\n{match[2]}", text)
    RELIABILITY.write_text(text, encoding="utf-8")


def main() -> None:
    fault_tables()
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        _MARKED.sub(lambda match: match[1] + tables(match[2], match[3]) + match[4], text), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
