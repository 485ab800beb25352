"""What a target is, as `Target.kind` says it: a server, or the console of a pooler."""

from __future__ import annotations

POSTGRES, PGBOUNCER = "postgres", "pgbouncer"
EVERY = (POSTGRES, PGBOUNCER)
