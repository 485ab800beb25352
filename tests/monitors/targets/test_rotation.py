"""A new key pair: what an older key sealed is sealed anew, and nothing is lost on the way."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command

from monitors.models import AuditEntry, TargetSecret
from monitors.targets import rotation, secrets
from monitors.targets.secrets import SecretUnreadable
from tests.people import make_target

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse"


@pytest.fixture
def old(settings):
    """The key pair so far: (public, private)."""
    settings.PUBLIC_KEY, settings.PRIVATE_KEY = pair = secrets.new_key_pair()
    return pair


@pytest.fixture
def secret(old):
    """A stored password that the old key sealed."""
    target = make_target("shop-1")
    sealed, key_id = secrets.seal_password(PASSWORD, target.host, target.port, target.user)
    return TargetSecret.objects.create(
        target=target, login="collector", sealed=sealed, key_id=key_id
    )


def opened(secret: TargetSecret) -> str:
    secret.refresh_from_db()
    target = secret.target
    return secrets.unseal_password(
        bytes(secret.sealed), secret.key_id, target.host, target.port, target.user
    )


def test_after_a_rotation_the_newest_key_alone_opens_everything(settings, old, secret):
    settings.PUBLIC_KEY, newer = secrets.new_key_pair()
    settings.PRIVATE_KEY = f"{newer}, {old[1]}"
    said = StringIO()

    call_command("target", "reseal", stdout=said)

    settings.PRIVATE_KEY = newer
    assert opened(secret) == PASSWORD
    assert "1 password sealed" in said.getvalue()
    assert "Older keys can be dropped." in said.getvalue()
    entry = AuditEntry.objects.get(what="target.reseal")
    assert PASSWORD not in str(vars(entry))


def test_what_no_key_opens_is_named_and_left(settings, secret, capsys):
    settings.PUBLIC_KEY, settings.PRIVATE_KEY = secrets.new_key_pair()
    before = bytes(secret.sealed)

    with pytest.raises(SystemExit) as left:
        call_command("target", "reseal")

    assert left.value.code == 1
    assert "shop-1 (collector)" in capsys.readouterr().err
    secret.refresh_from_db()
    assert bytes(secret.sealed) == before


def test_a_public_key_that_no_private_one_opens_seals_nothing(settings, old, secret):
    settings.PUBLIC_KEY, _ = secrets.new_key_pair()

    with pytest.raises(SecretUnreadable, match="nobody could open"):
        rotation.reseal("root", "command")

    assert opened(secret) == PASSWORD


def test_without_the_private_key_it_says_so(settings, secret, capsys):
    settings.PRIVATE_KEY = ""

    with pytest.raises(SystemExit):
        call_command("target", "reseal")

    assert "no private key" in capsys.readouterr().err


def test_what_has_the_newest_key_is_left_alone(secret):
    before = bytes(secret.sealed)

    done = rotation.reseal("root", "command")

    secret.refresh_from_db()
    assert (done.sealed, done.already, bytes(secret.sealed)) == (0, 1, before)
