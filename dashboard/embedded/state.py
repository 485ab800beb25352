"""What the embedded stack keeps between starts: its directory, passwords and keys."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
from pathlib import Path

from nacl.public import PrivateKey

from dashboard.embedded.processes import ROOT, StartFailed, write_private

PASSWORDS = (
    "secret_key",
    "admin",
    "broker",
    "history_superuser",
    "howdah_owner",
    "howdah_app",
    "demo_superuser",
    "shop",
    "howdah_collector",
    "howdah_operator",
)


def path() -> Path:
    """Return where the state directory is, made or not.

    As root it is outside the checkout, because `nobody`, who runs PostgreSQL
    then, may not be able to enter that.
    """
    if chosen := os.environ.get("HOWDAH_STATE_DIR"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        name = hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]
        return Path("/var/lib/howdah") / name
    return ROOT / ".state"


def make() -> Path:
    """Return the state directory, made where it is missing; raise StartFailed if not ours."""
    folder = path()
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        message = f"{folder} belongs to another user. Remove it, or set HOWDAH_STATE_DIR."
        raise StartFailed(message)
    # As root others may pass through, to their own files, but see nothing.
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return folder


def lock(folder: Path) -> int | None:
    """Take the lock that one running stack holds; None when another has it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def passwords(folder: Path) -> dict[str, str]:
    """Return the passwords and keys of this directory, made at its first start."""
    file = folder / "secrets.json"
    known: dict[str, str] = {}
    if file.exists():
        try:
            known = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            message = (
                f"{file} is not what Howdah wrote, and without its passwords nothing in {folder} opens:"
                " restore it from a backup, or remove the folder to begin anew."
            )
            raise StartFailed(message) from None
    made = {name: secrets.token_urlsafe(24) for name in PASSWORDS if name not in known}
    if "private_key" not in known:
        key = PrivateKey.generate()
        made["private_key"] = base64.b64encode(bytes(key)).decode()
        made["public_key"] = base64.b64encode(bytes(key.public_key)).decode()
    if made:
        known |= made
        write_private(file, json.dumps(known, indent=1))
    return known
