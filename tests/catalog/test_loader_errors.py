"""Wrong definitions: where the message points, what it says, and the mend."""

# ruff: noqa: E501 - messages stand as they are printed

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daedalus.errors import DefinitionError
from support.projects import ARTWORKS, EVENTS, PROJECT, SERVICE, USERS, Files, load, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, PROJECT)
    return tmp_path


def problems(project: Path, files: Files) -> list[str]:
    write(project, files)
    with pytest.raises(DefinitionError) as caught:
        load()
    return [str(problem) for problem in caught.value.problems or (caught.value,)]


VIEW = "views/users.yaml"
SOURCE = "name: users\nentity: user\nfields: [{name: age, dtype: INTEGER}]\nsource: "

#: The users view with one thing wrong -> the whole message.
VIEW_CASES = [
    (
        USERS.replace("entity: user", "entity: usr"),
        "views/users.yaml:2, $.entity: view users: unknown entity 'usr'. "
        "Did you mean 'user'? Others go into entities.yaml.",
    ),
    (USERS.replace("entity: user\n", ""), "views/users.yaml:1, $: view users: entity is missing"),
    (
        USERS.replace("entity: user", "entity: []"),
        "views/users.yaml:2, $.entity: view users: entity is empty",
    ),
    (
        USERS.replace("ttl: 90d", "ttl: 90"),
        "views/users.yaml:3, $.ttl: view users: ttl is 90. Write a number and a unit: 30s, 15m, 6h, 90d, 2w.",
    ),
    (
        USERS.replace("ttl: 90d", "ttl: 0d"),
        "views/users.yaml:3, $.ttl: view users: ttl is '0d'. Write a number and a unit: 30s, 15m, 6h, 90d, 2w.",
    ),
    (
        USERS.replace("fields:\n", "fields:\n  - {name: User_ID, dtype: BIGINT}\n"),
        "views/users.yaml:11, $.fields[0]: view users: the field 'User_ID' differs only in case from 'user_id', "
        "which the view's entity or source names. Write user_id, or leave it out.",
    ),
    (
        USERS.replace("ttl", "tll"),
        "views/users.yaml:3, $.tll: view users: unknown key 'tll'. Did you mean 'ttl'?",
    ),
    (
        USERS.replace("ttl: 90d", "online: yes"),
        "views/users.yaml:3, $.online: view users: online is 'yes', not true or false. Write true.",
    ),
    (
        USERS.replace("ttl: 90d", "delay_seconds: -1"),
        "views/users.yaml:3, $.delay_seconds: view users: delay_seconds is -1, but must be at least 0",
    ),
    (
        USERS.replace("ttl: 90d", 'delay_seconds: "60"'),
        "views/users.yaml:3, $.delay_seconds: view users: delay_seconds is '60', not a number. "
        "It is text: remove the quotes, leading zeros and separators.",
    ),
    (
        USERS.replace("ttl: 90d", "owner: 007.5"),
        "views/users.yaml:3, $.owner: view users: owner is 7.5, not text. "
        'YAML reads it as a number: quote it ("7.5").',
    ),
    (
        USERS.replace("ttl: 90d", "tags: [a, true, a]"),
        "views/users.yaml:3, $.tags[1]: view users: the item is true, not text. "
        'YAML reads it as a boolean: quote it ("true").',
    ),
    (
        USERS.replace("dtype: INTEGER", "dtype: INTEGR"),
        "views/users.yaml:11, $.fields[0].dtype: view users: unknown dtype 'INTEGR'. Did you mean 'INTEGER' or 'UINTEGER' or 'INTERVAL'?",
    ),
    (
        USERS.replace("dtype: INTEGER", "dtype: 'float64[]'"),
        "views/users.yaml:11, $.fields[0].dtype: view users: unknown dtype 'float64[]'. Did you mean 'DOUBLE'?",
    ),
    (
        USERS.replace("dtype: INTEGER", "dtype: ENUM(a)"),
        "views/users.yaml:11, $.fields[0].dtype: view users: unknown dtype 'ENUM(a)': Daedalus does not support it. "
        "Declare VARCHAR; a source's ENUM column reads as text.",
    ),
    (
        USERS.replace(", dtype: INTEGER", ""),
        "views/users.yaml:11, $.fields[0]: view users: dtype is missing. "
        "Write a DuckDB type, such as BIGINT or VARCHAR[].",
    ),
    (
        USERS.replace("name: registered_at", "name: AGE"),
        "views/users.yaml:12, $.fields[1].name: view users: the field 'AGE' stands twice. "
        "Names differ by more than case.",
    ),
    (
        USERS.replace("{name: age, dtype: INTEGER}", "age"),
        "views/users.yaml:11, $.fields[0]: view users: expected a mapping of keys, got 'age'",
    ),
    (
        USERS.replace("name: age,", "name: user_id,").replace("INTEGER", "TEXT"),
        "views/users.yaml:11, $.fields[0]: view users: the key 'user_id' is VARCHAR, but its entity says BIGINT. "
        "Leave the key out of fields: the entity declares it.",
    ),
    (
        USERS.replace("updated_at", "tags"),
        "views/users.yaml:13, $.fields[2]: view users: the time field 'tags' is VARCHAR[]. "
        "Declare TIMESTAMP, DATE, or a whole number with the source's timestamp_unit.",
    ),
    (
        USERS.replace("uid: user_id", "uid: userid"),
        "views/users.yaml:9, $.field_mapping.uid: view users: 'userid' is no field of the view. "
        "Did you mean 'user_id'? Mappings go from source column to field.",
    ),
    (
        USERS.replace("{uid: user_id}", "{uid: user_id, id: user_id}"),
        "views/users.yaml:9, $.field_mapping.id: view users: 'id' and 'uid' are both mapped to 'user_id'. "
        "Give each source column a name of its own.",
    ),
    (
        USERS.replace("created_field: ingested", "created_field: updated_at"),
        "views/users.yaml:4, $.source: view users: timestamp_field is also created_field or sequence_field. "
        "Remove one.",
    ),
    (
        USERS.replace("  timestamp_field: updated_at\n", ""),
        "views/users.yaml:3, $.ttl: view users: ttl needs a timestamp_field in the source",
    ),
    (
        USERS.replace("name: users", "name: rolling"),
        "views/users.yaml:1, $.name: view rolling: the name 'rolling' is reserved for computed columns. "
        "Rename the view.",
    ),
    (
        USERS.replace("name: users", "name: ../users"),
        "views/users.yaml:1, $.name: name '../users' is not usable as a name. "
        "Use letters, digits, _, - and single dots; it becomes a folder's name.",
    ),
    (
        SOURCE + "{timestamp_field: ts}",
        "views/users.yaml:4, $.source: view users: the source names no place. Set path (a Parquet file, folder, "
        "glob or s3:// URL), or database_path with table_name or query.",
    ),
    (
        SOURCE.removesuffix("source: "),
        "views/users.yaml:1, $: view users: source is missing. "
        "Write source: {path: folder_or_file}, or {database_path: ..., table_name: ...}.",
    ),
    (
        SOURCE + "users.parquet",
        "views/users.yaml:4, $.source: view users: expected a mapping of keys, got 'users.parquet'",
    ),
    (
        SOURCE + "{path: a, snapshot: {version: 1}}",
        "views/users.yaml:4, $.source.snapshot: view users: snapshot goes with a ducklake: database_path. Remove it.",
    ),
    (
        SOURCE + "{database_path: 'ducklake:x', table_name: t, snapshot: {version: 1, as_of: x}}",
        "views/users.yaml:4, $.source.snapshot: view users: snapshot takes version or as_of, one of them",
    ),
    (
        SOURCE + "{database_path: 'ducklake:x', table_name: t, snapshot: {as_of: noon}}",
        "views/users.yaml:4, $.source.snapshot.as_of: view users: as_of is 'noon', not an instant. "
        'Write as_of: "2026-05-01T00:00:00Z".',
    ),
    (
        SOURCE + "{database_path: ducklake:x}",
        "views/users.yaml:4, $.source.database_path: view users: database_path needs table_name or query",
    ),
    (
        SOURCE + "{database_path: x, table_name: t, query: q}",
        "views/users.yaml:4, $.source.database_path: view users: "
        "database_path takes table_name or query, not both",
    ),
    (
        SOURCE + "{path: x, table_name: t}",
        "views/users.yaml:4, $.source.table_name: view users: "
        "table_name goes with database_path, not with path. Remove it.",
    ),
    (
        SOURCE + "{path: x, timestamp_field: t, timestamp_unit: min}",
        "views/users.yaml:4, $.source.timestamp_unit: view users: unknown timestamp_unit 'min'. Known: ms, ns, s, us.",
    ),
    (
        SOURCE + "{database_path: snowflake://a, table_name: t, password: hunter2}",
        "views/users.yaml:4, $.source.password: view users: password must not stand in the file. "
        "Write password: ${MY_PASSWORD} and set that environment variable.",
    ),
    (
        SOURCE + "{database_path: a, table_name: t, credentials: {private_key: '${A}x'}}",
        "views/users.yaml:4, $.source.credentials.private_key: view users: private_key must not stand in the file. "
        "Write private_key: ${MY_PRIVATE_KEY} and set that environment variable.",
    ),
    (
        SOURCE + '{database_path: "postgresql://me:hunter2@host/db", table_name: t}',
        "views/users.yaml:4, $.source.database_path: view users: database_path holds a credential. "
        "Write it as a reference to an environment variable: ${DB_PASSWORD}.",
    ),
    (
        SOURCE + '{database_path: a, table_name: t, user: "${U}", credentials: {user: "${V}"}}',
        "views/users.yaml:4, $.source.credentials.user: view users: user is given twice. Keep it under credentials.",
    ),
]


@pytest.mark.parametrize(("text", "message"), VIEW_CASES)
def test_views(project: Path, text: str, message: str) -> None:
    assert message in problems(project, {VIEW: text})


def test_a_secret_is_never_repeated(project: Path) -> None:
    text = (
        SOURCE + "{database_path: 'postgresql://u:hunter2@h/d', table_name: t, token: hunter2, password: 7}"
    )
    assert "hunter2" not in "".join(problems(project, {VIEW: text}))


PEM = "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\\n-----END PRIVATE KEY-----"
SECRETS = [
    'database_path: "postgresql://me:hunter2@host/db", table_name: t',
    'database_path: "postgresql://me:hun/ter2@host/db", table_name: t',
    'database_path: "postgresql://host/db?password=hunter2", table_name: t',
    'database_path: "ducklake:postgres:host=h password=hunter2", table_name: t',
    'database_path: "ducklake:postgres://me:hunter2@h/db", table_name: t',
    'database_path: x, data_path: "s3://b/p?s3_secret_access_key=hunter2", table_name: t',
    'path: "s3://b/p?X-Amz-Signature=hunter2"',
    "database_path: x, query: \"SELECT * FROM dblink('host=h password=hunter2', 'SELECT 1')\"",
    "database_path: x, query: \"SELECT * FROM read_csv('https://me:hunter2@h/x.csv')\"",
    "database_path: x, query: \"CREATE SECRET (TYPE s3, KEY_ID 'hunter2', SECRET 'hunter2')\"",
    'database_path: x, table_name: "AKIAIOSFODNN7HUNTER2"',
    "path: x, password: hunter2",
    "path: x, password: 22222222",
    "path: x, password: [hunter2]",
    "path: x, credentials: hunter2",
    "path: x, credentials: {key_id: hunter2}",
    "path: x, credentials: {private_key_passphrase: hunter2}",
    'path: x, credentials: {private_key_path: "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAhunter2"}',
    'path: x, credentials: {role: "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodW50ZXIyIn0.hunter2"}',
    'path: x, credentials: {scope: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYhunter2KEY"}',
    'path: x, credentials: {host: "password=hunter2"}',
    f'path: x, credentials: {{region: "{PEM}hunter2"}}',
    f'path: x, private_key: "{PEM}hunter2"',
]


@pytest.mark.parametrize("source", SECRETS)
def test_inline_credentials_are_refused_and_not_repeated(project: Path, source: str) -> None:
    found = problems(project, {VIEW: SOURCE + "{" + source + "}"})
    assert any("credential" in one or "must not stand" in one or "got a text" in one for one in found), found
    assert all("views/users.yaml:4" in one for one in found)
    text = "".join(found)
    for secret in ("hunter2", "hun/ter2", "22222222", "AKIA", "MII", "eyJ", "wJal"):
        assert secret not in text


def test_a_source_that_is_one_text_is_not_repeated(project: Path) -> None:
    (found,) = problems(project, {VIEW: SOURCE + "postgresql://me-hunter2@h/d"})
    assert "expected a mapping of keys, got a text" in found
    assert "hunter2" not in found


PLAIN = [
    'database_path: "postgresql://${U}:${PG}@host:5432/db?application_name=x@y", table_name: t',
    "database_path: x, query: \"SELECT * FROM t WHERE token = 'x' AND password IS NULL\"",
    'path: "s3://bucket/token_count=5/*.parquet"',
    'path: x, credentials: {endpoint: "http://127.0.0.1:5000", region: eu-central-1, role: READER_OF_EVENTS_2026}',
    "path: x, credentials: {private_key_path: /opt/keys/training_service_rsa_key_2026.p8}",
]


@pytest.mark.parametrize("source", PLAIN)
def test_what_is_no_credential_is_let_in(project: Path, source: str) -> None:
    found = problems(project, {VIEW: SOURCE + "{" + source + "}"})
    assert not [one for one in found if "views/users.yaml" in one]


FILE_CASES = [
    ("", "views/users.yaml: the file is empty"),
    ("- a", "views/users.yaml:1, $: expected a mapping of keys, got a list"),
    (
        "name: a: b",
        "views/users.yaml:1: not valid YAML: mapping values are not allowed in this context. "
        "Quote a text that holds a colon and a blank.",
    ),
    (
        USERS + "ttl: 3d\n",
        "views/users.yaml:15: the key 'ttl' stands twice. The first is in line 3: remove one.",
    ),
    ("a: 1\n---\nb: 2", "views/users.yaml:2: a second document in the file. One file, one definition."),
    (
        USERS.replace("90d", "!!python/name:os.system"),
        "views/users.yaml:3: a YAML tag (tag:yaml.org,2002:python/name:os.system) is not allowed. "
        "Remove it; quote what must stay text.",
    ),
    (
        USERS.replace("ttl: 90d", "owner: ${base.team}"),
        "views/users.yaml:3, $.owner: unknown constant ${base.team}",
    ),
]


@pytest.mark.parametrize(("text", "message"), FILE_CASES)
def test_files(project: Path, text: str, message: str) -> None:
    assert message in problems(project, {VIEW: text})


def test_a_file_that_is_not_utf8(project: Path) -> None:
    (project / VIEW).write_bytes(b"name: \xe9")
    assert problems(project, {}) == ["views/users.yaml: the file is not UTF-8 (byte 6). Save it as UTF-8."]


def test_folders_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems(tmp_path, {}) == [
        f"{kind}: the folder of the {kind} cannot be read: No such file or directory. "
        "Run in the project's folder, or create it."
        for kind in ("views", "services")
    ]


ENTITY_CASES = [
    (
        "entities: [{name: user, keys: [id]}]",
        "views/entities.yaml:1, $.entities[0].name: entity user: the entity 'user' cannot be redefined. "
        "It ships with Daedalus: use it, or choose another name.",
    ),
    (
        "entities:\n  - {name: a, keys: [id]}\n  - {name: a, keys: [id]}",
        "views/entities.yaml:3, $.entities[1].name: entity a: the entity 'a' is defined twice. Rename or remove one.",
    ),
    (
        "entities: [{name: a}]",
        "views/entities.yaml:1, $.entities[0]: entity a: keys is missing. "
        "Write keys: [{name: user_id, dtype: BIGINT}].",
    ),
    (
        "entities: [{name: a, keys: [{name: id, dtype: DOUBLE}]}]",
        "views/entities.yaml:1, $.entities[0].keys[0].dtype: entity a: DOUBLE cannot be a key. "
        "Use a whole number, text or UUID.",
    ),
    (
        "entities: [{name: a, keys: [id, ID]}]",
        "views/entities.yaml:1, $.entities[0].keys[1].name: entity a: the key 'ID' stands twice",
    ),
    (
        "entity: []",
        "views/entities.yaml:1, $.entity: unknown key 'entity'. Did you mean 'entities'?",
    ),
]


@pytest.mark.parametrize(("text", "message"), ENTITY_CASES)
def test_entities(project: Path, text: str, message: str) -> None:
    assert message in problems(project, {"views/entities.yaml": text})


def at(line: int, path: str, what: str) -> str:
    return f"services/ranking.yaml:{line}, $.{path}: service ranking: {what}"


def extended(text: str) -> str:
    return SERVICE + text


#: The service with one thing wrong -> the only message.
SERVICE_CASES = [
    (
        SERVICE.replace('"2026-06-27"', "2026-6-27"),
        at(2, "version", "the version '2026-6-27' is not YYYY-MM-DD or YYYY-MM-DD.N. "
           'Write the day of the contract, and a number when one day has several: "2026-06-27.2".'),
    ),
    (
        SERVICE.replace('"2026-06-27"', "2026-02-30"),
        at(2, "version", "the version '2026-02-30' is not YYYY-MM-DD or YYYY-MM-DD.N. "
           'Write the day of the contract, and a number when one day has several: "2026-06-27.2".'),
    ),
    (
        SERVICE.replace('"2026-06-27"', "2026"),
        at(2, "version", 'version is 2026, not text. YAML reads it as a number: quote it ("2026").'),
    ),
    (
        SERVICE.replace("spine: events", "spine: event"),
        at(3, "spine", "unknown view 'event'. Did you mean 'events'?"),
    ),
    (
        SERVICE.replace("view: users", "view: user"),
        at(5, "views[0].view", "unknown view 'user'. Did you mean 'users'?"),
    ),
    (
        SERVICE.replace("join: asof", "join: as_of"),
        at(5, "views[0].join", "unknown join 'as_of'. Did you mean 'asof'?"),
    ),
    (
        SERVICE.replace("- artworks", "- {view: artworks, join: asof}"),
        at(6, "views[1].join", "artworks has no time to join as of. "
           "Give its source a timestamp_field, or use join: latest."),
    ),
    (
        SERVICE.replace("- artworks", "- users"),
        at(6, "views[1]", "'users' stands twice among spine and views. Give one of them an alias."),
    ),
    (
        SERVICE.replace("- artworks", "- {view: artworks, alias: rolling}"),
        at(6, "views[1].alias", "the alias 'rolling' is reserved for computed columns. Choose another."),
    ),
    (
        SERVICE.replace("- artworks", "- {view: artworks, on: {artwork_id: author}}"),
        at(6, "views[1].on.artwork_id", "'author' is no join key of artworks. "
           "Write spine column: view key. Known: artwork_id."),
    ),
    (
        SERVICE.replace("- artworks", "- {view: artworks, on: {authr: artwork_id}}"),
        at(6, "views[1].on.authr", "the spine events has no column 'authr'. Did you mean 'author'?"),
    ),
    (
        SERVICE.replace("- artworks", "- {view: artworks, on: {event: artwork_id}}"),
        at(6, "views[1]", "event and artwork_id cannot be joined: VARCHAR and BIGINT. "
           "Declare both sides with one dtype that is no float."),
    ),
    (
        SERVICE.replace("users:age", "users:agee"),
        at(9, "columns[1]", "unknown column 'users:agee'. Did you mean 'users:age' or 'users:tags' or 'users:ingested'?"),
    ),
    (
        SERVICE.replace("users:age", "age"),
        at(9, "columns[1].ref", "expected view:column, got 'age'"),
    ),
    (
        SERVICE.replace("  - artworks\n", "").replace("users:age", "artworks:kind"),
        at(8, "columns[1]", "'artworks:kind' names a view that the service does not join. "
           "Add it: views: [{view: artworks}]."),
    ),
    (
        SERVICE.replace("- users:age", "- {ref: users:user_id}"),
        at(9, "columns[1]", "the output 'user_id' stands twice. Rename one: {name: ..., ref: ...}."),
    ),
    (
        extended("  - {ref: users:tags, dtype: BIGINT}\n"),
        at(10, "columns[2].dtype", "dtype BIGINT does not fit users:tags, which is VARCHAR[]. "
           "Use the source's dtype, or a derived column that casts."),
    ),
    (
        extended('  - {ref: users:vector, dtype: "FLOAT[4]", shape: {dimension: 3}}\n'),
        at(10, "columns[2].shape.dimension", "shape says 3 items, but FLOAT[4] has 4. Make them equal."),
    ),
    (
        extended("  - {ref: events:event, shape: {dimension: 4}}\n"),
        at(10, "columns[2].shape", "VARCHAR has no shape: only lists have. Remove shape."),
    ),
    (
        extended("  - {ref: events:country, default: none}\n"),
        at(10, "columns[2].default", "the default does not fit INTEGER: 'none' is not a whole number"),
    ),
    (
        extended("  - {ref: users:tags, default: [a, 1]}\n"),
        at(10, "columns[2].default", "the default does not fit VARCHAR[]: 1 is not text"),
    ),
    (
        extended("  - {ref: events:country, nullable: false}\n"),
        at(10, "columns[2].nullable", "nullable: false needs a default that is not null. "
           "Write default: 0 (or another literal): it replaces NULL."),
    ),
    (
        extended("  - {ref: events:country, default: 0, default_sql: '0'}\n"),
        at(10, "columns[2].default_sql", "default and default_sql are both given. Keep one of them."),
    ),
    (
        extended("  - {ref: events:country, default_sql: \"CAST(NULL AS TEXT)\"}\n"),
        at(10, "columns[2].default_sql", "default_sql makes VARCHAR, but the column is INTEGER. "
           "Write CAST(NULL AS INTEGER)."),
    ),
    (
        extended("  - {ref: events:country, default_sql: country + 1}\n"),
        at(10, "columns[2].default_sql", "unknown column country in 'country + 1'"),
    ),
    (
        extended("  - {name: score, default: 1}\n"),
        at(10, "columns[2]", "score has neither ref nor dtype. Write ref: view:column, or a dtype with a default."),
    ),
    (
        extended("  - embedding:image\n"),
        at(10, "columns[2]", 'the embedding image needs a dtype. '
           'Write dtype: "HALF_FLOAT[]" or "FLOAT[]": no view declares an embedding.'),
    ),
    (
        extended("  - age:user_days\n"),
        at(10, "columns[2]", "unknown column 'age:user_days'. Did you mean 'users:user_id'?"),
    ),
    (
        extended("session_column: sesion\n"),
        at(10, "session_column", "the spine events has no column 'sesion'. Did you mean 'session'?"),
    ),
    (
        extended("  - {name: qid, ref: users:seq}\nsession_column: session\n"),
        at(10, "columns[2]", "qid is appended by itself. Remove it from columns, or rename it."),
    ),
    (
        extended("session_filter: {event_column: event, view_events: [a]}\n"),
        at(10, "session_filter", "session_column is missing. Name the spine column that holds the session."),
    ),
    (
        extended("session_filter: {session_column: session, event_column: event, view_events: [1]}\n"),
        at(10, "session_filter.view_events[0]", 'the item is 1, not text. YAML reads it as a number: quote it ("1").'),
    ),
    (
        extended("grain: [user_id, artwork]\n"),
        at(10, "grain[1]", "the spine events has no column 'artwork'. Did you mean 'artwork_id' or 'author'?"),
    ),
    (
        extended("static_columns: [events:event]\n"),
        at(10, "static_columns[0]", "'events:event' is not a joined view's column. "
           "Only columns of joined views are joined before rolling."),
    ),
    (
        extended("age_columns: [{name: days, created: users:age_}]\n"),
        at(10, "age_columns[0].created", "unknown column 'users:age_'. Did you mean 'users:age' or 'users:tags' or 'users:seq'?"),
    ),
    (
        extended("age_columns: [{name: days, created: users:tags}]\n"),
        at(10, "age_columns[0].created", "'users:tags' is VARCHAR[], not a time. Name a TIMESTAMP or DATE column."),
    ),
    (
        extended("age_columns: [{name: country, created: users:registered_at}]\n"),
        at(10, "age_columns[0]", "the name 'country' is taken by a column. Choose another name."),
    ),
    (
        extended("lookbacks: [{name: l, view: users, on: {user_id: user_id}, value_column: tags}]\n"),
        at(10, "lookbacks[0].value_column", "tags is a list already"),
    ),
    (
        extended("lookbacks: [{name: l, view: users, on: {user_id: user_id}, value_column: age, max_items: 0}]\n"),
        at(10, "lookbacks[0].max_items", "max_items is 0, but must be at least 1"),
    ),
    (
        extended("lookbacks: [{name: l, view: artworks, on: {user_id: author}, value_column: kind}]\n"),
        at(10, "lookbacks[0].view", "artworks has no time to look back over"),
    ),
    (
        extended("lookbacks: [{name: l, view: users, on: {author: user}, value_column: age}]\n"),
        at(10, "lookbacks[0].on.author", "users has no column 'user'. "
           "Write spine column: users column. Did you mean 'user_id'?"),
    ),
    (
        extended("aggregation_specs: [{name: a, group_by: [user_id], operation: cont}]\n"),
        at(10, "aggregation_specs[0]", "aggregation spec a: unknown operation 'cont'. Did you mean 'count'?"),
    ),
    (
        extended(
            "aggregation_specs: [{name: a, group_by: [user_id], operation: count, history_view: users, "
            "history_group_by: [user_idd]}]\n"
        ),
        at(10, "aggregation_specs[0].history_group_by", "spec a: unknown column 'user_idd' of view users. "
           "Did you mean 'user_id'?"),
    ),
    (
        extended("aggregation_specs: [{name: a, group_by: [user_id], operation: list, value_column: kind}]\n"),
        at(10, "aggregation_specs[0].value_column", "spec a: unknown column 'kind'. Known: artwork_id, author, "
           "country, event, event_timestamp, session, user_id. Columns of joined views must stand in static_columns."),
    ),
    (
        extended(
            "aggregation_specs: [{name: a, group_by: [user_id], operation: count, condition: \"event = 'x'\"}]\n"
        ),
        at(10, "aggregation_specs[0].condition", "unqualified name event in \"event = 'x'\". Write hist.event."),
    ),
    (
        extended("aggregation_specs: [{name: a, group_by: [user_id], operation: count, condition: hist.event}]\n"),
        at(10, "aggregation_specs[0].condition", "'hist.event' is VARCHAR, not a condition. Compare it with a value."),
    ),
    (
        extended("derived: [{name: d, sql: \"cuntry > 3\"}]\n"),
        at(10, "derived[0].sql", "unknown column cuntry in 'cuntry > 3'. Did you mean 'country'? "
           "A rolling column must stand in columns, as rolling:name."),
    ),
    (
        extended("derived: [{name: d, sql: \"now() > event_timestamp\"}]\n"),
        at(10, "derived[0].sql", "now() is volatile: it gives another value at another time or place in "
           "'now() > event_timestamp'. Use columns and constants only."),
    ),
    (
        extended("derived: [{name: d, sql: \"country + tags\"}]\n"),
        at(10, "derived[0].sql", "'country + tags' does not fit its columns. DuckDB says: Binder Error: No function "
           "matches the given name and argument types '+(INTEGER, VARCHAR[])'. "
           "You might need to add explicit type casts."),
    ),
    (
        extended("derived: [{name: d, sql: 'NULL'}]\n"),
        at(10, "derived[0].sql", "the expression is always NULL. Cast it: CAST(NULL AS BIGINT)."),
    ),
    (
        extended("derived: [{name: b, sql: c + 1}, {name: c, sql: country}]\n"),
        at(10, "derived[0].sql", "unknown column c in 'c + 1'. Known: age, artwork_id, artworks__artwork_id, "
           "artworks__author, author, country, event, event_timestamp, ingested, kind, published_at, registered_at, "
           "... (7 more). A rolling column must stand in columns, as rolling:name."),
    ),
    (
        extended("curation: [{name: c, column: kindd, sql: kind}]\n"),
        at(10, "curation[0].column", "unknown column 'kindd'. Did you mean 'kind'? A new column goes under derived."),
    ),
    (
        extended("curation: [{name: c, column: kind, sql: age}]\n"),
        at(10, "curation[0].sql", "the expression is INTEGER, but kind is VARCHAR. Cast it: CAST(... AS VARCHAR)."),
    ),
    (
        extended("curation: [{name: c, column: kind}]\n"),
        at(10, "curation[0]", "sql is missing"),
    ),
    (
        extended("content_filter: [{name: f, sql: age}]\n"),
        at(10, "content_filter[0].sql", "a content filter is a condition, but this is INTEGER. Compare with a value."),
    ),
    (
        extended("content_filter: [{name: f, sql: true}]\n"),
        at(10, "content_filter[0].sql", 'sql is true, not text. YAML reads it as a boolean: quote it ("true").'),
    ),
    (
        extended("serving_allowed: on\n"),
        at(10, "serving_allowed", "serving_allowed is 'on', not true or false. Write true."),
    ),
    (
        extended("views_: []\n"),
        at(10, "views_", "unknown key 'views_'. Did you mean 'views'?"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), SERVICE_CASES)
def test_services(project: Path, text: str, message: str) -> None:
    found = problems(project, {"services/ranking.yaml": text})
    assert found == [message]


def test_an_ambiguous_name_must_be_qualified(project: Path) -> None:
    text = extended("content_filter: [{name: f, sql: artworks__author = author}]\n")
    write(project, {"services/ranking.yaml": text})
    assert load().service("ranking").content_filter


def test_names_that_stand_twice(project: Path) -> None:
    found = problems(project, {"views/more.yaml": USERS, "services/more.yaml": SERVICE})
    assert found == [
        "views/users.yaml:1, $.name: view users: the view 'users' is defined twice. The other is views/more.yaml.",
        "services/ranking.yaml:1, $.name: service ranking: the service 'ranking' is defined twice. "
        "The other is services/more.yaml.",
    ]


def test_every_problem_of_every_file_at_once(project: Path) -> None:
    files = {
        "views/events.yaml": EVENTS.replace("dtype: INTEGER", "dtype: INTEGR").replace("source", "sauce"),
        "views/users.yaml": "name: [",
        "views/artworks.yaml": ARTWORKS.replace("entity: artwork", "entity: art\nowner: 3"),
        "services/ranking.yaml": SERVICE.replace("users:age", "artwork:kind").replace(
            "- artworks", "- artwork"
        )
        + "derived: [{name: d, sql: 'now()'}]\ncontent_filter: [{name: f}]\n",
        "services/other.yaml": "name: other\nspine: nowhere\n",
    }
    write(project, files)
    with pytest.raises(DefinitionError) as caught:
        load()
    assert str(caught.value) == GOLDEN
    assert caught.value.to_dict()["problems"][0]["what"] == "unknown entity 'art'"


GOLDEN = """\
11 problems in the definitions:
  - views/artworks.yaml:2, $.entity: view artworks: unknown entity 'art'. Did you mean 'artwork'? Others go into entities.yaml.
  - views/artworks.yaml:3, $.owner: view artworks: owner is 3, not text. YAML reads it as a number: quote it ("3").
  - views/events.yaml:3, $.sauce: view events: unknown key 'sauce'. Did you mean 'source'?
  - views/events.yaml:1, $: view events: source is missing. Write source: {path: folder_or_file}, or {database_path: ..., table_name: ...}.
  - views/events.yaml:7, $.fields[2].dtype: view events: unknown dtype 'INTEGR'. Did you mean 'INTEGER' or 'UINTEGER' or 'INTERVAL'?
  - views/users.yaml:2: not valid YAML: while parsing a flow node did not find expected node content
  - services/other.yaml:1, $: service other: version is missing
  - services/other.yaml:2, $.spine: service other: unknown view 'nowhere'. Known: artworks, events.
  - services/ranking.yaml:11, $.content_filter[0]: service ranking: sql is missing
  - services/ranking.yaml:6, $.views[1].view: service ranking: unknown view 'artwork'. Did you mean 'artworks'?
  - services/ranking.yaml:10, $.derived[0].sql: service ranking: now() is volatile: it gives another value at another time or place in 'now()'. Use columns and constants only."""


def test_a_broken_view_is_not_blamed_on_its_services(project: Path) -> None:
    assert problems(project, {VIEW: USERS.replace("name: age", "nam: age")}) == [
        "views/users.yaml:11, $.fields[0].nam: view users: unknown key 'nam'. Did you mean 'name'?",
        "views/users.yaml:11, $.fields[0]: view users: name is missing",
    ]


def test_lines_follow_aliases_and_multiline_texts(project: Path) -> None:
    text = (
        SERVICE
        + """\
curation:
  - name: one
    column: kind
    sql: >
      upper(
        kindd)
  - &two
    name: two
    column: kind
    sql: nope
  - *two
"""
    )
    found = problems(project, {"services/ranking.yaml": text})
    assert [one.split(": ")[0] for one in found] == [
        "services/ranking.yaml:17, $.curation[2].name",
        "services/ranking.yaml:13, $.curation[0].sql",
        "services/ranking.yaml:19, $.curation[1].sql",
        "services/ranking.yaml:19, $.curation[2].sql",
    ]
