"""What every benchmark shares: methods in processes of their own, answers compared before timing, tables of ratios.

A benchmark registers *methods*. A method is a function that takes a `Job` (its folder of data and its parameters)
and returns the function to be timed, so that preparing is not counted. The parent process starts one child per
method, with the interpreter that the method needs; the child runs it once unmeasured, then `repeat` times, and
reports medians of wall and processor seconds. `peak` is the largest resident size of the child and of the
processes it started (Spark's JVM), `before` what it held when the first measured run began.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import gc
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = Path(os.environ.get("BENCH_PYTHON", ROOT / ".venv-bench" / "bin" / "python"))
SIZES = {"k": 1_000, "m": 1_000_000}
_MARK = "measured: "
_READY = "ready"
_PACKAGES = ("duckdb", "polars", "pyarrow", "numba", "numpy", "feast", "ibis-framework", "pyspark", "pandas")


@dataclass(frozen=True, slots=True)
class Job:
    """What a method works on."""

    folder: Path
    parameters: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.parameters[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One contender.

    Attributes:
        prepare: given the job, returns what is timed; that returns the answer, or None.
        peer: a package that only the benchmark's own environment has; it runs there.
        floor: what the others are compared with; without one, that is the benchmark's first method.
    """

    name: str
    prepare: Callable[[Job], Callable[[], Any]]
    peer: str = ""
    floor: bool = False
    warm_up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Medians of one method; `note` says why there are none."""

    method: str
    wall: float | None = None
    cpu: float | None = None
    peak_mib: float | None = None
    before_mib: float | None = None
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def size(text: str) -> int:
    """A number of rows: `100k`, `1M`, `2500`."""
    scale = SIZES.get(text[-1].lower(), 1)
    return round(float(text[:-1] if scale > 1 else text) * scale)


# ---------------------------------------------------------------------- the child


def memory_of_tree() -> tuple[float, float]:
    """Largest and present resident MiB of this process and the living ones it started."""
    import psutil

    here = psutil.Process()
    peak = now = 0.0
    for process in (here, *here.children(recursive=True)):
        try:
            # Not ru_maxrss: a child inherits its parent's through exec.
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak += int(status.split("VmHWM:")[1].split()[0]) / 1024
            now += process.memory_info().rss / 1024**2
        except (OSError, IndexError, psutil.Error):
            continue
    return peak, now


def cpu_of_tree() -> float:
    """Processor seconds of this process and of those it started."""
    import psutil

    here = psutil.Process()
    own = here.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for process in here.children(recursive=True):
        try:
            used = process.cpu_times()
            total += used.user + used.system
        except psutil.Error:
            continue
    return total


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), cpu_of_tree()

    def stop(self) -> tuple[float, float]:
        """Both, until now."""
        return time.perf_counter() - self._started[0], cpu_of_tree() - self._started[1]


def run_child(methods: Iterable[Method], order: dict[str, Any]) -> None:
    """Do what the parent ordered: write the answer for a sample, or measure."""
    method = next(method for method in methods if method.name == order["method"])
    if order.get("answer"):
        write_answer(method.prepare(Job(Path(order["folder"]), order["parameters"]))(), Path(order["answer"]))
        return
    if method.warm_up:
        method.prepare(Job(Path(order["sample"]), order["parameters"]))()
    run = method.prepare(Job(Path(order["folder"]), order["parameters"]))
    walls, cpus, extra = [], [], {}
    gc.collect()
    before = memory_of_tree()[1]
    for _ in range(order["repeat"]):
        if order.get("in_turns"):
            print(_READY, flush=True)
            if not sys.stdin.readline():  # whoever gives turns is gone
                return
        clock = Clock()
        answer = run()
        wall, cpu = clock.stop()
        extra = dict(answer) if isinstance(answer, dict) else {}
        # A method may time a part of itself: reading what it writes again is no writing.
        walls.append(extra.pop("wall", wall))
        cpus.append(extra.pop("cpu", cpu))
        del answer
    found = Measured(
        method=method.name,
        wall=statistics.median(walls),
        cpu=statistics.median(cpus),
        peak_mib=memory_of_tree()[0],
        before_mib=before,
        walls=walls,
        cpus=cpus,
        extra=extra,
    )
    print(_MARK + json.dumps(asdict(found)), flush=True)


def write_answer(answer: Any, path: Path) -> None:
    """The answer as Parquet, whatever library made it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(answer, pa.Table):
        answer = answer.to_arrow()
    pq.write_table(answer, path)


# ---------------------------------------------------------------------- the parent


class Bench:
    """One benchmark script: its command line, its children, its tables, its JSON.

    Args:
        script: its `__file__`.
        methods: the contenders.
        about: the module's docstring.
    """

    def __init__(self, script: str, methods: Sequence[Method], about: str) -> None:
        self.script = Path(script)
        self.methods = methods
        self.parser = argparse.ArgumentParser(
            description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.parser.add_argument("--size", type=size, default=100_000, help="rows: 100k, 1M, 10M")
        self.parser.add_argument("--methods", nargs="+", help="only these; the beginning of a name is enough")
        self.parser.add_argument("--repeat", type=int, default=3, help="measured runs of each method")
        self.parser.add_argument(
            "--timeout", type=float, default=900, help="seconds for one method, or for one of its turns"
        )
        self.parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
        self.parser.add_argument(
            "--keep", action="store_true", help="keep the results file's tables that this run does not make"
        )
        self.cases: list[dict[str, Any]] = []
        self.options = argparse.Namespace()

    def start(self) -> argparse.Namespace | None:
        """Parse the command line; None in a child, whose work is then done."""
        if sys.argv[1:2] == ["--child"]:
            run_child(self.methods, json.loads(sys.argv[2]))
            return None
        self.options = self.parser.parse_args()
        wanted = self.options.methods
        self.methods = [
            method
            for method in self.methods
            if not wanted or any(method.name.startswith(name) for name in wanted)
        ]
        return self.options

    def _child(self, method: Method, **order: Any) -> str | Measured:
        """What the child printed, or why there is nothing."""
        python = PEERS_PYTHON if method.peer else Path(sys.executable)
        if why := missing(method.peer):
            return Measured(method=method.name, note=why)
        order |= {"method": method.name}
        command = [str(python), str(self.script), "--child", json.dumps(order, default=str)]
        # A session of its own: what a method starts (a JVM) ends with it.
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as ran:
            try:
                printed, complained = ran.communicate(timeout=self.options.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(ran.pid, signal.SIGKILL)
                ran.communicate()
                return Measured(method=method.name, note=f"over {self.options.timeout:.0f} s")
        if ran.returncode:
            lines = [line for line in complained.splitlines() if line.strip()] or ["killed"]
            if os.environ.get("BENCH_TRACE"):
                print(complained, file=sys.stderr)
            return Measured(method=method.name, note=f"failed: {lines[-1][:60]}")
        return printed

    def compare(
        self,
        folder: Path,
        parameters: dict[str, Any],
        *,
        order_by: Sequence[str],
        tolerance: float = 0.0,
    ) -> None:
        """Stop unless every method that runs here gives the first one's answer for the data in `folder`.

        Args:
            order_by: columns that name a row; the answers are compared in their order, by column name.
            tolerance: relative difference that floats may have.
        """
        import pyarrow.parquet as pq

        expected = None
        for method in self.methods:
            path = folder / "answer.parquet"
            path.unlink(missing_ok=True)
            ran = self._child(method, folder=folder, parameters=parameters, answer=path)
            if isinstance(ran, Measured):
                print(f"  {method.name}: {ran.note}", flush=True)
                continue
            answer = comparable(pq.read_table(path), order_by)
            expected = answer if expected is None else expected
            if difference := first_difference(expected, answer, tolerance):
                raise SystemExit(f"{method.name} answers differently: {difference}")

    def measure(
        self,
        title: str,
        folder: Path,
        sample: Path,
        parameters: dict[str, Any],
        *,
        methods: Sequence[Method] | None = None,
        in_turns: bool = False,
    ) -> list[Measured]:
        """Measure the methods one after another, and print their table.

        Args:
            in_turns: a run of each, then the next of each: a machine that becomes slower does so for all. Their
                processes wait meanwhile, with what memory they hold.
        """
        if in_turns:
            found = self._in_turns(methods or self.methods, folder, sample, parameters)
            self.add(title, parameters, found, base=_base(methods or self.methods, found))
            return found
        found = []
        for method in methods or self.methods:
            ran = self._child(
                method,
                folder=folder,
                sample=sample,
                parameters=parameters,
                repeat=self.options.repeat,
            )
            if isinstance(ran, str):
                line = next(line for line in reversed(ran.splitlines()) if line.startswith(_MARK))
                ran = Measured(**json.loads(line.removeprefix(_MARK)))
            found.append(ran)
        self.add(title, parameters, found, base=_base(methods or self.methods, found))
        return found

    def _in_turns(
        self, methods: Sequence[Method], folder: Path, sample: Path, parameters: dict[str, Any]
    ) -> list[Measured]:
        order = {
            "folder": folder,
            "sample": sample,
            "parameters": parameters,
            "repeat": self.options.repeat,
            "in_turns": True,
        }
        children = [_InTurns(self.script, method, order, self.options.timeout) for method in methods]
        for child in children:
            child.start()
        for _ in range(self.options.repeat):
            for child in children:
                child.run()
        return [child.measured() for child in children]

    def add(
        self, title: str, parameters: Mapping[str, Any], found: list[Measured], *, base: Measured
    ) -> None:
        """Print one table, and keep it for the JSON."""
        print(f"\n{title}", flush=True)
        print(markdown(found, base), flush=True)
        self.cases.append(
            {
                "title": title,
                "parameters": {name: value for name, value in parameters.items() if _plain(value)},
                "machine": machine(),
                "base": base.method,
                "methods": [asdict(one) for one in found],
            }
        )

    def finish(self) -> None:
        """Write the JSON."""
        folder = self.options.results
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.script.stem}-{self.options.size}.json"
        made = {case["title"] for case in self.cases}
        old = json.loads(path.read_text())["cases"] if self.options.keep and path.exists() else []
        cases = [*(case for case in old if case["title"] not in made), *self.cases]
        path.write_text(json.dumps({"cases": cases}, indent=1) + "\n")
        print(f"\nwritten to {os.path.relpath(path)}")


class _InTurns:
    """A method's process that waits for its turn."""

    def __init__(self, script: Path, method: Method, order: dict[str, Any], timeout: float) -> None:
        self._method, self._timeout = method, timeout
        self._order = json.dumps(order | {"method": method.name}, default=str)
        self._command = [str(PEERS_PYTHON if method.peer else sys.executable), str(script), "--child"]
        self._process: subprocess.Popen[str] | None = None
        self._last = ""
        self._over = False

    def start(self) -> None:
        """Let it prepare."""
        if missing(self._method.peer):
            return
        self._process = subprocess.Popen(
            [*self._command, self._order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._until_ready()

    def run(self) -> None:
        """Let it run once, and wait."""
        if self._process is None or self._process.poll() is not None:
            return
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        self._until_ready()

    def measured(self) -> Measured:
        """What it measured."""
        if self._process is None:
            return Measured(method=self._method.name, note=missing(self._method.peer))
        self._process.wait()
        if self._last.startswith(_MARK):
            return Measured(**json.loads(self._last.removeprefix(_MARK)))
        note = f"over {self._timeout:.0f} s" if self._over else "failed"
        return Measured(method=self._method.name, note=note)

    def _until_ready(self) -> None:
        """Wait until it has nothing to do, or has ended."""
        assert self._process
        assert self._process.stdout
        timer = threading.Timer(self._timeout, self._end)
        timer.start()
        for line in self._process.stdout:
            self._last = line
            if line.startswith((_READY, _MARK)):
                break
        timer.cancel()

    def _end(self) -> None:
        self._over = True
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | dict | None)


def _base(methods: Sequence[Method], found: list[Measured]) -> Measured:
    floors = {method.name for method in methods if method.floor}
    return next((one for one in found if one.method in floors), found[0])


def markdown(found: Iterable[Measured], base: Measured) -> str:
    """The table: times, memory, and each over the base's."""
    rows = [("method", "wall s", "cpu s", "peak MiB", "wall", "cpu", "peak")]
    for one in found:
        if one.wall is None or one.cpu is None or one.peak_mib is None:
            rows.append((one.method, one.note, "", "", "", "", ""))
            continue
        ratios = [f"{value / against:.2f}x" if against else "" for value, against in _pairs(one, base)]
        rows.append((one.method, f"{one.wall:.2f}", f"{one.cpu:.2f}", f"{one.peak_mib:.0f}", *ratios))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _pairs(one: Measured, base: Measured) -> list[tuple[float, float | None]]:
    return [
        (one.wall or 0.0, base.wall),
        (one.cpu or 0.0, base.cpu),
        (one.peak_mib or 0.0, base.peak_mib),
    ]


def missing(peer: str) -> str:
    """Why a peer cannot run here; empty when it can."""
    if not peer:
        return ""
    if not PEERS_PYTHON.exists():
        return f"{peer} is not installed: make bench"
    asked = subprocess.run(
        [str(PEERS_PYTHON), "-c", f"import importlib.metadata as m; m.version('{peer}')"],
        capture_output=True,
        check=False,
    )
    if asked.returncode:
        return f"{peer} is not installed: make bench"
    if peer == "pyspark":
        from shutil import which

        if not (os.environ.get("JAVA_HOME") or which("java")):
            return "no Java here"
    return ""


def comparable(table: Any, order_by: Sequence[str]) -> Any:
    """The answer in the order of `order_by`, without what libraries add to types."""
    import pyarrow as pa

    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        elif pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_large_list(column.type):
            column = column.cast(pa.list_(column.type.value_type))
        columns[name] = column
    return pa.table(columns).sort_by([(name, "ascending") for name in order_by])


def first_difference(expected: Any, answer: Any, tolerance: float) -> str:
    """Where two answers differ, in words; empty when they do not."""
    absent = sorted(set(expected.column_names) - set(answer.column_names))
    if absent or answer.num_rows != expected.num_rows:
        return f"columns without {absent}, {answer.num_rows} rows for {expected.num_rows}"
    for name in expected.column_names:
        pairs = zip(expected[name].to_pylist(), answer[name].to_pylist(), strict=True)
        for row, (one, other) in enumerate(pairs):
            if not _alike(one, other, tolerance):
                return f"column {name}, row {row}: {other!r} where the first says {one!r}"
    return ""


def _alike(one: Any, other: Any, tolerance: float) -> bool:
    if one == other:
        return True
    if isinstance(one, float | int) and isinstance(other, float | int):
        both_nan = one != one and other != other
        return both_nan or abs(one - other) <= tolerance * max(abs(one), abs(other))
    # Libraries that know no empty list say NULL.
    return not one and not other and isinstance(one or other or [], list) and tolerance > 0


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    import psutil

    return {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]),
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "load": [round(one, 2) for one in os.getloadavg()],
        "python": platform.python_version(),
        "java": _output(["java", "-version"]).partition("\n")[0],
        "versions": _versions(Path(sys.executable)),
        "peers": _versions(PEERS_PYTHON) if PEERS_PYTHON.exists() else {},
    }


def _versions(python: Path) -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json\n"
        "def v(n):\n"
        "    try: return m.version(n)\n"
        "    except m.PackageNotFoundError: return ''\n"
        f"print(json.dumps({{n: v(n) for n in {_PACKAGES!r} if v(n)}}))"
    )
    return json.loads(_output([str(python), "-c", code]) or "{}")


def _output(command: list[str]) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (ran.stdout or ran.stderr).strip()


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return text.partition("model name")[2].partition(":")[2].partition("\n")[0].strip()


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for data, gone at the end; BENCH_TMP says where."""
    return tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_TMP"))
