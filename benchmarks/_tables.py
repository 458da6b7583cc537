"""Put the newest results into docs/performance.md, between its marks: `python benchmarks/_tables.py`.

A mark names a file of benchmarks/results: `<!-- bench attribute_joins-1000000 -->` to `<!-- end -->`. Where there is
no such file, what stands there stays.
"""

from __future__ import annotations

import json
import re

from _harness import ROOT, Measured, markdown

PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
_MARKED = re.compile(r"(<!-- bench ([\w.-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def tables(name: str, old: str) -> str:
    """The file's tables, each under its title."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return old
    found = json.loads(path.read_text())
    at = found["machine"]
    peers = {**at["versions"], **at["peers"]}
    load = ", ".join(str(one) for one in at["load"])
    parts = [
        f"{at['at'][:10]}, commit {at['commit']}, {at['cpus']} CPUs ({at['cpu']}), {at['memory_gib']} GiB, "
        f"load {load}; "
        + ", ".join(f"{package} {version}" for package, version in sorted(peers.items()))
        + ".\n"
    ]
    for case in found["cases"]:
        methods = [Measured(**one) for one in case["methods"]]
        base = next(one for one in methods if one.method == case["base"])
        parts.append(f"{case['title']}:\n\n{markdown(methods, base)}\n")
    return "\n" + "\n".join(parts) + "\n"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        _MARKED.sub(lambda match: match[1] + tables(match[2], match[3]) + match[4], text), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
