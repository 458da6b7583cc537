"""Casts as SQL that lose nothing: the value in the declared type, and the condition that it is the source's.

numbers, times, nested    cast there and back: the same value
text                      whole numbers spelled as DuckDB spells them, no digit more than a DECIMAL or a time
                          holds; an instant with an offset is that instant in UTC; DOUBLE and FLOAT are the
                          nearest ones; lists and structs by their items
JSON (VARIANT)            as text by its items; VARCHAR is the JSON text; JSON null is NULL
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from daedalus.catalog.dtype_tree import (
    DecimalType,
    Dtype,
    ListType,
    MapType,
    Scalar,
    StructType,
    parse_dtype,
    spell,
)
from daedalus.catalog.dtypes import INTEGERS, to_duckdb
from daedalus.sql.identifiers import quote_ident, quote_literal

#: Digits after the point that a type holds.
_TIME_DIGITS = {"TIMESTAMP": 6, "TIMESTAMPTZ": 6, "TIMESTAMP_NS": 9, "TIME": 6, "TIME_NS": 9, "DATE": 6}
_TIME_DIGITS |= {"TIMESTAMP_S": 6, "TIMESTAMP_MS": 6}
#: Significant digits after which a text says more than the float can.
_FLOAT_DIGITS = {"HALF_FLOAT": 9, "FLOAT": 9, "DOUBLE": 17}
#: A text of JSON; a number of it with a fraction or an exponent.
_JSON_STRING = r'"(?:[^"\\]|\\.)*"'
_JSON_FRACTION = r"\d+(?:\.\d+(?:[eE][-+]?\d+)?|[eE][-+]?\d+)"
_JSON_BLANKS = "' ' || chr(9) || chr(10) || chr(13)"
_COARSE = ("DATE", "TIMESTAMP_S", "TIMESTAMP_MS")
_DOUBLE_DIGITS = 15
_NS_YEARS = ("TIMESTAMP '1677-09-22 00:00:00'", "TIMESTAMP '2262-04-11 00:00:00'")
#: What DuckDB calls some types, and we do.
_SPELLINGS = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ", "TIME WITH TIME ZONE": "TIMETZ"}
_TEXTS = re.compile(r"^VARCHAR(\[\d*\])+$")
_SUFFIX = re.compile(r"(\[\d*\])*$")


def spelled(source_type: str) -> str:
    """DuckDB's name of a type in our spelling, so that equal types are equal texts.

    >>> spelled("TIMESTAMP WITH TIME ZONE[]")
    'TIMESTAMPTZ[]'
    """
    at = _SUFFIX.search(source_type)
    suffix = at[0] if at else ""
    bare = source_type[: len(source_type) - len(suffix)]
    return _SPELLINGS.get(bare, bare) + suffix


@dataclass(frozen=True, slots=True)
class CheckedCast:
    """A cast as two expressions.

    Attributes:
        value: the value in the declared type; NULL where it cannot be.
        fits: whether `value` is the source's value (which is not NULL).
    """

    value: str
    fits: str


def checked_cast(raw: str, source_type: str, dtype: str) -> CheckedCast:
    """The cast of `raw`, an expression of DuckDB type `source_type`, to the DuckDB type `dtype`."""
    if source_type == "VARCHAR":
        return _of_text(raw, parse_dtype(dtype))
    if source_type == "JSON":
        return _of_json(raw, parse_dtype(dtype))
    if source_type.startswith("ENUM("):
        return _of_text(f"CAST({raw} AS VARCHAR)", parse_dtype(dtype))
    if _TEXTS.match(source_type):
        declared = parse_dtype(dtype)
        if isinstance(declared, ListType) and _texts(declared).count("[") == source_type.count("["):
            return _of_items(f"TRY_CAST({raw} AS {_texts(declared)})", declared, 0)
    value = f"TRY_CAST({raw} AS {dtype})"
    if dtype == "TIMESTAMP_NS" and source_type.startswith(("TIMESTAMP", "DATE")):
        # Outside these years DuckDB raises where TRY_CAST should give NULL.
        value = f"CASE WHEN {raw} BETWEEN {_NS_YEARS[0]} AND {_NS_YEARS[1]} THEN {value} END"
    back = f"TRY_CAST({value} AS {source_type}) IS NOT DISTINCT FROM {raw}"
    return CheckedCast(value, f"({value} IS NOT NULL AND {back})")


# ------------------------------------------------------------------ text


def _of_text(text: str, dtype: Dtype, depth: int = 0) -> CheckedCast:
    if isinstance(dtype, ListType | StructType | MapType):
        return _of_items(f"TRY_CAST({text} AS {_texts(dtype)})", dtype, depth)
    if dtype == Scalar("VARCHAR"):
        return CheckedCast(text, "TRUE")
    value = _scalar(text, dtype)
    return CheckedCast(value, f"({value} IS NOT NULL AND {_nothing_lost(text, value, dtype)})")


def _scalar(text: str, dtype: Dtype) -> str:
    name = dtype.name if isinstance(dtype, Scalar) else ""
    if name in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS"):
        # Read as an instant of a zone (sessions are in UTC): a cast to TIMESTAMP forgets the offset.
        instant = f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS TIMESTAMP)"
        return instant if name == "TIMESTAMP" else f"TRY_CAST({instant} AS {name})"
    return f"TRY_CAST({text} AS {_duckdb(dtype)})"


def _nothing_lost(text: str, value: str, dtype: Dtype) -> str:
    if isinstance(dtype, DecimalType):
        return _decimal_kept(text, value, dtype)
    name = dtype.name if isinstance(dtype, Scalar) else ""
    if name in INTEGERS:
        return f"CAST({value} AS VARCHAR) = {text}"
    if name in _FLOAT_DIGITS:
        return _float_kept(text, value, _FLOAT_DIGITS[name])
    if name in _TIME_DIGITS:
        digits = rf"[^.]*(\.\d{{1,{_TIME_DIGITS[name]}}}0*(\D.*)?)?"
        kept = f"regexp_full_match({text}, {quote_literal(digits)})"
        if name in ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS"):
            kept += f" AND isfinite(TRY_CAST({value} AS TIMESTAMP))"
        if name in _COARSE:
            kept += f" AND CAST({value} AS TIMESTAMP) = CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS TIMESTAMP)"
        return f"({kept})"
    return "TRUE"


def _float_kept(text: str, value: str, most: int) -> str:
    """No more digits than tell two floats apart; a whole number is the float exactly."""
    digits = f"regexp_replace(regexp_extract({text}, '[0-9.]+'), '^0*[.]?0*|[.]|[.]?0*$', '', 'g')"
    whole = f"regexp_full_match({text}, '[+-]?\\d+')"
    exact = f"TRY_CAST({value} AS HUGEINT) = TRY_CAST({text} AS HUGEINT)"
    short = f"length({digits}) <= {most} AND (NOT isinf({value}) OR {text} ILIKE '%inf%')"
    return f"(CASE WHEN {whole} THEN {exact} ELSE {short} END)"


def _decimal_kept(text: str, value: str, dtype: DecimalType) -> str:
    digits = rf"\s*[+-]?\d*(\.\d{{0,{dtype.scale}}}0*)?\s*"
    kept = f"regexp_full_match({text}, {quote_literal(digits)})"
    if dtype.precision <= _DOUBLE_DIGITS:
        # Spelled with an exponent: few enough digits for a double to tell.
        kept += f" OR ({text} ILIKE '%e%' AND CAST({value} AS DOUBLE) = TRY_CAST({text} AS DOUBLE))"
    return f"({kept})"


# ------------------------------------------------------------------ JSON


def _of_json(raw: str, dtype: Dtype) -> CheckedCast:
    if dtype == Scalar("VARCHAR"):
        return CheckedCast(f"CAST({raw} AS VARCHAR)", "TRUE")
    text = f"CAST({raw} AS VARCHAR)"
    if not isinstance(dtype, ListType | StructType | MapType):
        # A number as it is written: DuckDB would write it anew, as the nearest double.
        written = f"CASE WHEN regexp_matches({text}, '^\\s*[-0-9]') THEN trim({text}, {_JSON_BLANKS})"
        cast = _of_text(f"({written} ELSE json_extract_string({raw}, '$') END)", dtype)
    else:
        cast = _of_items(f"TRY_CAST({raw} AS {_texts(dtype)})", dtype, 0)
        checks = [cast.fits, _no_long_fractions(text), *_only_known_keys(raw, dtype, 0)]
        cast = CheckedCast(cast.value, f"({' AND '.join(checks)})")
    null = f"CAST({raw} AS VARCHAR) = 'null'"
    value = f"CASE WHEN {null} THEN NULL ELSE {cast.value} END"
    return CheckedCast(value, f"({null} OR {cast.fits})")


def _no_long_fractions(text: str) -> str:
    """No number has more digits than DuckDB keeps when it takes a fraction out of JSON; whole numbers it keeps."""
    bare = f"regexp_replace({text}, {quote_literal(_JSON_STRING)}, '', 'g')"
    numbers = f"regexp_extract_all({bare}, {quote_literal(_JSON_FRACTION)})"
    digits = "regexp_replace(regexp_replace(n, '[eE].*|[.]', '', 'g'), '^0+|0+$', '', 'g')"
    return f"len(list_filter({numbers}, lambda n: length({digits}) > {_FLOAT_DIGITS['DOUBLE']})) = 0"


def _only_known_keys(raw: str, dtype: Dtype, depth: int) -> list[str]:
    """That no object has a key which its STRUCT lacks, at any depth."""
    item = f"j{depth}"
    match dtype:
        case StructType(fields=fields):
            known = ", ".join(quote_literal(name) for name, _ in fields)
            checks = [f"coalesce(len(list_filter(json_keys({raw}), lambda k: k NOT IN ({known}))), 0) = 0"]
            for name, part in fields:
                pointer = "/" + name.replace("~", "~0").replace("/", "~1")
                checks += _only_known_keys(f"json_extract({raw}, {quote_literal(pointer)})", part, depth + 1)
            return checks
        case ListType(element=inner):
            items = f"json_extract({raw}, '$[*]')"
        case MapType(value=inner):
            items = f"json_extract({raw}, '$.*')"
        case _:
            return []
    each = " AND ".join(_only_known_keys(item, inner, depth + 1))
    return [f"coalesce(list_bool_and(list_transform({items}, lambda {item}: {each})), TRUE)"] if each else []


# ------------------------------------------------------------------ lists, structs and maps of texts


def _of_items(texts: str, dtype: ListType | StructType | MapType, depth: int) -> CheckedCast:
    """From `texts`, of the same shape with texts as leaves."""
    value = f"TRY_CAST({texts} AS {_duckdb(dtype)})"
    checks = [f"{texts} IS NOT NULL", f"{value} IS NOT NULL"]
    item = f"x{depth}"
    if isinstance(dtype, ListType):
        checks += _each(texts, item, dtype.element, depth)
        if _needs_own_cast(dtype.element):
            one = _of_text(item, dtype.element, depth + 1).value
            made = f"list_transform(CAST({texts} AS VARCHAR[]), lambda {item}: {one})"
            value = made if dtype.size is None else f"TRY_CAST({made} AS {_duckdb(dtype)})"
    elif isinstance(dtype, MapType):
        checks += _each(f"map_keys({texts})", item, dtype.key, depth)
        checks += _each(f"map_values({texts})", item, dtype.value, depth)
    else:
        for name, part in dtype.fields:
            one = f"struct_extract({texts}, {quote_literal(name)})"
            checks.append(f"({one} IS NULL OR {_item_fits(one, part, depth)})")
    return CheckedCast(value, "(" + " AND ".join(checks) + ")")


def _each(texts: str, item: str, dtype: Dtype, depth: int) -> list[str]:
    fits = f"{item} IS NULL OR {_item_fits(item, dtype, depth)}"
    return [f"coalesce(list_bool_and(list_transform({texts}, lambda {item}: {fits})), TRUE)"]


def _item_fits(item: str, dtype: Dtype, depth: int) -> str:
    if isinstance(dtype, ListType | StructType | MapType):
        return _of_items(item, dtype, depth + 1).fits
    return _of_text(item, dtype, depth + 1).fits


def _needs_own_cast(dtype: Dtype) -> bool:
    return isinstance(dtype, Scalar) and dtype.name in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS")


def _texts(dtype: Dtype) -> str:
    """The DuckDB type of the same shape with texts as leaves."""
    match dtype:
        case ListType(element=element, size=size):
            return f"{_texts(element)}[{'' if size is None else size}]"
        case StructType(fields=fields):
            return "STRUCT(" + ", ".join(f"{quote_ident(name)} {_texts(part)}" for name, part in fields) + ")"
        case MapType(key=key, value=value):
            return f"MAP({_texts(key)}, {_texts(value)})"
    return "VARCHAR"


def _duckdb(dtype: Dtype) -> str:
    return to_duckdb(spell(dtype))
