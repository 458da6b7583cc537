"""Take pictures of the command line: work through the tutorial in a terminal of its own, keep some screens as SVG.

Run it after the output of a command has changed: `.venv/bin/python scripts/site/screens.py`.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/tutorial.md"
SCREENS = ROOT / "docs/screens"
COLUMNS = 118
#: Commands of the tutorial, by how they begin, and the name of their picture; the first of several counts.
WANTED = {
    "daeda pipeline train taste": "train",
    "daeda explain-row": "explain-row",
    "daeda prove": "prove",
    "daeda test": "test",
    "daeda registry check": "registry",
    "daeda plan": "plan",
}
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MOST_LINES = 36


def in_terminal(command: str, folder: Path, *, errors: bool = False) -> str:
    """What a command writes to a terminal: its standard output, or its errors."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "DAEDALUS_CONFIG": str(folder / "none.toml")}
    environment.pop("NO_COLOR", None)
    program, *words = shlex.split(command)
    streams = (
        {"stdout": subprocess.DEVNULL, "stderr": theirs} if errors else {"stdout": theirs, "stderr": None}
    )
    arguments = [str(Path(sys.executable).with_name(program)), *words]
    with subprocess.Popen(arguments, cwd=folder, env=environment, **streams) as process:
        os.close(theirs)
        chunks = []
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the terminal's other end is closed
                break
            if not chunk:
                break
            chunks.append(chunk)
        process.wait()
    os.close(ours)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def picture(command: str, shown: str, path: Path) -> None:
    """A screen as SVG that fetches no font."""
    from rich.console import Console
    from rich.text import Text

    lines = shown.strip("\n").split("\n")
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], "..."]
    text = Text.from_ansi("\n".join(line.rstrip() for line in lines))
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS + 1, file=nowhere, force_terminal=True)
        console.print(Text("$ ", style="green") + Text(command, style="bold bright_white"), text, sep="\n")
        svg = console.export_svg(title="daeda", unique_id=path.stem)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace(
        "font-family: Fira Code, monospace", "font-family: ui-monospace, Menlo, Consolas, monospace"
    )
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(line.rstrip() for line in svg.strip().splitlines()) + "\n", encoding="utf-8")


def main() -> None:
    """Work through the page, keep what is wanted, and end with a mistake."""
    wanted = dict(WANTED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for language, body in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if language == "yaml":
                path = folder / body.partition("\n")[0].removeprefix("# ")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(body)
            elif language == "python" and "load(" not in body:
                subprocess.run(
                    [sys.executable, "-c", "from pathlib import Path\n" + body], cwd=folder, check=True
                )
            elif language == "console":
                for line in body.replace("\\\n   ", "").splitlines():
                    command = line.removeprefix("$ ").partition(" ||")[0]
                    if not line.startswith("$ daeda"):
                        continue
                    shown = in_terminal(command, folder).replace(str(folder), "podcasts")
                    start = next((start for start in wanted if command.startswith(start)), None)
                    if start and not (start.endswith("taste") and "--target" in command):
                        picture(command, shown, SCREENS / f"{wanted.pop(start)}.svg")
        service = folder / "feature_services/taste.yaml"
        service.write_text(
            service.read_text().replace("plays_3d", "plays_3").replace("accounts:plan", "accounts:plans")
        )
        command = "daeda pipeline train taste"
        picture(command, in_terminal(command, folder, errors=True), SCREENS / "error.svg")
    if wanted:
        raise SystemExit(f"the tutorial has no {', '.join(wanted)}")


if __name__ == "__main__":
    main()
