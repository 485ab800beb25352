"""The audit's rows: only ever added, each with the hash of the one before.

Whoever changes, removes or inserts a row behind our back breaks the chain at
that row. Rows cut off at the end leave no trace here: export the last hash to
another system now and then (`manage.py audit export`).
"""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import CharField, Model
from django.utils import timezone

from monitors.models import AuditEntry

LOCK = 4_867_330_017
GENESIS = "0" * 64
HASHED = (
    "at",
    "kind",
    "what",
    "who",
    "source",
    "target_name",
    "object_name",
    "action_id",
    "sql",
    "reason",
    "result",
    "detail",
)


def append(**fields: Any) -> AuditEntry:
    """Add one entry to the end of the chain; within the caller's transaction, if there is one.

    The lock is held until that transaction ends: keep it short.
    """
    values = {name: fitting(AuditEntry, name, value) for name, value in fields.items()}
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.callproc("pg_advisory_xact_lock", [LOCK])
        last = AuditEntry.objects.order_by("-id").values_list("hash", flat=True).first()
        entry = AuditEntry(at=timezone.now(), previous_hash=last or GENESIS)
        for name, value in values.items():
            setattr(entry, name, value)
        entry.hash = hash_of(entry)
        entry.save(force_insert=True)
    return entry


def first_broken() -> int | None:
    """Return the id of the first entry that does not fit the chain, None where all do."""
    previous = GENESIS
    for entry in AuditEntry.objects.order_by("id").iterator(chunk_size=2000):
        if entry.previous_hash != previous or entry.hash != hash_of(entry):
            return entry.pk
        previous = entry.hash
    return None


def hash_of(entry: AuditEntry) -> str:
    """Return the SHA-256 of an entry's content and of the hash before it, hexadecimal."""
    content = [plain(getattr(entry, name)) for name in HASHED]
    text = json.dumps([entry.previous_hash, *content], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fitting(model: type[Model], name: str, value: Any) -> Any:
    """Return a value as its column will give it back: cut to length, without NUL."""
    value = plain(value) if name == "detail" else value
    if isinstance(value, str):
        value = storable(value)
        field = model._meta.get_field(name)
        if isinstance(field, CharField) and field.max_length and len(value) > field.max_length:
            value = value[: field.max_length - 1] + "…"
    return value


def plain(value: Any) -> Any:  # noqa: PLR0911 - one a type
    """Return a value as JSON that our database gives back unchanged."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case UUID():
            return str(value)
        case float():
            # jsonb keeps a number's value, not its spelling.
            return str(value) if not math.isfinite(value) or value != int(value) else int(value)
        case str():
            return storable(value)
        case dict():
            return {storable(str(key)): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case bool() | int() | None:
            return value
    return str(value)


def storable(text: str) -> str:
    """Return text without what PostgreSQL can't store: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
