"""A few faults of `benchmarks/faults.py` on the tiny project, in one process without threads: prints them as JSON.

python tests/faults/few_faults.py FOLDER
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Of the stages that the tiny project has; the tool itself goes through all of them.
KILLED = (
    ("history", "new"),
    ("rename", "replaced"),
    ("record", "new"),
    ("publish", "replaced"),
)
#: The largest file that may be written, in bytes: less than the records take before the days, and with them.
LIMITS = (9_000, 36_000)


def main(folder: Path) -> dict[str, Any]:
    sys.path.insert(0, str(BENCHMARKS))
    import faults
    from _fault_world import attempt, day_states, disk_state, preload, train
    from _killing import in_child
    from pipelines.tiny import SERVICE, tiny

    def earlier(project: Path, case: Any) -> Any:
        service = project / "feature_services" / "s.yaml"
        now = service.read_text()
        try:
            service.write_text(now.replace("- rolling:seen\n", ""))
            return train(project, case)
        finally:
            service.write_text(now)

    def onto_a_full_disk(limit: int) -> dict[str, Any]:
        case = world._case(f"limit{limit}")

        def limited() -> dict[str, Any]:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            # A limit of a process, so that no disk has to be filled.
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return attempt(project, case)

        met = in_child(limited, folder / "limited.log").answer
        there = day_states(case)
        again = in_child(lambda: attempt(project, case), case.log).answer
        state = in_child(lambda: disk_state(case), case.log).answer
        reference = world.references["new"]["state"]
        return {
            "limit": limit,
            "met": met,
            "torn": [name for name, one in there.items() if one != reference["days"][name]],
            "again": again["error"],
            "same": state["days"] == reference["days"] and state["map"] == reference["map"],
        }

    def side_by_side() -> dict[str, Any]:
        """Two runs of one root, begun at once."""
        case, read = world._case("together"), []
        for number in range(2):
            answer = folder / f"together{number}.json"
            read.append((os.fork(), answer))
            if read[-1][0] == 0:
                ended = in_child(lambda: attempt(project, case), folder / f"together{number}.log")
                answer.write_text(json.dumps(ended.answer))
                os._exit(0)
        for pid, _ in read:
            os.waitpid(pid, 0)
        met = [json.loads(answer.read_text()) for _, answer in read]
        last = in_child(lambda: attempt(project, case), case.log).answer
        state = in_child(lambda: disk_state(case), case.log).answer
        return {
            "met": met,
            "last": last["error"],
            "same": state["days"] == world.references["new"]["state"]["days"],
            "whole": state["whole"],
        }

    preload()
    project = folder / "project"
    in_child(lambda: str(tiny(project, service=SERVICE)), folder / "made.log")
    world = faults.World(folder, project, "s", random.Random(1), run=train, before=earlier)
    found: dict[str, Any] = {"kills": [world.kill(*which) for which in KILLED]}
    found["full"] = [onto_a_full_disk(limit) for limit in LIMITS]
    found["together"] = side_by_side()
    shutil.rmtree(folder / "project")
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
