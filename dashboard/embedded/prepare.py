"""Bring our own database up to date: migrations, the first account, the two targets.

A process of its own, `python -m dashboard.embedded.prepare`: it alone runs as
the role that owns the database. What it finds it writes into a file of the
state directory.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TypedDict

import django
from django.core.management import call_command

from dashboard.embedded import databases, state
from dashboard.embedded.processes import ROOT, write_private

ADMIN = "admin"
INTERVAL_SECONDS = 5  # of the demonstration: trends grow while one looks


class Prepared(TypedDict):
    """What `prepare` found: whether the generated password is still the account's."""

    login_works: bool
    migrations: str


def file_of(folder: Path) -> Path:
    """Return the file that `prepare` leaves in a state directory."""
    return folder / "prepared.json"


def migrations() -> str:
    """Return a hash of every migration and locked package: equal, nothing is to migrate."""
    digest = hashlib.sha256()
    for path in [*sorted(ROOT.glob("*/migrations/*.py")), ROOT / "requirements.txt"]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def read(folder: Path) -> Prepared | None:
    """Return what the last start left, None before the first."""
    file = file_of(folder)
    if not file.exists():
        return None
    prepared: Prepared = json.loads(file.read_text(encoding="utf-8"))
    return prepared


def main() -> None:
    """Do it, in the environment that the supervisor made."""
    folder = state.path()
    found = migrations()
    django.setup()
    before = read(folder)
    if before is None or before["migrations"] != found:
        call_command("migrate", interactive=False, verbosity=1)
    login_works = first_account(state.passwords(folder)["admin"])
    register_targets(folder)
    prepared = Prepared(login_works=login_works, migrations=found)
    write_private(file_of(folder), json.dumps(prepared))


def first_account(password: str) -> bool:
    """Make the account `admin` where there is no account; return whether the password is its own."""
    from django.contrib.auth.models import User  # noqa: PLC0415 - after django.setup()

    from monitors.models import Grant  # noqa: PLC0415

    if not User.objects.exists():
        user = User.objects.create_user(ADMIN, password=password)
        for role in (Grant.Role.ADMIN, Grant.Role.DBA):
            Grant.objects.create(user=user, role=role)
    user = User.objects.filter(username=ADMIN, is_active=True).first()
    return user is not None and user.check_password(password)


def register_targets(folder: Path) -> None:
    """Register what HOWDAH_EMBEDDED names, `{target: port}`, or follow its port."""
    from monitors import registration  # noqa: PLC0415 - after django.setup()
    from monitors.models import Target  # noqa: PLC0415
    from monitors.probes import PROBES  # noqa: PLC0415

    passwords = state.passwords(folder)
    for name, port in json.loads(os.environ.get("HOWDAH_EMBEDDED", "{}")).items():
        target = Target.objects.filter(name=name).first()
        if target is None:
            demo = name == "demo"
            names = [getattr(probe, "name", probe) for probe in PROBES]
            registration.register(
                ADMIN,
                "bin/up",
                name=name,
                host="127.0.0.1",
                port=port,
                user=databases.COLLECTOR,
                password=passwords[databases.COLLECTOR],
                operator_user=databases.OPERATOR,
                operator_password=passwords[databases.OPERATOR],
                environment="development",
                intervals=dict.fromkeys(names, INTERVAL_SECONDS) if demo else None,
                demo=demo,
            )
        elif target.port != port:
            registration.edit(
                ADMIN,
                "bin/up",
                target,
                port=port,
                password=passwords[databases.COLLECTOR],
                operator_password=passwords[databases.OPERATOR],
            )


if __name__ == "__main__":
    main()
