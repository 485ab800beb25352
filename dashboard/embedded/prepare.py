"""Bring our own database up to date: migrations, the first account, known targets.

A process of its own, `python -m dashboard.embedded.prepare`, which alone runs as
the role that owns the database. Its environment says what is known (a name may
also end in _FILE): HOWDAH_ADMIN_PASSWORD; HOWDAH_TARGETS, a JSON list of objects
with name, host, port and sslmode; HOWDAH_COLLECTOR_PASSWORD and
HOWDAH_OPERATOR_PASSWORD for those. HOWDAH_PREPARED names a file for its findings.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TypedDict, cast

import django
from django.core.management import call_command

from dashboard.embedded.databases import COLLECTOR, OPERATOR
from dashboard.embedded.processes import ROOT, write_private

ADMIN = "admin"
SOURCE = "bin/up"
DEMO = "demo"
POOL = "demo-pool"
"""The pooler before it."""
DEMO_SECONDS = 5  # between snapshots: trends grow while one looks


class Known(TypedDict):
    """A target to register; its port may have moved since the last start."""

    name: str
    kind: str
    host: str
    port: int
    sslmode: str


class Prepared(TypedDict):
    """What the last start found; while nothing of it changes, there is nothing to do."""

    login: str | None  # the account's hash where the generated password is its own
    migrations: str
    targets: list[Known]


def migrations() -> str:
    """Return a hash of every migration and locked package: equal, nothing is to migrate."""
    digest = hashlib.sha256()
    for path in [*sorted(ROOT.glob("*/migrations/*.py")), ROOT / "requirements.txt"]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def read(file: Path) -> Prepared | None:
    """Return what the last start found, None before the first or after another version's."""
    if not file.exists():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    known = isinstance(told, dict) and Prepared.__required_keys__ <= told.keys()
    return cast("Prepared", told) if known else None


def main() -> None:
    """Do it, skipping the migrations where the last start already did these."""
    django.setup()
    from dashboard.settings import secret  # noqa: PLC0415 - reads the environment just set up

    file = Path(os.environ["HOWDAH_PREPARED"]) if "HOWDAH_PREPARED" in os.environ else None
    before = read(file) if file else None
    if before is None or before["migrations"] != migrations():
        migrate()
    login = first_account(secret("HOWDAH_ADMIN_PASSWORD"))
    targets: list[Known] = json.loads(os.environ.get("HOWDAH_TARGETS", "[]"))
    show_demo(registered={known["name"] for known in targets})
    for known in targets:
        register(known, secret("HOWDAH_COLLECTOR_PASSWORD"), secret("HOWDAH_OPERATOR_PASSWORD"))
    if file:
        found = Prepared(login=login, migrations=migrations(), targets=targets)
        write_private(file, json.dumps(found))


def migrate() -> None:
    """Migrate; ends with a sentence where another version's history can't become this one's."""
    from django.db import connection  # noqa: PLC0415 - after django.setup()
    from django.db.migrations.exceptions import InconsistentMigrationHistory  # noqa: PLC0415
    from django.db.migrations.loader import MigrationLoader  # noqa: PLC0415

    loader = MigrationLoader(connection)
    newer = sorted(set(loader.applied_migrations) - set(loader.disk_migrations))
    ours = [name for app, name in newer if app == "monitors"]
    if ours:
        sys.exit(
            f"The history was made by another version of Howdah, whose {', '.join(ours)} this one does"
            " not know. Start that version or a newer one, or give this one a database of its own"
            " (HOWDAH_STATE_DIR, DATABASE_URL)."
        )
    try:
        call_command("migrate", interactive=False)
    except InconsistentMigrationHistory as error:
        sys.exit(
            f"The history was made between two versions of Howdah and can't be migrated: {error}"
            " Give this one a database of its own (HOWDAH_STATE_DIR, DATABASE_URL)."
        )


def first_account(password: str) -> str | None:
    """Make `admin` where there is no account; return its hash where this is its password."""
    from django.contrib.auth.models import User  # noqa: PLC0415 - after django.setup()

    from monitors.models import Grant  # noqa: PLC0415

    if not User.objects.exists() and password:
        user = User.objects.create_user(ADMIN, password=password)
        for role in ("admin", "dba"):
            Grant.objects.create(user=user, role=role)
    admin = User.objects.filter(username=ADMIN, is_active=True).first()
    return admin.password if admin is not None and admin.check_password(password) else None


def show_demo(*, registered: set[str]) -> None:
    """Read the demonstration only while it runs: `--no-demo` leaves it out."""
    from monitors.models import Target  # noqa: PLC0415
    from monitors.targets import register as registration  # noqa: PLC0415 - after django.setup()

    for target in Target.objects.filter(name__in=(DEMO, POOL), demo=True, deleting_at=None):
        runs = target.name in registered
        if runs and not target.enabled:
            registration.enable(ADMIN, SOURCE, target)
        elif not runs and target.enabled:
            registration.disable(ADMIN, SOURCE, target)


def register(known: Known, password: str, operator_password: str) -> None:
    """Register a target, or follow the port of one that is registered."""
    from monitors.models import Target  # noqa: PLC0415
    from monitors.probes import probes_of  # noqa: PLC0415
    from monitors.targets import register as registration  # noqa: PLC0415 - after django.setup()

    demo, is_pooler = known["name"] in {DEMO, POOL}, known["name"] == POOL
    probes = [probe.name for probe in probes_of(known["kind"])]
    target = Target.objects.filter(name=known["name"]).first()
    if target is None:
        registration.add(
            ADMIN,
            SOURCE,
            **known,
            user=COLLECTOR,
            password=password,
            operator_user=OPERATOR,
            operator_password=operator_password,
            environment="development",
            intervals=dict.fromkeys(probes, DEMO_SECONDS) if demo else None,
            cores=None if is_pooler else os.cpu_count(),  # what is embedded runs on this machine
            demo=demo,
        )
    elif target.deleting_at is None and target.port != known["port"]:
        registration.edit(
            ADMIN,
            SOURCE,
            target,
            host=known["host"],
            port=known["port"],
            password=password,
            operator_password=operator_password,
        )


if __name__ == "__main__":
    main()
