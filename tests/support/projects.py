"""Small projects of definitions, written to a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.catalog.registry import FeatureCatalog

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = """\
name: events
entity: [user, artwork]
source: {path: events, timestamp_field: event_timestamp}
fields:
  - {name: event, dtype: TEXT}
  - {name: session, dtype: TEXT}
  - {name: country, dtype: INTEGER, optional: true}
  - {name: author, dtype: BIGINT}
"""
USERS = """\
name: users
entity: user
ttl: 90d
source:
  path: users
  timestamp_field: updated_at
  created_field: ingested
  sequence_field: seq
field_mapping: {uid: user_id}
fields:
  - {name: age, dtype: INTEGER}
  - {name: registered_at, dtype: TIMESTAMP}
  - {name: tags, dtype: "TEXT[]"}
  - {name: vector, dtype: "FLOAT[4]"}
"""
ARTWORKS = """\
name: artworks
entity: artwork
source: {path: artworks}
fields:
  - {name: author, dtype: BIGINT}
  - {name: kind, dtype: TEXT}
  - {name: published_at, dtype: TIMESTAMPTZ}
"""
SERVICE = """\
name: ranking
version: "2026-06-27"
spine: events
views:
  - {view: users, join: asof}
  - artworks
columns:
  - events:user_id
  - users:age
"""

Files = dict[str, str]
PROJECT: Files = {
    "views/events.yaml": EVENTS,
    "views/users.yaml": USERS,
    "views/artworks.yaml": ARTWORKS,
    "services/ranking.yaml": SERVICE,
}


def write(folder: Path, files: Files) -> None:
    """Write the files below the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def load(**options: Any) -> FeatureCatalog:
    """The catalog of the working directory."""
    return FeatureCatalog.from_yaml_dir("views", services_dir="services", **options)
