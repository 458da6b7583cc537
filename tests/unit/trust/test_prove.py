"""A sound pipeline is proved; one that leaks is caught, whichever way it leaks."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import yaml

from daedalus.cli.main import main
from daedalus.pipelines.pipeline_files import pipeline_to_yaml
from daedalus.platform import PlatformRegistry, RunOptions
from daedalus.platform.records import show_run
from daedalus.platform.trust import prove
from daedalus.trust.prove import why_it_changes
from unit.trust.conftest import DAY

if TYPE_CHECKING:
    import pytest

    from support.project import Project

Body = dict[str, Any]
ON = date.fromisoformat(DAY)
#: The day has 60 events; views of artwork 17 are not covered.
COVERED = 54


def check(found: Body, name: str) -> Body:
    return next(one for one in found["checks"] if one["check"] == name)


def test_a_sound_pipeline_is_proved(project: Project) -> None:
    registry = PlatformRegistry.open(project.root)
    # Notes stay with the runs of the root that is asked about, whichever is configured.
    elsewhere = project.root / "elsewhere"
    options = RunOptions(overrides={"output_root": str(elsewhere)})
    trained = registry.train("s", target_dates=[ON], stages="skeleton", options=options)
    found = prove(registry, "s", ON, rows=60, options=options)
    assert found["verdict"] == "proved"
    assert check(found, "brute force")["values"] == COVERED * 20
    assert check(found, "poisoned future")["rows"] > 15
    assert check(found, "poisoned future")["changed_after"] > 15
    assert check(found, "delivered day")["state"] == "holds"
    for run in (found["run_id"], trained.run_id):
        shown = show_run(registry, run, output_root=elsewhere)
        notes = [note for note in shown["notes"] if note["kind"] == "prove"]
        assert notes[0]["verdict"] == "proved"
    # what may see the future, by its definition
    sees: dict[str, set[str]] = {}
    for one in found["may_see_future"]:
        assert one["rows"] > 0
        sees.setdefault(one["column"], set()).update(one["views"])
    assert sees["title"] == {"works"}  # joined as `latest`
    assert sees["authors"] >= {"works"}  # through a static column
    assert sees["lang"] == {"profiles"}  # no created_field: a correction is not told from the truth
    assert sees["liked"] == sees["ever"] == {"events"}  # events may arrive late
    assert sees["works_made"] == {"works"}
    assert "tier" not in sees  # has a created_field
    assert "event" not in sees


def test_a_created_field_is_no_mend_for_windows(project: Project) -> None:
    catalog = PlatformRegistry.open(project.root).catalog
    users, profiles = catalog.view("users"), catalog.view("profiles")
    assert "do not ask created_field" in why_it_changes("late", [users])
    assert "nothing says when it was known" in why_it_changes("late", [users, profiles])
    assert "latest" in why_it_changes("latest", [users])


def operator(pipeline: Body, name: str) -> Body:
    found: Body = next(one for one in pipeline["operators"] if one["name"] == name)
    return found


def spec(pipeline: Body, name: str) -> Body:
    specs = (found for one in pipeline["operators"] for found in one.get("specs", ()))
    found: Body = next(one for one in specs if one["name"] == name)
    return found


def sees_its_own_instant(pipeline: Body) -> None:
    spec(pipeline, "ever")["include_current"] = True


def joins_the_newest_version(pipeline: Body) -> None:
    operator(pipeline, "profiles").update(time_range="all", keys=["user_id"], keep="newest")
    operator(pipeline, "profiles").pop("ordered")
    operator(pipeline, "join_profiles").pop("timestamp_column")
    operator(pipeline, "join_profiles")["op_kind"] = "join"


def forgets_when_it_was_known(pipeline: Body) -> None:
    operator(pipeline, "join_users").pop("created_column")


def forgets_the_delay(pipeline: Body) -> None:
    spec(pipeline, "seen").pop("delay_seconds")


def keeps_the_candidate(pipeline: Body) -> None:
    spec(pipeline, "liked").pop("exclude_self")


def reads_another_history(pipeline: Body) -> None:
    spec(pipeline, "mean_score")["condition"] = "hist.event = 'view'"


#: How it leaks -> the check that finds it, and the columns in which.
LEAKS = {
    sees_its_own_instant: ("poisoned future", {"ever"}),
    joins_the_newest_version: ("poisoned future", {"lang"}),
    forgets_when_it_was_known: ("poisoned future", {"tier"}),
    forgets_the_delay: ("brute force", {"seen"}),
    keeps_the_candidate: ("brute force", {"liked"}),
    reads_another_history: ("brute force", {"mean_score"}),
}
SOUND = {"authors", "same", "title", "published", "event", "country"}


def test_every_leak_of_an_edited_pipeline_is_caught(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = yaml.safe_load(pipeline_to_yaml(project.pipeline("s")))
    for leak in LEAKS:
        leak(pipeline)
    path = project.root / "config" / "pipelines" / "s.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(pipeline, sort_keys=False))
    assert main(["prove", "s", "--target-date", DAY, "--rows", "60"]) == 1
    out = capsys.readouterr().out
    assert "refuted" in out
    registry = PlatformRegistry.open(project.root)
    (note,) = show_run(registry, "latest")["notes"]
    assert note["verdict"] == "refuted"
    assert note["pipeline"] == "edited by hand"
    caught: dict[str, set[str]] = {}
    for one in note["checks"]:
        for wrong in (*one.get("leaks", ()), *one.get("mismatches", ())):
            assert wrong["examples"]
            assert wrong["column"] in out
            caught.setdefault(one["check"], set()).add(wrong["column"])
    for name, columns in LEAKS.values():
        assert columns <= caught[name]
    assert not SOUND & (caught["brute force"] | caught["poisoned future"])


def test_days_that_cannot_be_proved_are_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "s", "--target-date", "2026-05-29"]) == 1
    assert main(["prove", "s", "--target-date", "2026-07-01"]) == 2
    assert main(["prove", "zzz", "--target-date", DAY]) == 2
    err = capsys.readouterr().err
    assert "no events on 2026-05-29. Its rows are of 2026-" in err
    assert "outside feed_start" in err
    assert "zzz" in err
