"""How values are kept in Redis: as JSON, so that reading one can't run code."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any


class JSON:
    """The serializer of Django's Redis cache; times come back as ISO 8601 texts."""

    def dumps(self, value: object) -> bytes | int:
        """Return what is stored; whole numbers stay numbers, so that Redis can add to them."""
        if type(value) is int:
            return value
        return json.dumps(value, default=as_text, separators=(",", ":")).encode()

    def loads(self, data: bytes) -> Any:
        """Return what was stored; None, as where nothing was, for what is no JSON."""
        try:
            return json.loads(data)
        except ValueError:
            return None


def as_text(value: object) -> str:
    """Return a time with its microseconds: Django's own encoder cuts them off."""
    if isinstance(value, datetime):
        return value.isoformat()
    message = f"{type(value).__name__} has no place in the cache"
    raise TypeError(message)
