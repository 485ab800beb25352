"""What the embedded stack keeps between starts: its directory, passwords and keys."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shutil
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
KEYS = ("private_key", "public_key")
FULL_BYTES = 64 * 1024**2
"""Less than this is no room: PostgreSQL takes its log 16 MB at a time, and a start needs a few."""


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
    """Return the passwords and keys of this directory, made at its first start.

    Raises StartFailed where the file is not Howdah's, or lacks one that an existing history knows.
    """
    file = folder / "secrets.json"
    try:
        known: dict[str, str] = dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}
    except (ValueError, TypeError):
        raise StartFailed(lost(file, "is not what Howdah wrote")) from None
    lacking = {name for name in (*PASSWORDS, *KEYS) if not isinstance(known.get(name), str)}
    if lacking and (folder / "history" / "data").exists():
        raise StartFailed(lost(file, f"lacks {', '.join(sorted(lacking))}"))
    made = {name: secrets.token_urlsafe(24) for name in PASSWORDS if name in lacking}
    if lacking.intersection(KEYS):
        key = PrivateKey.generate()
        made["private_key"] = base64.b64encode(bytes(key)).decode()
        made["public_key"] = base64.b64encode(bytes(key.public_key)).decode()
    if made:
        known |= made
        write_private(file, json.dumps(known, indent=1))
    return known


def lost(file: Path, why: str) -> str:
    """Return the sentence for passwords that are no longer known."""
    return (
        f"{file} {why}, and without its passwords nothing in {file.parent} opens: restore it from a"
        " backup, or remove the folder to begin anew."
    )


def room(folder: Path) -> str | None:
    """Return the sentence for a disk without room; None where there is some."""
    usage = shutil.disk_usage(folder)
    if usage.free >= FULL_BYTES:
        return None
    return (
        f"The disk of {folder} has too little room ({usage.free / 1024**2:.1f} of"
        f" {usage.total / 1024**2:.1f} MB are free). Give it more, or set HOWDAH_STATE_DIR to another folder."
    )
