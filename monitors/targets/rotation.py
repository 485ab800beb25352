"""Seals stored passwords again with the newest key, so that an older one can be dropped."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from monitors.audit import entries
from monitors.models import TargetSecret
from monitors.targets import secrets


@dataclass(frozen=True)
class Resealed:
    """What a rotation came to: the new key's id, how many passwords, and which it lost."""

    key_id: str
    sealed: int
    already: int
    unreadable: dict[str, str]
    """Login of a target -> why its password can't be opened: it must be entered again."""


def reseal(user_name: str, source: str) -> Resealed:
    """Seal with the public key whatever another key has sealed; in the audit.

    Raises SecretUnreadable where this process has no private key, or none that
    would open what the public key seals.
    """
    newest = newest_key()
    sealed, unreadable = 0, {}
    others = TargetSecret.objects.exclude(key_id=newest).select_related("target")
    already = TargetSecret.objects.filter(key_id=newest).count()
    for secret in others.order_by("target__name", "login"):
        try:
            box, key_id = secrets.seal(secrets.unseal(bytes(secret.sealed), secret.key_id))
        except secrets.SecretUnreadable as error:
            unreadable[f"{secret.target.name} ({secret.login})"] = str(error)
            continue
        # A password that somebody has just entered anew is not overwritten with the old one.
        unchanged = TargetSecret.objects.filter(pk=secret.pk, sealed=secret.sealed)
        sealed += unchanged.update(sealed=box, key_id=key_id)
    result = "failed" if unreadable else "succeeded"
    entries.add(
        "target.reseal", user_name, source, result=result, key_id=newest, passwords=sealed,
        unreadable=sorted(unreadable),
    )  # fmt: skip
    return Resealed(newest, sealed, already, unreadable)


def newest_key() -> str:
    """Return the public key's id; raises SecretUnreadable unless its private key is here."""
    known = {secrets.key_id(bytes(key.public_key)) for key in secrets.private_keys()}
    key_id = secrets.key_id(secrets.decode(settings.PUBLIC_KEY, "HOWDAH_PUBLIC_KEY"))
    if key_id not in known:
        message = (
            "HOWDAH_PUBLIC_KEY does not belong to a private key here: what it seals, nobody could open. "
            "Nothing was sealed."
        )
        raise secrets.SecretUnreadable(message)
    return key_id
