"""Faults of files: a disk that fills up, and inputs that are broken."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from _fault_world import Case, attempt, day_states, disk_state
from _killing import in_child

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

_KIB = 1024
_DAY = dt.date(2026, 5, 2)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A disk of that size in memory; call what is given to make it larger. Only root may."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True)

    def grow(larger: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={larger}", str(place)], check=True)

    try:
        yield grow
    finally:
        subprocess.run(["umount", str(place)], check=True)


def full_disk(world: Path, folder: Path, reference: dict[str, Any], at: float) -> dict[str, Any]:
    """Train onto a disk that is too small, make room, and go on.

    Args:
        reference: the undisturbed run.
        at: the disk's size, as a part of what the run writes.
    """
    case = Case(folder=folder)
    size = max(64 * _KIB, int(reference["bytes"] * at))
    faults: list[str] = []
    with small_disk(folder, size) as grow:
        ended = in_child(lambda: attempt(world, case), folder.with_suffix(".log"))
        met = ended.answer or {"error": f"signal {ended.signal}", "ours": False, "text": ""}
        states = day_states(case)
        finished = {name for name, state in states.items() if state == reference["state"]["days"][name]}
        if len(finished) < len(states):
            faults.append(f"in part there: {sorted(set(states) - finished)}")
        if met["error"] and not met["ours"]:
            faults.append(f"not an error of ours: {met['error']}: {met['text'][:200]}")
        grow(4 * reference["bytes"] + (64 << 20))
        again = in_child(lambda: attempt(world, case), folder.with_suffix(".log")).answer
        state = in_child(lambda: disk_state(case), folder.with_suffix(".log")).answer
        if again is None or again["error"]:
            faults.append(f"it does not go on: {again and again['text'][:200]}")
        elif state["days"] != reference["state"]["days"] or state["map"] != reference["state"]["map"]:
            faults.append("it differs in the end")
    return {"size": size, "met": met.get("text", ""), "kept": len(finished), "faults": faults}


_HARMS = ("cut off", "a byte changed", "a block of zeros", "emptied", "bytes appended")


def _harm(file: Path, kind: str, draw: random.Random) -> None:
    data = bytearray(file.read_bytes())
    at = draw.randrange(len(data))
    match kind:
        case "cut off":
            data = data[:at]
        case "a byte changed":
            data[at] ^= draw.randrange(1, 256)
        case "a block of zeros":
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        case "emptied":
            data = bytearray()
        case "bytes appended":
            data += draw.randbytes(100)
    file.write_bytes(data)


def broken_input(world: Path, folder: Path, draw: random.Random, expected: dict[str, str]) -> dict[str, Any]:
    """Harm one input file, compute a day, mend the file; what came of it.

    Args:
        expected: the day as it should be; `outcome` is `as if nothing were` when it is.
    """
    files = [file for file in sorted((world / "data").rglob("*.parquet")) if "store" not in file.parts]
    file = draw.choice([one for one in files if "siglip2_vectors" not in one.parts])
    kind, case = draw.choice(_HARMS), Case(folder=folder)
    whole = file.with_suffix(".whole")
    shutil.copy2(file, whole)
    try:
        _harm(file, kind, draw)
        log = folder / "log.txt"
        ended = in_child(lambda: attempt(world, case, days=(_DAY,), skeleton_only=True), log)
    finally:
        whole.replace(file)
    met = ended.answer or {"error": f"signal {ended.signal}", "ours": False, "text": ""}
    view = file.relative_to(world / "data").parts[0].removesuffix(".parquet")
    faults = []
    if met["error"]:
        outcome = "refused"
        if not met["ours"]:
            faults.append(f"not an error of ours: {met['error']}: {met['text'][:200]}")
        elif view not in met["text"]:
            faults.append(f"the error names no {view}: {met['text'][:200]}")
        if day_states(case):
            faults.append("a day is there all the same")
    else:
        same = day_states(case) == expected
        outcome = "as if nothing were" if same else "not noticed: other values"
    shutil.rmtree(folder)
    return {"file": view, "harm": kind, "outcome": outcome, "said": met.get("text", ""), "faults": faults}


def sound_day(world: Path, folder: Path) -> dict[str, str]:
    """The day of `broken_input`, from whole inputs."""
    case = Case(folder=folder)
    in_child(lambda: attempt(world, case, days=(_DAY,), skeleton_only=True), case.log)
    return day_states(case)


def bytes_of(case: Case) -> int:
    """What a run left on its disk."""
    return _size(case.folder)
