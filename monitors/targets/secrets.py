"""Targets' passwords in sealed boxes: whoever seals one can't open it again.

The web has the public key alone; workers have the private one. What is sealed
names the address and login that it is for, so that a row that was moved to
another target, or an address edited behind our back, opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from django.conf import settings
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox


class SecretUnreadable(Exception):
    """A sealed text can't be opened here; its text says why and what to do."""


def new_key_pair() -> tuple[str, str]:
    """Return a new public and private key, both base64."""
    key = PrivateKey.generate()
    return encode(bytes(key.public_key)), encode(bytes(key))


def key_id(public: bytes) -> str:
    """Return the name of a key pair: 16 hexadecimal digits."""
    return hashlib.sha256(public).hexdigest()[:16]


def seal(text: str) -> tuple[bytes, str]:
    """Return a sealed box for the private key's holder, and the key's id."""
    if not settings.PUBLIC_KEY:
        message = "There is no public key to seal passwords with: set HOWDAH_PUBLIC_KEY."
        raise SecretUnreadable(message)
    public = decode(settings.PUBLIC_KEY, "HOWDAH_PUBLIC_KEY")
    return SealedBox(PublicKey(public)).encrypt(text.encode()), key_id(public)


def can_unseal() -> bool:
    """Return whether this process holds a private key."""
    return bool(settings.PRIVATE_KEY)


def unseal(sealed: bytes, key: str) -> str:
    """Return the text of a sealed box; raises SecretUnreadable."""
    for private in private_keys():
        if key_id(bytes(private.public_key)) == key:
            try:
                return SealedBox(private).decrypt(bytes(sealed)).decode()
            except CryptoError:
                message = "The stored password is damaged: enter it again."
                raise SecretUnreadable(message) from None
    message = f"The stored password was sealed with key {key}, which is not here: enter it again."
    raise SecretUnreadable(message)


def seal_password(password: str, host: str, port: int, user: str) -> tuple[bytes, str]:
    """Return a password's sealed box, bound to an address and login, and the key's id."""
    payload = {"host": host, "port": port, "user": user, "password": password}
    return seal(json.dumps(payload))


def unseal_password(sealed: bytes, key: str, host: str, port: int, user: str) -> str:
    """Return a password; raises SecretUnreadable where it is for another address or login."""
    payload = json.loads(unseal(sealed, key))
    if (payload["host"], payload["port"], payload["user"]) != (host, port, user):
        message = "The stored password is for another address or user: enter it again."
        raise SecretUnreadable(message)
    return str(payload["password"])


def private_keys() -> list[PrivateKey]:
    """Return the private keys, newest first: more than one while passwords are re-sealed."""
    if not settings.PRIVATE_KEY:
        message = (
            "This process can't read passwords: it has no private key"
            " (HOWDAH_PRIVATE_KEY or HOWDAH_PRIVATE_KEY_FILE)."
        )
        raise SecretUnreadable(message)
    texts = settings.PRIVATE_KEY.replace(",", " ").split()
    return [PrivateKey(decode(text, "HOWDAH_PRIVATE_KEY")) for text in texts]


def encode(key: bytes) -> str:
    """Return a key as settings hold it."""
    return base64.b64encode(key).decode()


def decode(text: str, name: str) -> bytes:
    """Return the 32 bytes of a key; raises SecretUnreadable."""
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != PrivateKey.SIZE:
        message = f"{name} is not a key: 32 bytes in base64."
        raise SecretUnreadable(message)
    return key
