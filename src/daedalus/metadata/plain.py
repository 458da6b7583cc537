"""Plain data as records keep it: without secrets."""

from __future__ import annotations

from typing import Any

from daedalus.secrets import MASK, is_secret_name, mask


def cleaned(value: Any) -> Any:
    """Plain data without secrets: masked texts, and nothing under names like `password`.

    >>> cleaned({"api_key": "k", "path": "s3://u:p@host/x", "n": [1]})
    {'api_key': '***', 'path': 's3://u:***@host/x', 'n': [1]}
    """
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {
            key: MASK if isinstance(item, str) and _hides(key, item) else cleaned(item)
            for key, item in value.items()
        }
    return [cleaned(item) for item in value] if isinstance(value, list | tuple) else value


def _hides(key: object, item: str) -> bool:
    return bool(item) and is_secret_name(str(key)) and not item.startswith("${")
