"""The grammar of dtypes: text to a small tree and back to the one canonical spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from daedalus.errors import DefinitionError, did_you_mean

#: Canonical scalar names.
SCALARS = (
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
    "HALF_FLOAT",
    "FLOAT",
    "DOUBLE",
    "VARCHAR",
    "BLOB",
    "UUID",
    "DATE",
    "TIME",
    "TIME_NS",
    "TIMESTAMP",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "TIMESTAMPTZ",
    "INTERVAL",
)

#: Other spellings that DuckDB (or, for half floats, Arrow) uses.
ALIASES = {
    "BOOL": "BOOLEAN",
    "LOGICAL": "BOOLEAN",
    "INT1": "TINYINT",
    "INT2": "SMALLINT",
    "INT16": "SMALLINT",
    "SHORT": "SMALLINT",
    "INT": "INTEGER",
    "INT4": "INTEGER",
    "INT32": "INTEGER",
    "SIGNED": "INTEGER",
    "INT8": "BIGINT",
    "INT64": "BIGINT",
    "LONG": "BIGINT",
    "UINT8": "UTINYINT",
    "UINT16": "USMALLINT",
    "UINT32": "UINTEGER",
    "UINT64": "UBIGINT",
    "INT128": "HUGEINT",
    "HALF": "HALF_FLOAT",
    "HALFFLOAT": "HALF_FLOAT",
    "FLOAT16": "HALF_FLOAT",
    "REAL": "FLOAT",
    "FLOAT4": "FLOAT",
    "FLOAT8": "DOUBLE",
    "DOUBLE PRECISION": "DOUBLE",
    "TEXT": "VARCHAR",
    "STRING": "VARCHAR",
    "CHAR": "VARCHAR",
    "BPCHAR": "VARCHAR",
    "NVARCHAR": "VARCHAR",
    "CHARACTER VARYING": "VARCHAR",
    "BYTEA": "BLOB",
    "BINARY": "BLOB",
    "VARBINARY": "BLOB",
    "GUID": "UUID",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP_US": "TIMESTAMP",
    "TIMESTAMP WITHOUT TIME ZONE": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
}

_REFUSED = {
    "ENUM": "Declare VARCHAR; a source's ENUM column reads as text.",
    "JSON": "Declare VARCHAR; json functions read it.",
    "UHUGEINT": "Arrow has no such integer: declare HUGEINT or DECIMAL(38,0).",
    "BIGNUM": "Declare DECIMAL(p,s) or VARCHAR.",
    "BIT": "Declare VARCHAR or BLOB.",
    "UNION": "Declare a STRUCT with one field per member.",
    "VARIANT": "Declare VARCHAR, or the STRUCT that it holds.",
    "GEOMETRY": "Declare BLOB.",
    "TIMETZ": "Declare TIME, in UTC.",
    "TIME WITH TIME ZONE": "Declare TIME, in UTC.",
    "LIST": "Write the element's dtype with brackets: BIGINT[].",
    "ARRAY": "Write the element's dtype with brackets: FLOAT[3].",
    "NULL": "Declare the type that the values would have.",
}

#: What Python, NumPy, pandas and Arrow call them.
_ELSEWHERE = {
    "STR": "TEXT",
    "OBJECT": "TEXT",
    "CATEGORY": "TEXT",
    "UTF8": "TEXT",
    "LARGE_STRING": "TEXT",
    "FLOAT32": "FLOAT",
    "FLOAT64": "DOUBLE",
    "BYTES": "BLOB",
    "DATETIME64": "TIMESTAMP",
}

_MULTIWORD = tuple(name.split() for name in (*ALIASES, *_REFUSED) if " " in name)
_TOKEN = re.compile(
    r'\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<quoted>"(?:""|[^"])+")|(?P<int>\d+)|(?P<mark>[()\[\],]))'
)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_DEPTH = 40
_MAX_LIST_SIZE = 100_000


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type without parts; the name is canonical."""

    name: str


@dataclass(frozen=True, slots=True)
class DecimalType:
    """A decimal of `precision` digits, `scale` of them after the point."""

    precision: int
    scale: int


@dataclass(frozen=True, slots=True)
class ListType:
    """A list; `size` is None when its length varies."""

    element: Dtype
    size: int | None


@dataclass(frozen=True, slots=True)
class StructType:
    """Named fields, in order."""

    fields: tuple[tuple[str, Dtype], ...]


@dataclass(frozen=True, slots=True)
class MapType:
    """Keys to values."""

    key: Dtype
    value: Dtype


Dtype = Scalar | DecimalType | ListType | StructType | MapType


def spell(dtype: Dtype) -> str:
    """The canonical spelling of a dtype."""
    match dtype:
        case Scalar(name=name):
            return name
        case DecimalType(precision=precision, scale=scale):
            return f"DECIMAL({precision},{scale})"
        case ListType(element=element, size=size):
            return f"{spell(element)}[{'' if size is None else size}]"
        case StructType(fields=fields):
            return "STRUCT(" + ", ".join(f"{_field_name(name)} {spell(part)}" for name, part in fields) + ")"
        case MapType(key=key, value=value):
            return f"MAP({spell(key)}, {spell(value)})"


def _field_name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


@lru_cache(maxsize=4096)
def parse_dtype(text: str) -> Dtype:
    """The dtype that a text spells; DefinitionError with a near match or a mend."""
    return _Parser(text).whole()


class _Parser:
    """Recursive descent over the tokens of one dtype."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        end = 0
        first = re.match(r"\s*(\w+)", text)
        if first is not None and first[1].upper() in _REFUSED:
            # Before its arguments, which follow a grammar of their own.
            raise self.error("Daedalus does not support it", _REFUSED[first[1].upper()])
        stripped = text.rstrip()
        while end < len(stripped):
            match = _TOKEN.match(stripped, end)
            if match is None:
                raise self.error(f"unexpected {stripped[end:].strip()[:1]!r}")
            self.tokens.append((match.lastgroup or "", match.group().strip()))
            end = match.end()

    def error(self, detail: str = "", hint: str = "") -> DefinitionError:
        suffix = f": {detail}" if detail else ""
        shown = self.text if len(self.text) <= 80 else self.text[:77] + "..."
        return DefinitionError(f"unknown dtype {shown!r}{suffix}", hint=hint)

    def whole(self) -> Dtype:
        if not self.tokens:
            raise self.error("it is empty", "Write a DuckDB type, such as BIGINT or VARCHAR[].")
        dtype = self.dtype(0)
        if self.at < len(self.tokens):
            raise self.error(f"unexpected {self.tokens[self.at][1]!r}")
        return dtype

    def dtype(self, depth: int) -> Dtype:
        if depth > _MAX_DEPTH:
            raise self.error("it is nested too deep")
        dtype = self.base(depth)
        while self.take("["):
            size = self.integer() if self.peek()[0] == "int" else None
            if size is not None and not 1 <= size <= _MAX_LIST_SIZE:
                raise self.error(f"a fixed list has 1 to {_MAX_LIST_SIZE} items")
            self.expect("]")
            dtype = ListType(dtype, size)
            depth += 1
            if depth > _MAX_DEPTH:
                raise self.error("it is nested too deep")
        return dtype

    def base(self, depth: int) -> Dtype:
        name = self.name()
        if name in {"STRUCT", "ROW"}:
            return self.struct(depth)
        if name == "MAP":
            self.expect("(")
            key = self.dtype(depth + 1)
            self.expect(",")
            value = self.dtype(depth + 1)
            self.expect(")")
            return MapType(key, value)
        if name in {"DECIMAL", "NUMERIC", "DEC"}:
            return self.decimal()
        if name in _REFUSED:
            raise self.error("Daedalus does not support it", _REFUSED[name])
        canonical = ALIASES.get(name, name)
        if canonical not in SCALARS:
            meant = _ELSEWHERE.get(name, name)
            raise self.error(hint=did_you_mean(meant, (*SCALARS, "TEXT", "INT", "STRUCT", "MAP", "DECIMAL")))
        if canonical == "VARCHAR" and self.take("("):
            # DuckDB accepts a length and ignores it; so does this.
            self.integer()
            self.expect(")")
        return Scalar(canonical)

    def name(self) -> str:
        kind, text = self.peek()
        if kind not in {"name", "quoted"}:
            raise self.error(f"a type name is missing before {text!r}" if text else "a type name is missing")
        self.at += 1
        words = [text.strip('"').upper()]
        following = [token.upper() for _, token in self.tokens[self.at : self.at + 3]]
        for names in sorted(_MULTIWORD, key=len, reverse=True):
            if words + following[: len(names) - 1] == names:
                self.at += len(names) - 1
                return " ".join(names)
        return words[0]

    def struct(self, depth: int) -> StructType:
        self.expect("(")
        fields: list[tuple[str, Dtype]] = []
        while True:
            kind, text = self.peek()
            if kind not in {"name", "quoted"}:
                raise self.error("a STRUCT field needs a name", "Write STRUCT(a BIGINT, b VARCHAR).")
            self.at += 1
            name = text[1:-1].replace('""', '"') if kind == "quoted" else text
            if name.lower() in {known.lower() for known, _ in fields}:
                raise self.error(f"the field {name} stands twice")
            fields.append((name, self.dtype(depth + 1)))
            if not self.take(","):
                break
        self.expect(")")
        return StructType(tuple(fields))

    def decimal(self) -> DecimalType:
        precision, scale = 18, 3
        if self.take("("):
            precision, scale = self.integer(), 0
            if self.take(","):
                scale = self.integer()
            self.expect(")")
        if not 1 <= precision <= 38 or scale > precision:
            raise self.error("a DECIMAL has 1 to 38 digits, and not more after the point than in all")
        return DecimalType(precision, scale)

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("", "")

    def take(self, mark: str) -> bool:
        if self.peek() == ("mark", mark):
            self.at += 1
            return True
        return False

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            found = self.peek()[1]
            raise self.error(f"expected {mark!r}" + (f" before {found!r}" if found else " at the end"))

    def integer(self) -> int:
        kind, text = self.peek()
        if kind != "int" or len(text) > 9:
            raise self.error(f"expected a whole number, got {text!r}")
        self.at += 1
        return int(text)
