"""The comparisons of two logical schemas, part by part; `versioning` makes changes of what they yield.

References are compared by what they mean: an alias or a step that was only renamed is not another source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.sql.equality import same_expression
from daedalus.sql.identifiers import quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daedalus.catalog.logical_schema import Schema

BREAKING, ADDITIVE, COSMETIC = "breaking", "additive", "cosmetic"
#: (path, kind, before, after, reason)
Found = tuple[str, str, Any, Any, str]

_OTHER_VALUES = "the column's values are computed otherwise"
_OTHER_ROWS = "other rows are in the training set"
_SQL_KEYS = ("sql", "condition")
#: By join mode: what decides what can be seen at an instant, and nothing of a training set.
_ONLY_MATERIALIZED = {"spine": ("delay_seconds", "ttl_seconds"), "latest": ("delay_seconds",)}


@dataclass(frozen=True, slots=True)
class Pair:
    """A locked schema and the one now.

    Attributes:
        aliases: names of views now to the locked name of the same join.
        renamed: references to computed columns now to the locked reference of the same computation.
    """

    locked: Schema
    current: Schema
    aliases: dict[str, str]
    renamed: dict[str, str]

    @classmethod
    def of(cls, locked: Schema, current: Schema) -> Pair:
        """Match the views and the computed columns of both."""
        old, new = locked.get("views", {}), current.get("views", {})
        aliases = {name: name for name in new if name in old}
        for name in (one for one in new if one not in old):
            same = [other for other in old if other not in new and _lookup(old, other) == _lookup(new, name)]
            if len(same) == 1 and same[0] not in aliases.values():
                aliases[name] = same[0]
        pair = cls(locked, current, aliases, {})
        while pair._match_one():
            pass
        return pair

    def _match_one(self) -> bool:
        """Find one more computed column that only got another name; others may read it."""
        old, new = self.locked.get("computed", {}), self.current.get("computed", {})
        for name in (one for one in new if one not in old and one not in self.renamed):
            for other in (one for one in old if one not in new and one not in self.renamed.values()):
                same_kind = name.partition(":")[0] == other.partition(":")[0]
                found = _body(self, "", old[other], new[name]) if same_kind else ()
                if same_kind and all(kind == COSMETIC for _, kind, *_ in found):
                    self.renamed[name] = other
                    return True
        return False

    def ref(self, text: str) -> str:
        """A reference of the current schema in the words of the locked one."""
        if text in self.renamed:
            return self.renamed[text]
        alias, colon, column = text.partition(":")
        return f"{self.aliases.get(alias, alias)}{colon}{column}"

    def reads(self, body: Mapping[str, Any], *, current: bool) -> dict[str, str]:
        """What each column name of an expression stands for; `hist.x` is found under `x`, too."""
        found = {str(name): str(text).partition(" ") for name, text in body.get("reads", {}).items()}
        meant = {
            name: f"{self.ref(ref) if current else ref}{space}{dtype}"
            for name, (ref, space, dtype) in found.items()
        }
        return meant | {name.removeprefix("hist."): text for name, text in meant.items()}


def _lookup(views: Mapping[str, Any], alias: str) -> tuple[Any, ...]:
    entry = views[alias]
    return entry.get("view", alias), entry.get("join"), tuple(sorted(entry.get("on", {}).items()))


# ---------------------------------------------------------------------- the service


def service_words(pair: Pair) -> Iterator[Found]:
    """Owner, description, tags and version: words beside the contract."""
    for key in ("owner", "description", "tags"):
        yield from _plain(pair, key, COSMETIC, "no value changes")
    yield from _plain(pair, "version", COSMETIC, "the version is a name")


def service_rows(pair: Pair) -> Iterator[Found]:
    """What a row is, and who may read it."""
    yield from _plain(pair, "spine", BREAKING, "the rows come from another view")
    before, after = pair.locked.get("grain", []), pair.current.get("grain", [])
    if sorted(map(str, before)) != sorted(map(str, after)):
        yield "grain", BREAKING, before, after, "a row stands for something else"
    elif before != after:
        yield "grain", COSMETIC, before, after, "the same columns in another order"
    before, after = pair.locked.get("session_column", ""), pair.current.get("session_column", "")
    if before != after and not before:
        yield "session_column", ADDITIVE, None, after, "qid is appended as the last column"
    elif before != after:
        reason = "qid is gone" if not after else "qid numbers other sessions"
        yield "session_column", BREAKING, before, after or None, reason
    if pair.locked.get("serving_allowed") and not pair.current.get("serving_allowed"):
        yield "serving_allowed", BREAKING, True, False, "online readers are refused from now on"
    elif pair.current.get("serving_allowed") and not pair.locked.get("serving_allowed"):
        yield "serving_allowed", ADDITIVE, False, True, "online readers are allowed from now on"


def _plain(pair: Pair, key: str, kind: str, reason: str) -> Iterator[Found]:
    before, after = pair.locked.get(key), pair.current.get(key)
    if before != after:
        yield key, kind, before, after, reason


# ---------------------------------------------------------------------- views


def views(pair: Pair) -> Iterator[Found]:
    """How the joined views are looked up."""
    old, new = pair.locked.get("views", {}), pair.current.get("views", {})
    kept = set()
    for name, entry in new.items():
        before = pair.aliases.get(name)
        if before is None:
            yield f"views.{name}", ADDITIVE, None, entry, "the view is joined for what else is new"
            continue
        kept.add(before)
        if before != name:
            yield f"views.{before}", COSMETIC, before, name, "the same view under another alias"
        yield from _view(before, old[before], entry, served=bool(pair.locked.get("serving_allowed")))
    for name in old:
        if name not in kept:
            yield f"views.{name}", COSMETIC, old[name], None, "no column reads it any more"
    yield from _entries("histories", pair, "the history is read by other times")


def _view(name: str, old: Mapping[str, Any], new: Mapping[str, Any], *, served: bool) -> Iterator[Found]:
    reasons = {
        "join": "another version of the view's row is looked up",
        "on": "rows are matched by other keys",
        "keys": "the view's rows are keyed otherwise",
    }
    for key in sorted({*old, *new}):
        if key == "view":
            before, after = old.get("view", name), new.get("view", name)
        else:
            before, after = old.get(key), new.get(key)
        if key == "keys" and old.get("join") == "spine" and before != after:
            yield f"views.{name}.keys", BREAKING, before, after, "the spine's entities are keyed otherwise"
        elif (
            before != after
            and key in _ONLY_MATERIALIZED.get(old.get("join", ""), ())
            and old["join"] == new["join"]
        ):
            kind = BREAKING if served else COSMETIC
            reason = "other rows or values are materialized and served; training sets stay as they are"
            yield f"views.{name}.{key}", kind, before, after, reason
        elif before != after:
            reason = reasons.get(key, "another version of the view's row is looked up")
            yield f"views.{name}.{key}", BREAKING, before, after, reason


def _entries(section: str, pair: Pair, reason: str) -> Iterator[Found]:
    old, new = pair.locked.get(section, {}), pair.current.get(section, {})
    for name in sorted({*old, *new}):
        if name in old and name in new:
            for key in sorted({*old[name], *new[name]}):
                before, after = old[name].get(key), new[name].get(key)
                if before != after:
                    yield f"{section}.{name}.{key}", BREAKING, before, after, reason


# ---------------------------------------------------------------------- columns


def columns(pair: Pair) -> Iterator[Found]:
    """The ordered contract: a locked column keeps its name, type, source and position."""
    old = {column["name"]: column for column in pair.locked.get("columns", [])}
    new = {column["name"]: column for column in pair.current.get("columns", [])}
    for name, column in old.items():
        if name not in new:
            yield f"columns.{name}", BREAKING, _short(column), None, "models that read the column lose it"
        else:
            yield from _column(pair, column, new[name])
    kept = [name for name in new if name in old]
    last = list(new).index(kept[-1]) if kept else -1
    for position, name in enumerate(new):
        if name in old:
            continue
        if position < last:
            reason = "inserted before locked columns, which move; at the end of columns it would be additive"
            yield f"columns.{name}", BREAKING, None, _short(new[name]), reason
        else:
            yield f"columns.{name}", ADDITIVE, None, _short(new[name]), "a new column after the locked ones"
    order = [name for name in old if name in new]
    if order != kept:
        yield "columns", BREAKING, order, kept, "the locked columns stand in another order"


def _column(pair: Pair, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Found]:
    name = old["name"]
    before, after = old.get("dtype", ""), new.get("dtype", "")
    if before != after:
        yield f"columns.{name}.dtype", BREAKING, before, after, "readers meet another type"
    before, after = old.get("dimension"), new.get("dimension")
    if before is None and after is not None:
        yield f"columns.{name}.dimension", ADDITIVE, None, after, "the lists' length is promised from now on"
    elif before != after:
        yield f"columns.{name}.dimension", BREAKING, before, after, "the lists have another length"
    before, after = old.get("nullable", True), new.get("nullable", True)
    if before != after:
        reason = "NULL may appear" if after else "what was NULL is filled or refused"
        yield f"columns.{name}.nullable", BREAKING, before, after, reason
    if not _same_default(old, new):
        before = old.get("default", old.get("default_sql"))
        after = new.get("default", new.get("default_sql"))
        yield f"columns.{name}.default", BREAKING, before, after, "absent values are filled otherwise"
    before, after = old.get("ref", ""), new.get("ref", "")
    if before != pair.ref(after):
        yield f"columns.{name}.ref", BREAKING, before or None, after or None, _OTHER_VALUES
    elif before.partition(":")[2] != after.partition(":")[2]:
        yield f"columns.{name}.ref", COSMETIC, before, after, "the same computation under another name"


def _same_default(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    left, right = old.get("default"), new.get("default")
    if left is not None and left == right and isinstance(left, bool) == isinstance(right, bool):
        return True  # 0 and 0.0 are one default
    before, after = _default_sql(old), _default_sql(new)
    return before == after or (bool(before) and bool(after) and same_expression(before, after))


def _default_sql(column: Mapping[str, Any]) -> str:
    if "default_sql" in column:
        return str(column["default_sql"])
    return quote_literal(column["default"]) if "default" in column else ""


def _short(column: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in column.items() if key != "name"}


# ---------------------------------------------------------------------- computed columns and steps


def computed(pair: Pair) -> Iterator[Found]:
    """How computed columns are computed."""
    old, new = pair.locked.get("computed", {}), pair.current.get("computed", {})
    outputs = {
        column.get("ref") for side in (pair.locked, pair.current) for column in side.get("columns", [])
    }
    for name in sorted({*old, *new}):
        if name in old and name in new:
            yield from _body(pair, f"computed.{name}", old[name], new[name])
        elif name in pair.renamed:
            yield from _body(pair, f"computed.{name}", old[pair.renamed[name]], new[name])
        elif name in outputs or name in pair.renamed.values():
            continue  # the column itself is new, gone, or reads another
        elif name in new:
            yield f"computed.{name}", ADDITIVE, None, new[name], "computed for what else is new"
        else:
            yield f"computed.{name}", COSMETIC, old[name], None, "nothing reads it any more"


def _body(pair: Pair, path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Found]:
    """The changed keys of one computation; its expressions by meaning."""
    before, after = pair.reads(old, current=False), pair.reads(new, current=True)
    texts_differ = False
    for key in sorted({*old, *new} - {"reads"}):
        left, right = old.get(key), new.get(key)
        if key in _SQL_KEYS and isinstance(left, str) and isinstance(right, str):
            if not same_expression(left, right, left_names=before, right_names=after):
                yield f"{path}.{key}", BREAKING, left, right, _OTHER_VALUES
                texts_differ = True
            elif left != right:
                yield f"{path}.{key}", COSMETIC, left, right, "the same expression, written otherwise"
        elif key in {"created", "source_id_column", "value_column", "group_by"}:
            if _meant(left, before) != _meant(right, after):
                yield f"{path}.{key}", BREAKING, left, right, _OTHER_VALUES
                texts_differ = True
        elif left != right:
            yield f"{path}.{key}", BREAKING, left, right, _OTHER_VALUES
    if not texts_differ and sorted(set(before.values())) != sorted(set(after.values())):
        yield f"{path}.reads", BREAKING, old.get("reads"), new.get("reads"), "it reads other columns or types"


def _meant(value: Any, reads: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [reads.get(str(one), one) for one in value]
    return reads.get("created" if ":" in str(value) else str(value), value)


def curation(pair: Pair) -> Iterator[Found]:
    """Steps that rewrite columns, in order."""
    yield from _steps(pair, "curation", ordered=True, reason=_OTHER_VALUES)


def content_filter(pair: Pair) -> Iterator[Found]:
    """Steps that drop rows; all must hold, so their order says nothing."""
    yield from _steps(pair, "content_filter", ordered=False, reason=_OTHER_ROWS)


def _steps(pair: Pair, section: str, *, ordered: bool, reason: str) -> Iterator[Found]:
    old, new = list(pair.locked.get(section, [])), list(pair.current.get(section, []))
    matched: list[int] = []
    left: list[Any] = []
    for step in old:
        same = [n for n, other in enumerate(new) if n not in matched and _same_step(pair, step, other)]
        if not same:
            left.append(step)
            continue
        matched.append(same[0])
        if step["name"] != new[same[0]]["name"]:
            path = f"{section}.{step['name']}"
            yield path, COSMETIC, step["name"], new[same[0]]["name"], "the same step under another name"
    added = {step["name"]: step for n, step in enumerate(new) if n not in matched}
    for step in left:
        other = added.pop(step["name"], {})
        path = f"{section}.{step['name']}"
        key = next(
            (key for key in ("sql", "column", "reads") if other and step.get(key) != other.get(key)), "sql"
        )
        yield (f"{path}.{key}" if other else path), BREAKING, step.get(key), other.get(key), reason
    for name, step in added.items():
        yield f"{section}.{name}", BREAKING, None, step["sql"], reason
    if ordered and matched != sorted(matched):
        names = [step["name"] for step in old], [step["name"] for step in new]
        yield (
            section,
            BREAKING,
            *names,
            "the steps run in another order, and later ones read what earlier ones made",
        )


def _same_step(pair: Pair, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    before, after = pair.reads(old, current=False), pair.reads(new, current=True)
    return (
        before.get(old.get("column", ""), old.get("column"))
        == after.get(new.get("column", ""), new.get("column"))
        and sorted(set(before.values())) == sorted(set(after.values()))
        and same_expression(old["sql"], new["sql"], left_names=before, right_names=after)
    )


def session_filter(pair: Pair) -> Iterator[Found]:
    """Which sessions are dropped."""
    old, new = pair.locked.get("session_filter", {}), pair.current.get("session_filter", {})
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before != after:
            yield f"session_filter.{key}", BREAKING, before, after, _OTHER_ROWS


#: Every comparison, in the order in which changes of one kind are listed.
COMPARISONS: tuple[Callable[[Pair], Iterator[Found]], ...] = (
    columns,
    computed,
    views,
    service_rows,
    session_filter,
    curation,
    content_filter,
    service_words,
)
