"""Kill training runs, fill their disk, break their input; go on, and compare with runs that nobody disturbed.

    python benchmarks/faults.py --kills 50 --disks 12 --inputs 40

A small demo world is trained with everything there is: session numbers, history on disk, rolling windows divided
into buckets on disk, embeddings, records, a copy in a DuckDB file. Each kill is SIGKILL at a random moment of one
stage (`_killing.STAGES`), or of the whole run; half of them meet days that were there and are replaced. Then:

- every day is as it was, as it will be, or absent, in the folders and in the table;
- the same run again finishes, computes no finished day again, and gives the bytes of the undisturbed run;
- nothing is left over, the records are whole, no process lives on.

`--disks` trains onto a tmpfs of a random size that is too small (only root may mount one), makes room and goes on.
`--inputs` harms a random input file in a random way: the run either names the file's view and leaves nothing, or
gives the day as it should be, or did not notice, which the table says.

Ends with 1 when any of that does not hold. Linux; the fork of this process stands for a new one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _fault_disks import broken_input, bytes_of, full_disk, sound_day
from _fault_world import SERVICE, Case, disk_state, earlier, leftovers, make_world, preload, train
from _harness import ROOT, machine, scratch
from _killing import ANYWHERE, STAGES, Moment, in_child

if TYPE_CHECKING:
    from collections.abc import Callable

_TRIES = 5
#: A stage of its own in the table: SIGKILL of the run alone, while its workers compute two days.
WORKERS = "two days at a time"


class World:
    """A project, its undisturbed runs, and the kills.

    Args:
        folder: scratch.
        project: what is trained, made by `make_world` or alike.
        service: of that project.
        draw: chooses the moments.
        run: trains it, as `_fault_world.train`.
        before: trains the same days by another definition.
    """

    def __init__(
        self,
        folder: Path,
        project: Path,
        service: str,
        draw: random.Random,
        *,
        run: Callable[[Path, Case], Any] = train,
        before: Callable[[Path, Case], Any] = earlier,
    ) -> None:
        self.folder = project
        self._scratch = folder
        self._service = service
        self._draw = draw
        self._train = run
        self._number = 0
        self.old = self._undisturbed("old", before)
        self.references = {
            "new": self._undisturbed("new", run),
            "replaced": self._undisturbed("replaced", run, onto="old"),
        }

    def _case(self, name: str, workers: int = 1, onto: str = "") -> Case:
        """A run root of its own, empty, or as another one left it."""
        case = Case(folder=self._scratch / name, workers=workers, service=self._service)
        if onto:
            shutil.copytree(self._scratch / onto, case.folder)
        return case

    def _undisturbed(self, name: str, work: Callable[[Path, Case], Any], onto: str = "") -> dict[str, Any]:
        case = self._case(name, onto=onto)
        ended = in_child(lambda: work(self.folder, case), case.log, traced=True)
        if ended.answer is None:
            raise SystemExit(f"the undisturbed run failed: {case.log.read_text()}")
        state = in_child(lambda: disk_state(case), case.log).answer
        by_stage = defaultdict(list)
        for stage, seconds in ended.trace:
            by_stage[stage].append(seconds)
        return {
            "state": state,
            "stages": by_stage,
            "seconds": ended.seconds,
            "left": leftovers(case),
            "bytes": bytes_of(case),
        }

    def moment(self, stage: str, kind: str) -> Moment:
        """A random moment of a stage."""
        reference = self.references[kind]
        fraction = self._draw.random()
        if stage == WORKERS:  # which take their time to start
            fraction = 0.4 + 1.2 * fraction
        if stage in (ANYWHERE, WORKERS):
            return Moment(stage=ANYWHERE, entry=0, fraction=fraction, seconds=reference["seconds"])
        entries = reference["stages"][stage]
        if not entries:
            raise SystemExit(f"no run comes through the stage {stage!r}: _killing.STAGES is out of date")
        at = self._draw.randrange(len(entries))
        return Moment(stage=stage, entry=at + 1, fraction=fraction, seconds=entries[at])

    def kill(self, stage: str, kind: str) -> dict[str, Any]:
        """Kill one run and let it go on; what was found, with `faults` in words."""
        workers = 2 if stage == WORKERS else 1
        for _ in range(_TRIES):
            self._number += 1
            case = self._case(f"case{self._number}", workers, "old" if kind == "replaced" else "")
            moment = self.moment(stage, kind)
            killed = in_child(lambda case=case: self._train(self.folder, case), case.log, moment=moment)
            if killed.signal:
                break
            shutil.rmtree(case.folder)
        else:
            return {"stage": stage, "kind": kind, "faults": ["the run was never killed"]}
        found = {"stage": stage, "kind": kind, "entry": moment.entry, "fraction": round(moment.fraction, 3)}
        return found | self._aftermath(case, kind, killed.seconds, killed.orphans)

    def _aftermath(self, case: Case, kind: str, seconds: float, orphans: int) -> dict[str, Any]:
        reference, faults = self.references[kind]["state"], []
        old = self.old["state"]["days"] if kind == "replaced" else {}
        there = in_child(lambda: disk_state(case), case.log).answer
        if there is None:
            return {"faults": [f"what stands cannot be read: {_last_line(case)}"]}
        finished = {name for name, state in there["days"].items() if state == reference["days"][name]}
        for name, state in there["days"].items():
            if name not in finished and state != old.get(name):
                faults.append(f"{name} is in part there")
        if not there["whole"]:
            faults.append("the records are broken")
        if "running" in there["runs"]:
            faults.append("the killed run seems to run")
        if orphans:
            faults.append(f"{orphans} processes lived on")
        again = in_child(lambda: self._train(self.folder, case), case.log)
        if again.answer is None:
            return {
                "seconds": round(seconds, 3),
                "faults": [*faults, f"it does not go on: {_last_line(case)}"],
            }
        faults += self._differences(case, reference)
        folders = {"skeleton": "skeleton", "enrich": "enriched", "sink": "table"}
        for day in again.answer:
            name = f"{folders[day['stage']]}/dt={day['day']}"
            if name in finished and day["state"] == "written":
                faults.append(f"{name} was finished, and was made again")
        left = leftovers(case)
        if left:
            faults.append(f"left over: {', '.join(left)}")
        shutil.rmtree(case.folder)
        return {
            "seconds": round(seconds, 3),
            "kept": len(finished),
            "resumed": round(again.seconds, 3),
            "faults": faults,
        }

    def _differences(self, case: Case, reference: dict[str, Any]) -> list[str]:
        """What is not as the undisturbed run made it."""
        state = in_child(lambda: disk_state(case), case.log).answer
        if state is None:
            return [f"what stands cannot be read: {_last_line(case)}"]
        names = {*state["days"], *reference["days"]}
        found = [
            f"{name} differs"
            for name in sorted(names)
            if state["days"].get(name) != reference["days"].get(name)
        ]
        if state["map"] != reference["map"]:
            found.append("the session map differs")
        if state["runs"][0] != "succeeded" or not state["whole"]:
            found.append(f"the records say {state['runs']}, whole {state['whole']}")
        lost = set(reference["recorded"]) - set(state["recorded"])
        if lost:
            found.append(f"no record has the statistics of {', '.join(sorted(lost))}")
        return found


def _last_line(case: Case) -> str:
    return case.log.read_text().strip().splitlines()[-1][:300]


def table(kills: list[dict[str, Any]]) -> str:
    """The kills by stage, as Markdown."""
    rows = [("stage", "kills", "of them on days to replace", "finished days kept", "the same in the end")]
    by_stage = defaultdict(list)
    for one in kills:
        by_stage[one["stage"]].append(one)
    for stage, found in [*by_stage.items(), ("all", kills)]:
        replaced = sum(one["kind"] == "replaced" for one in found)
        kept = sum(one.get("kept", 0) for one in found)
        same = sum(not one["faults"] for one in found)
        rows.append((stage, *(str(one) for one in (len(found), replaced, kept, same))))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def outcomes(found: list[dict[str, Any]], *keys: str) -> str:
    """How often which outcome, as Markdown."""
    counts = Counter(tuple(str(one[key]) for key in keys) for one in found)
    lines = [f"| {' | '.join(keys)} | times |", "|" + "---|" * (len(keys) + 1)]
    return "\n".join([*lines, *(f"| {' | '.join(key)} | {count} |" for key, count in sorted(counts.items()))])


def killed(world: World, stages: list[str], count: int) -> list[dict[str, Any]]:
    """So many kills, stage after stage."""
    kills = []
    for number in range(count):
        kind = "replaced" if (number // len(stages)) % 2 else "new"
        found = world.kill(stages[number % len(stages)], kind)
        kills.append(found)
        _tell(f"kill {number + 1}, {found['stage']}, {kind}", found, f"kept {found.get('kept')}, the same")
    return kills


def filled(world: World, scratch_place: Path, count: int, draw: random.Random) -> list[dict[str, Any]]:
    """So many disks that were too small."""
    found = []
    for number in range(count):
        one = full_disk(
            world.folder, scratch_place / f"disk{number}", world.references["new"], draw.uniform(0, 0.9)
        )
        one["stopped"] = stopped_by(one["met"])
        found.append(one)
        _tell(
            f"disk {number + 1} of {one['size']} bytes",
            one,
            f"kept {one['kept']}, the same; {one['met'][:150]}",
        )
    return found


def stopped_by(message: str) -> str:
    """What a full disk stopped, from the error's text."""
    marks = {
        "run cannot be recorded": "the record",
        "records cannot be read": "the record",
        "session map": "the session map",
        ".cache": "the history",
        "spill": "what is spilled",
        ".duckdb": "the table",
        "enriched": "the enriched day",
        "cannot be written": "the day",
    }
    return next((what for mark, what in marks.items() if mark in message), message[:60] or "nothing")


def harmed(project: Path, scratch_place: Path, count: int, draw: random.Random) -> list[dict[str, Any]]:
    """So many broken inputs."""
    expected = sound_day(project, scratch_place / "sound") if count else {}
    found = []
    for number in range(count):
        one = broken_input(project, scratch_place / f"input{number}", draw, expected)
        found.append(one)
        _tell(
            f"input {number + 1}, {one['file']}, {one['harm']}", one, f"{one['outcome']} {one['said'][:150]}"
        )
    return found


def _tell(what: str, found: dict[str, Any], well: str) -> None:
    print(f"{what}: {'; '.join(found['faults']) or well}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--disks", type=int, default=0, help="disks that are too small")
    parser.add_argument("--inputs", type=int, default=0, help="input files that are broken")
    parser.add_argument("--events", type=int, default=12_000, help="of the world: five days")
    parser.add_argument("--seed", type=int, default=1, help="another number, other moments")
    parser.add_argument("--stages", nargs="+", help="only these")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    stages = options.stages or [*STAGES, ANYWHERE, WORKERS]
    draw = random.Random(options.seed)
    parts: dict[str, Any] = {}

    def measure(part: str, work: Callable[[], list[dict[str, Any]]]) -> None:
        started = time.perf_counter()
        found = work()
        seconds = round(time.perf_counter() - started, 1)
        parts[part] = {"machine": machine(), "seed": options.seed, "seconds": seconds, "found": found}

    with scratch() as name:
        place = Path(name)
        project = place / "world"
        make_world(project, options.events)
        preload()
        if options.kills or options.disks:
            world = World(place, project, SERVICE, draw)
            measure("kills", lambda: killed(world, stages, options.kills))
            measure("disks", lambda: filled(world, place, options.disks, draw))
        measure("inputs", lambda: harmed(project, place, options.inputs, draw))
    parts = {name: part for name, part in parts.items() if part["found"]}
    for name, text in tables(parts).items():
        print(f"\n{name}\n\n{text}")
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "faults.json"
    # What was not asked for keeps the figures that it has.
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | parts, indent=1) + "\n")
    print(f"\nwritten to {os.path.relpath(path)}")
    return 1 if any(one["faults"] for part in parts.values() for one in part["found"]) else 0


def tables(parts: dict[str, Any]) -> dict[str, str]:
    """What `docs/reliability.md` shows, by the name of its mark."""
    shown = {}
    for name, part in parts.items():
        found = part["found"]
        if name == "kills":
            shown[name] = table(found)
        elif name == "disks":
            rows = [one | {"the same in the end": "no" if one["faults"] else "yes"} for one in found]
            shown[name] = outcomes(rows, "stopped", "the same in the end")
        else:
            shown[name] = outcomes(found, "harm", "outcome")
    return shown


if __name__ == "__main__":
    sys.exit(main())
