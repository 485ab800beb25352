"""Sealed passwords: opened by the private key alone, and for their address alone."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from monitors.targets import secrets
from monitors.targets.secrets import SecretUnreadable


@pytest.fixture(autouse=True)
def keys(settings: Settings) -> tuple[str, str]:
    settings.PUBLIC_KEY, settings.PRIVATE_KEY = pair = secrets.new_key_pair()
    return pair


def test_what_was_sealed_is_read_back() -> None:
    sealed, key = secrets.seal_password("hunter2 ünd", "db", 5432, "c")

    assert b"hunter2" not in sealed
    assert secrets.unseal_password(sealed, key, "db", 5432, "c") == "hunter2 ünd"


def test_the_public_key_alone_opens_nothing(settings: Settings) -> None:
    sealed, key = secrets.seal("hunter2")
    settings.PRIVATE_KEY = ""

    assert not secrets.can_unseal()
    with pytest.raises(SecretUnreadable, match="no private key"):
        secrets.unseal(sealed, key)


@pytest.mark.parametrize("address", [("evil", 5432, "c"), ("db", 5433, "c"), ("db", 5432, "other")])
def test_a_password_is_for_its_address_and_user_alone(address: tuple[str, int, str]) -> None:
    sealed, key = secrets.seal_password("hunter2", "db", 5432, "c")

    with pytest.raises(SecretUnreadable, match="another address"):
        secrets.unseal_password(sealed, key, *address)


def test_a_damaged_box_says_so() -> None:
    sealed, key = secrets.seal("hunter2")

    with pytest.raises(SecretUnreadable, match="damaged"):
        secrets.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), key)


def test_an_older_key_still_opens_what_it_sealed(settings: Settings, keys: tuple[str, str]) -> None:
    sealed, key = secrets.seal("hunter2")
    settings.PUBLIC_KEY, newer = secrets.new_key_pair()
    settings.PRIVATE_KEY = newer
    with pytest.raises(SecretUnreadable, match=key):
        secrets.unseal(sealed, key)

    settings.PRIVATE_KEY = f"{newer}, {keys[1]}"

    assert secrets.unseal(sealed, key) == "hunter2"


@pytest.mark.parametrize("text", ["not base64!", "c2hvcnQ="])
def test_a_key_that_is_none_says_which(settings: Settings, text: str) -> None:
    settings.PUBLIC_KEY = text

    with pytest.raises(SecretUnreadable, match="HOWDAH_PUBLIC_KEY is not a key"):
        secrets.seal("hunter2")


def test_without_a_public_key_nothing_is_sealed(settings: Settings) -> None:
    settings.PUBLIC_KEY = ""

    with pytest.raises(SecretUnreadable, match="set HOWDAH_PUBLIC_KEY"):
        secrets.seal("hunter2")
