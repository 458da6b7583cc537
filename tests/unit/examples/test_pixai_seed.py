from __future__ import annotations

import doctest
import hashlib
import json
from datetime import date
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from support.pixai import PIXAI, load_seed, seed_data

if TYPE_CHECKING:
    from pathlib import Path

seed = load_seed()

EVENTS, DAYS = 10_000, 3

ARROW = {
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "DOUBLE": pa.float64(),
    "FLOAT": pa.float32(),
    "TEXT": pa.string(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us"),
    "BIGINT[]": pa.list_(pa.int64()),
}
VIEWS = sorted(path.stem for path in (PIXAI / "feature_views").glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pixai") / "data"
    seed_data(out)
    return out


@pytest.fixture(scope="module")
def query(data: Path) -> Any:
    connection = duckdb.connect()
    for table in seed.TABLES:
        files = f"read_parquet('{data}/{table}/**/*.parquet', hive_partitioning = true)"
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM {files}")
    connection.execute("CREATE VIEW feed AS SELECT * FROM feed_events WHERE dt >= DATE '2026-05-01'")
    return lambda sql: connection.execute(sql).fetchall()


def hashes(out: Path) -> dict[str, str]:
    files = sorted(out.rglob("*.parquet"))
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def contents(out: Path, table: str) -> pa.Table:
    return pa.concat_tables(pq.ParquetFile(path).read() for path in sorted((out / table).rglob("*.parquet")))


# --- the same arguments, the same bytes


def test_two_seeds_have_the_same_bytes_whatever_the_threads(data: Path, tmp_path: Path) -> None:
    report = seed_data(tmp_path / "again", workers=3)
    assert hashes(tmp_path / "again") == hashes(data)
    assert len(hashes(data)) == sum(table.files for table in report.tables)


def test_a_file_does_not_depend_on_those_written_before_it(data: Path, tmp_path: Path) -> None:
    described = json.loads((data / seed.MARKER).read_text())["plan"]
    described.pop("format")
    plan = seed.Plan(**{**described, "start": date.fromisoformat(described["start"])})
    last = seed.feed_days(plan)[-1]
    seed.write_table(plan, tmp_path, "artwork_tack", None)
    seed.write_table(plan, tmp_path, "feed_events", last)
    alone = hashes(tmp_path)
    assert list(alone) == ["artwork_tack/part-0.parquet", "feed_events/dt=2026-05-03/part-0.parquet"]
    assert alone.items() <= hashes(data).items()


def test_another_seed_is_another_world(data: Path, tmp_path: Path) -> None:
    seed_data(tmp_path, seed=8)
    first, other = hashes(data), hashes(tmp_path)
    assert first.keys() == other.keys()
    assert not {name for name in first if first[name] == other[name]}


@pytest.mark.parametrize("chunk_rows", [333, 4_096])
def test_chunks_change_row_groups_and_no_value(data: Path, tmp_path: Path, chunk_rows: int) -> None:
    seed_data(tmp_path, chunk_rows=chunk_rows)
    for table in seed.TABLES:
        assert contents(tmp_path, table).equals(contents(data, table)), table
    groups = pq.ParquetFile(tmp_path / "feed_events/dt=2026-05-01/part-0.parquet").metadata.num_row_groups
    assert groups == -(-3_334 // chunk_rows)


def test_a_day_of_many_blocks_is_still_one_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seeder.feed.BLOCK_ROWS", 500)
    seed_data(tmp_path)
    day = contents(tmp_path, "feed_events").filter(pa.compute.field("event_timestamp") >= date(2026, 5, 1))
    assert day.num_rows == EVENTS
    plan = json.loads((tmp_path / seed.MARKER).read_text())["plan"]
    plan.pop("format")
    blocks = [*seed.feed_blocks(seed.Plan(**{**plan, "start": date(2026, 5, 1)}), date(2026, 5, 1), 3_334, 0)]
    assert [block.num_rows for block in blocks] == [500] * 6 + [334]
    middles = [block["event_timestamp"][block.num_rows // 2].as_py() for block in blocks]
    assert middles == sorted(middles)  # a block is a stretch of the day


# --- what the world holds


def test_the_feed_has_as_many_events_as_asked_in_folders_of_their_day(query: Any, data: Path) -> None:
    assert query("SELECT dt, count(*) FROM feed GROUP BY ALL ORDER BY dt") == [
        (date(2026, 5, 1), 3_334),
        (date(2026, 5, 2), 3_333),
        (date(2026, 5, 3), 3_333),
    ]
    assert query("SELECT count(*) FROM feed_events WHERE dt <> event_timestamp::DATE") == [(0,)]
    codec = pq.ParquetFile(data / "feed_events/dt=2026-05-01/part-0.parquet").metadata.row_group(0).column(0)
    assert codec.compression == "ZSTD"


def test_old_days_hold_dislikes_from_before_the_first_month(query: Any) -> None:
    old = query(
        "SELECT event, max(dt), count(DISTINCT dt), count(*) FROM feed_events "
        "WHERE dt < DATE '2026-05-01' GROUP BY ALL"
    )
    assert old == [("dislike_click", date(2026, 4, 19), 6, 240)]
    again = query(
        "SELECT count(*) FROM (SELECT DISTINCT user_id FROM feed_events "
        "WHERE dt < DATE '2026-05-01') SEMI JOIN feed USING (user_id)"
    )
    assert again[0][0] > 20  # people whom the days of May know again


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_finds_its_fields_with_their_types(view: str, data: Path) -> None:
    definition = yaml.safe_load((PIXAI / "feature_views" / f"{view}.yaml").read_text())
    source = definition["source"]
    canonical = definition.get("field_mapping", {})
    schema = contents(data, source["path"]).schema
    types = {canonical.get(field.name, field.name): field.type for field in schema}
    entities = definition["entity"] if isinstance(definition["entity"], list) else [definition["entity"]]
    for entity in entities:
        assert types[f"{entity}_id"] == pa.int64()
    for key in ("timestamp_field", "created_field"):
        if key in source:
            assert types[source[key]] == (pa.int64() if "timestamp_unit" in source else pa.timestamp("us")), (
                key
            )
    for field in definition["fields"]:
        assert types[field["name"]] == ARROW[field["dtype"]], field["name"]
        assert set(field) <= {"name", "dtype", "description", "nullable", "optional"}
        if field.get("nullable") is False:
            column = {canonical.get(name, name): name for name in schema.names}[field["name"]]
            assert contents(data, source["path"])[column].null_count == 0


def test_vectors_are_half_floats_of_the_width_asked_for(data: Path) -> None:
    table = contents(data, "siglip2_vectors")
    assert table.schema.field("image_embedding").type == pa.list_(pa.float16())
    assert set(pa.compute.list_value_length(table["image_embedding"]).to_pylist()) == {16}
    assert len(set(table["id"].to_pylist())) == table.num_rows


def test_users_and_artworks_have_a_heavy_tail(query: Any) -> None:
    for key in ("user_id", "artwork_id"):
        counts = [n for (n,) in query(f"SELECT count(*) AS n FROM feed GROUP BY {key} ORDER BY n DESC")]
        tenth = sum(counts[: len(counts) // 10]) / sum(counts)
        assert 0.3 < tenth < 0.9, key
        assert counts[0] > 20 * counts[len(counts) // 2], key


def test_one_user_can_have_half_of_everything(tmp_path: Path) -> None:
    seed_data(tmp_path, super_user_share=0.5)
    counts = contents(tmp_path, "feed_events")["user_id"].value_counts().to_pylist()
    assert 0.4 < max(entry["counts"] for entry in counts) / EVENTS < 0.6


def test_instants_tie_and_only_redelivered_events_are_equal(query: Any) -> None:
    same_user = query(
        "SELECT count(*) FROM (SELECT 1 FROM feed GROUP BY user_id, event_timestamp "
        "HAVING count(DISTINCT feed_seq) > 1)"
    )
    users = query(
        "SELECT count(*) FROM (SELECT 1 FROM feed GROUP BY event_timestamp "
        "HAVING count(DISTINCT user_id) > 1)"
    )
    assert same_user[0][0] > 500
    assert users[0][0] > 5
    like_and_view = query(
        "SELECT count(*) FROM feed a JOIN feed b "
        "USING (user_id, artwork_id, event_timestamp) "
        "WHERE a.event = 'like_click' AND b.event = 'reco_artwork_view'"
    )
    assert like_and_view[0][0] > 0
    whole_rows = query("SELECT count(*) FROM (SELECT DISTINCT * FROM feed_events)")[0][0]
    by_number = query("SELECT count(DISTINCT feed_seq), count(*) FROM feed_events")[0]
    assert by_number[0] == whole_rows < by_number[1]


def test_rows_arrive_in_another_order_than_they_happened(data: Path) -> None:
    times = contents(data, "feed_events")["event_timestamp"].slice(240, 3_334).to_pylist()
    assert times != sorted(times)


def test_some_values_are_missing_but_few(query: Any) -> None:
    for column in (
        "artwork_id",
        "feed_session",
        "country_code",
        "platform_code",
        "current_like_count",
        "retriever_id",
    ):
        share = query(f"SELECT avg(({column} IS NULL)::INT) FROM feed")[0][0]
        assert 0.0 < share < 0.08, column


@pytest.mark.parametrize("table", [*seed.ENTITY_TABLES, "siglip2_vectors"])
def test_every_table_lacks_some_that_the_feed_names(table: str, query: Any) -> None:
    ours = "user_id" if table == "user_profile" else "artwork_id"
    theirs = "id" if table in {"artwork_vector", "siglip2_vectors"} else ours
    found, all_of_them = query(
        f"SELECT count(*) FILTER ({ours} IN (SELECT {theirs} FROM {table})), count(*) "
        f"FROM (SELECT DISTINCT {ours} FROM feed WHERE {ours} IS NOT NULL)"
    )[0]
    assert 0.9 * all_of_them < found < all_of_them


def test_every_event_that_the_project_names_happens(query: Any) -> None:
    happened = {event for (event,) in query("SELECT DISTINCT event FROM feed")}
    service = yaml.safe_load((PIXAI / "feature_services/dssm_ranking.yaml").read_text())["session_filter"]
    runtime = yaml.safe_load((PIXAI / "config/training/runtime.yaml").read_text())
    named = {
        *service["view_events"],
        *service["like_events"],
        *runtime["embedding_coverage_filter"]["events"],
    }
    assert named | {"artwork_click", "dislike_click"} <= happened


def test_an_action_follows_the_view_of_its_artwork(query: Any) -> None:
    orphans, actions = query(
        "SELECT count(*) FILTER (NOT EXISTS (SELECT 1 FROM feed b "
        "WHERE b.feed_seq BETWEEN a.feed_seq - 400 AND a.feed_seq AND b.user_id = a.user_id "
        "AND b.artwork_id = a.artwork_id AND b.event LIKE 'reco%')), count(*)"
        " FROM feed a WHERE event NOT LIKE 'reco%' AND artwork_id IS NOT NULL"
    )[0]
    # A redelivered event takes the place of another, which may have been the view.
    assert orphans < 0.01 * actions


def test_sessions_have_one_user_and_some_go_on_the_next_day(query: Any) -> None:
    sessions = (
        "SELECT feed_session, count(DISTINCT user_id) AS users, count(DISTINCT dt) AS days FROM feed_events "
    )
    sessions += "WHERE feed_session IS NOT NULL GROUP BY 1"
    assert query(f"SELECT max(users) FROM ({sessions})") == [(1,)]
    assert query(f"SELECT count(*) FROM ({sessions}) WHERE days = 2")[0][0] > 0
    only_views = query(
        "SELECT count(*) FROM (SELECT 1 FROM feed GROUP BY feed_session HAVING bool_and(event LIKE 'reco%'))"
    )[0][0]
    assert only_views > 50


def test_animated_artworks_are_tagged_like_the_old_model(query: Any) -> None:
    tags = dict(
        query(
            "SELECT DISTINCT model_type, count(DISTINCT artwork_id) FROM artwork_generation "
            "SEMI JOIN (FROM artwork_properties WHERE artwork_type = 'ANIMATED_ARTWORK') "
            "USING (artwork_id) "
            "GROUP BY ALL"
        )
    )
    assert tags.keys() == {"SD_V1_MODEL"}
    assert tags["SD_V1_MODEL"] > 50
    truly_old = query(
        "SELECT count(DISTINCT artwork_id) FROM artwork_generation SEMI JOIN "
        "(FROM artwork_properties WHERE artwork_type <> 'ANIMATED_ARTWORK') USING (artwork_id) "
        "WHERE model_type = 'SD_V1_MODEL'"
    )[0][0]
    assert truly_old > 50
    assert (
        query(
            "SELECT count(*) FROM feed SEMI JOIN (FROM artwork_properties WHERE artwork_type = "
            "'ANIMATED_ARTWORK') USING (artwork_id)"
        )[0][0]
        > 100
    )


def test_artworks_change_after_they_were_published(query: Any) -> None:
    assert query("SELECT count(*) FROM artwork_properties WHERE updated_at < created_at") == [(0,)]
    turned = query(
        "SELECT count(*) FROM (SELECT 1 FROM artwork_properties GROUP BY artwork_id "
        "HAVING count(DISTINCT is_sensitive) = 2 AND count(DISTINCT created_at) = 1)"
    )
    assert turned[0][0] > 50


def test_few_events_come_before_their_artwork(query: Any) -> None:
    early, late = query(
        "SELECT count(*) FILTER (created_at > event_timestamp), count(*) FROM feed JOIN "
        "(SELECT DISTINCT artwork_id, created_at FROM artwork_properties) USING (artwork_id)"
    )[0]
    assert 0 < early < 0.01 * late


def test_profiles_are_known_late_corrected_and_changed_after_events(query: Any) -> None:
    assert query("SELECT count(*) FROM user_profile WHERE ingested_at < updated_at") == [(0,)]
    assert (
        query("SELECT count(*) FROM user_profile WHERE ingested_at > updated_at + INTERVAL 3 HOUR")[0][0] > 30
    )
    assert query("SELECT count(*) FROM user_profile WHERE ingested_at IS NULL")[0][0] > 0
    corrected = query(
        "SELECT count(*) FROM (SELECT 1 FROM user_profile GROUP BY user_id, updated_at "
        "HAVING count(DISTINCT ingested_at) > 1)"
    )
    assert corrected[0][0] > 5
    after = query(
        "SELECT count(DISTINCT user_id) FROM feed JOIN user_profile USING (user_id) "
        "WHERE updated_at > event_timestamp"
    )
    between = query(
        "SELECT count(DISTINCT user_id) FROM feed JOIN user_profile USING (user_id) "
        "WHERE updated_at < event_timestamp AND ingested_at > event_timestamp"
    )
    assert after[0][0] > 30
    assert between[0][0] > 0


def test_users_of_the_feed_publish_artworks_themselves(query: Any) -> None:
    unknown = query(
        "SELECT count(DISTINCT author_id) FROM artwork_properties WHERE author_id NOT BETWEEN 10001 AND 10500"
    )
    assert unknown == [(0,)]
    recent = query(
        "SELECT avg(EXISTS (FROM artwork_properties p WHERE p.author_id = f.user_id AND p.created_at < "
        "f.event_timestamp AND p.created_at >= f.event_timestamp - INTERVAL 30 DAY)::INT) FROM feed f"
    )
    assert 0.2 < recent[0][0] < 0.9


def test_tags_have_one_row_each_and_every_kind_of_list(query: Any) -> None:
    assert query("SELECT count(*) - count(DISTINCT artwork_id) FROM artwork_tack") == [(0,)]
    kinds = query(
        "SELECT count(*) FILTER (tack_ids IS NULL), count(*) FILTER (len(tack_ids) = 0), "
        "count(*) FILTER (len(tack_ids) > len(list_filter(tack_ids, lambda x: x IS NOT NULL))) "
        "FROM artwork_tack"
    )
    assert all(count > 0 for count in kinds[0])


def test_model_ids_would_not_survive_a_float(query: Any) -> None:
    ids = [i for (i,) in query("SELECT DISTINCT model_id FROM artwork_generation WHERE model_id IS NOT NULL")]
    assert any(int(float(i)) != i for i in ids)


def test_the_bound_on_vectors_keeps_the_popular_and_the_newest(tmp_path: Path, query: Any) -> None:
    report = seed_data(tmp_path, vectors=400)
    assert 360 < report.rows("siglip2_vectors") < 400
    ids = contents(tmp_path, "siglip2_vectors")["id"].to_pylist()
    shown = query("SELECT artwork_id, count(*) FROM feed WHERE artwork_id IS NOT NULL GROUP BY 1")
    covered = sum(n for artwork, n in shown if artwork in set(ids)) / sum(n for _, n in shown)
    assert covered > 2 * 400 / 2_000


# --- the folder


def test_an_equal_seed_that_is_there_is_kept(tmp_path: Path) -> None:
    first = seed_data(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    again = seed_data(tmp_path)
    assert (first.reused, again.reused) == (False, True)
    assert again.tables == first.tables
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before


def test_another_seed_leaves_no_day_of_the_first(tmp_path: Path) -> None:
    seed_data(tmp_path, events=900)
    (tmp_path / "training_output").mkdir()
    seed_data(tmp_path, events=600, days=2)
    feed = sorted(path.name for path in (tmp_path / "feed_events").iterdir())
    assert feed[-2:] == ["dt=2026-05-01", "dt=2026-05-02"]
    assert (tmp_path / "training_output").is_dir()


@pytest.mark.parametrize("damage", ["lost file", "interrupted"])
def test_an_unfinished_seed_is_written_again(tmp_path: Path, damage: str) -> None:
    seed_data(tmp_path, events=600)
    whole = hashes(tmp_path)
    if damage == "lost file":
        (tmp_path / "artwork_tack/part-0.parquet").unlink()
    else:
        marker = json.loads((tmp_path / seed.MARKER).read_text())
        (tmp_path / seed.MARKER).write_text(json.dumps({"plan": marker["plan"]}))
        (tmp_path / "feed_events/dt=2026-05-01/part-0.parquet").write_bytes(b"half")
    assert not seed_data(tmp_path, events=600).reused
    assert hashes(tmp_path) == whole


def test_tables_that_no_seed_wrote_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "feed_events").mkdir()
    (tmp_path / "feed_events/mine.parquet").write_bytes(b"precious")
    with pytest.raises(seed.SeedError, match="feed_events was not written by a seed"):
        seed_data(tmp_path)
    assert (tmp_path / "feed_events/mine.parquet").read_bytes() == b"precious"


@pytest.mark.parametrize("wrong", [{"events": 0}, {"days": 0}, {"super_user_share": 1.5}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(seed.SeedError, match=next(iter(wrong))):
        seed_data(tmp_path / "data", **wrong)
    assert not (tmp_path / "data").exists()


def test_the_smallest_world_can_be_written(tmp_path: Path) -> None:
    report = seed_data(tmp_path, events=1, days=3, users=1, artworks=1, vectors=0)
    assert report.rows("feed_events") == 1 + 6 * 40
    assert report.rows("siglip2_vectors") == 0


# --- the command


def test_the_command_shows_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--events", "1k", "--days", "2", "--embedding-dim", "4", "--out", str(tmp_path / "data")]
    assert seed.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(f"{tmp_path / 'data'}: 1,240 events, ")
    assert any(line.startswith("feed_events/dt=2026-04-25 ") and " 500 rows " in line for line in lines)
    assert seed.main(arguments) == 0
    assert "already there" in capsys.readouterr().out


def test_the_command_refuses_a_folder_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "artwork_tack").mkdir()
    assert seed.main(["--events", "10k", "--out", str(tmp_path)]) == 2
    assert "was not written by a seed" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["ten", "1.5", "-1k", "inf", "nan", ""])
def test_a_count_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        seed.main([f"--events={text}"])
    assert "expected a count such as 10k" in capsys.readouterr().err


def test_the_seeders_examples_are_true() -> None:
    outcome = doctest.testmod(seed)
    assert (outcome.attempted, outcome.failed) == (1, 0)
