"""The targets: the list, the wizard, and who may change them."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from django.utils import timezone

from monitors.models import AuditEntry, ProbeState, Target, TargetCheck, TargetSecret
from monitors.probes import PROBES
from monitors.targets import check
from tests.people import browser_of, make_target, person

pytestmark = pytest.mark.django_db
SECRET = "s3cret-of-the-collector"


@pytest.fixture
def admin():
    return browser_of(person("admin", "admin"))


def form(**fields):
    return {
        "name": "db-7",
        "environment": "staging",
        "host": "192.0.2.7",
        "port": "5432",
        "dbname": "postgres",
        "sslmode": "",
        "require_auth": "",
        "user": "howdah_collector",
        "password": SECRET,
        "operator": "none",
        **fields,
    }


def listed(client):
    return json.loads(client.get("/targets/?format=json").getvalue())


def test_a_viewer_sees_own_targets_without_buttons(admin):
    target = make_target("shop-1")
    make_target("bank-1")
    viewer = browser_of(person("viewer", "viewer", target=target))

    page = viewer.get("/targets/").content.decode()

    assert [row["name"] for row in listed(viewer)] == ["shop-1"]
    assert {row["name"] for row in listed(admin)} == {"shop-1", "bank-1"}
    assert "/targets/shop-1/edit/" not in page
    assert "/targets/new/" not in page
    assert "/targets/bank-1/edit/" in admin.get("/targets/").content.decode()


def test_a_row_says_state_and_reason(admin):
    target = make_target("shop-1")
    ProbeState.objects.create(
        target=target, probe="activity", state="unreachable", reason="Connection refused."
    )

    page = admin.get("/targets/").content.decode()

    assert "unreachable" in page
    assert "Connection refused." in page


@pytest.mark.parametrize(
    ("host", "sslmode", "weak"),
    [
        ("192.0.2.1", "require", True),
        ("192.0.2.1", "verify-full", False),
        ("127.0.0.1", "disable", False),
    ],
)
def test_weak_tls_carries_a_badge(admin, host, sslmode, weak):
    make_target("shop-1", host=host, sslmode=sslmode)

    assert ("weak TLS" in admin.get("/targets/").content.decode()) is weak


@pytest.mark.parametrize("role", ["", "viewer", "operator", "dba"])
def test_only_who_manages_targets_may_change_them(role):
    make_target("shop-1")
    client = browser_of(person("somebody", *([role] if role else [])))
    unseen = 403 if role else 404

    assert client.get("/targets/new/").status_code == 403
    assert client.post("/targets/new/", form()).status_code == 403
    assert client.get("/targets/shop-1/edit/").status_code == unseen
    assert client.post("/targets/shop-1/edit/", form()).status_code == unseen
    assert client.post("/targets/shop-1/remove/", {"name": "shop-1"}).status_code == unseen
    assert client.post("/targets/shop-1/disable/").status_code == unseen
    assert client.post("/targets/shop-1/enable/").status_code == unseen
    target = Target.objects.get()
    assert (target.enabled, target.deleting_at, target.host) == (True, None, "192.0.2.1")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "Shop 1"}, "lower-case letters"),
        ({"name": "new"}, "Choose another name"),
        ({"name": "taken"}, "A target of this name exists already."),
        ({"port": "70000"}, "less than or equal to 65535"),
        ({"host": "169.254.169.254"}, "169.254.169.254"),
        ({"operator": "own"}, "Name the login that acts"),
        ({"interval_tables": "0.1"}, "greater than or equal to 1"),
        ({"cores": "5000"}, "less than or equal to 4096"),
    ],
)
def test_each_mistake_is_a_sentence_and_asks_no_worker(admin, fields, sentence):
    make_target("taken")

    response = admin.post("/targets/new/", form(**fields))

    page = response.content.decode()
    assert response.status_code == 400
    assert sentence in page
    assert SECRET not in page
    assert TargetCheck.objects.count() == 0


def test_the_wizard_checks_saves_and_never_shows_the_password(admin, embedded):
    address = {"host": embedded.host, "port": str(embedded.port), "user": "collector"}
    asked = admin.post("/targets/new/", form(**address, password=embedded.password))
    row = TargetCheck.objects.get()
    url = f"/targets/check/{row.pk}/"
    assert asked["Location"] == url
    waiting = admin.get(url).content.decode()
    assert "A worker connects" in waiting
    assert "every 1s" in waiting

    check.carry_out(str(row.pk))
    checked = admin.get(url).content.decode()
    saved = admin.post(url, follow=True).content.decode()

    target = Target.objects.get()
    assert "GRANT" in checked
    assert "Save db-7" in checked
    assert "shop" in checked
    assert "every 1s" not in checked
    assert "waiting for its first snapshot" in saved
    assert (target.name, target.environment.name) == ("db-7", "staging")
    assert check.stored_passwords(target) == {"collector": embedded.password}
    assert admin.session["sealed_drafts"] == {}
    for page in (waiting, checked, saved, admin.get("/targets/db-7/edit/").content.decode()):
        assert embedded.password not in page
    assert embedded.password not in str(list(AuditEntry.objects.values()))


def test_a_draft_that_another_login_session_checked_asks_for_its_password_again(admin, embedded):
    address = {"host": embedded.host, "port": str(embedded.port), "user": "collector"}
    admin.post("/targets/new/", form(**address, password=embedded.password))
    row = TargetCheck.objects.get()
    check.carry_out(str(row.pk))
    other = Client()
    other.force_login(row.asked_by)

    asked = other.post(f"/targets/check/{row.pk}/", follow=True)

    assert Target.objects.count() == 0
    assert "Type it once more" in asked.content.decode()
    assert asked.redirect_chain[-1][0] == f"/targets/new/?draft={row.pk}"
    assert f'value="{embedded.port}"' in asked.content.decode()
    admin.post(f"/targets/check/{row.pk}/")  # the session that has it
    assert check.stored_passwords(Target.objects.get()) == {"collector": embedded.password}


def test_an_older_draft_of_the_same_login_session_asks_for_its_password_again(admin, embedded):
    address = {"host": embedded.host, "port": str(embedded.port), "user": "collector"}
    for number in range(7):
        draft = form(**address, password=embedded.password, name=f"db-{number}")
        admin.post("/targets/new/", draft)
    rows = {row.draft["name"]: row for row in TargetCheck.objects.all()}
    TargetCheck.objects.update(done_at=timezone.now())

    for name in ("db-0", "db-1"):
        asked = admin.post(f"/targets/check/{rows[name].pk}/", follow=True)
        assert Target.objects.count() == 0
        assert "the last 5 drafts that you tested" in asked.content.decode()
        assert "another login session" not in asked.content.decode()
        assert asked.redirect_chain[-1][0] == f"/targets/new/?draft={rows[name].pk}"
    for count, number in enumerate(range(2, 7), start=1):
        admin.post(f"/targets/check/{rows[f'db-{number}'].pk}/")
        assert Target.objects.count() == count


def test_saving_twice_saves_once(admin, embedded):
    address = {"host": embedded.host, "port": str(embedded.port), "user": "collector"}
    admin.post("/targets/new/", form(**address, password=embedded.password))
    row = TargetCheck.objects.get()
    check.carry_out(str(row.pk))

    admin.post(f"/targets/check/{row.pk}/")
    admin.post(f"/targets/check/{row.pk}/")

    assert Target.objects.count() == 1
    assert AuditEntry.objects.filter(what="target.add").count() == 1


def test_the_collectors_login_may_act_too(admin, embedded):
    address = {"host": embedded.host, "port": str(embedded.port), "user": "operator"}
    admin.post("/targets/new/", form(**address, password=embedded.password, operator="same"))
    row = TargetCheck.objects.get()
    check.carry_out(str(row.pk))

    admin.post(f"/targets/check/{row.pk}/")

    target = Target.objects.get()
    assert target.operator_user == "operator"
    assert TargetSecret.objects.filter(target=target).count() == 2


def test_a_failed_check_says_why_and_keeps_what_was_typed_but_the_password(admin, embedded):
    address = {"host": embedded.host, "port": str(embedded.port), "user": "collector"}
    admin.post("/targets/new/", form(**address, password="wrong-password"))
    row = TargetCheck.objects.get()
    check.carry_out(str(row.pk))

    page = admin.get(f"/targets/check/{row.pk}/").content.decode()
    again = admin.get(f"/targets/new/?draft={row.pk}").content.decode()

    assert "The connection failed" in page
    assert f'value="{embedded.port}"' in again
    assert 'value="db-7"' in again
    assert "wrong-password" not in page + again


def test_a_check_is_its_askers_alone(admin):
    row = TargetCheck.objects.create(asked_by=person("other", "admin"), draft={"name": "x"})

    assert admin.get(f"/targets/check/{row.pk}/").status_code == 404
    assert admin.post(f"/targets/check/{row.pk}/").status_code == 404


def test_the_last_step_ends_with_the_first_snapshot(admin):
    user = person("other", "admin", "viewer")
    client = browser_of(user)
    target = make_target("db-7")
    row = TargetCheck.objects.create(
        asked_by=user, draft={"name": "db-7"}, target=target, done_at=target.created_at
    )
    url = f"/targets/check/{row.pk}/"
    assert "every 1s" in client.get(url).content.decode()

    for probe in PROBES:
        if not probe.extension:
            ProbeState.objects.create(
                target=target, probe=probe.name, state="ok", taken_at=target.created_at
            )
    assert "every 1s" in client.get(url).content.decode()
    # What needs an extension that the server does not have is no reason to wait.
    ProbeState.objects.create(
        target=target, probe="statements", state="unsupported", reason="No such extension."
    )

    page = client.get(url).content.decode()
    assert "db-7 is registered and read" in page
    assert "every 1s" not in page
    assert "No such extension." in page
    assert 'href="/targets/db-7/"' in page


def test_editing_keeps_the_password_unless_the_address_changes(admin, watch, embedded):
    target = watch(embedded, name="shop-1")
    fields = form(host=target.host, port=str(target.port), user="collector", password="")
    del fields["name"]

    kept = admin.post(
        "/targets/shop-1/edit/", {**fields, "tags": "web, shop", "cores": "8", "sslmode": "disable"}
    )
    assert kept.status_code == 302
    assert TargetSecret.objects.filter(target=target).count() == 1
    target.refresh_from_db()
    assert (target.tags, target.cores) == (["web", "shop"], 8)

    admin.post("/targets/shop-1/edit/", {**fields, "host": "192.0.2.9", "sslmode": "disable"})
    assert TargetSecret.objects.filter(target=target).count() == 0


def test_editing_can_not_rename(admin):
    make_target("shop-1")

    admin.post("/targets/shop-1/edit/", form(name="other"))

    assert Target.objects.get().name == "shop-1"


def test_the_logins_of_a_saved_target_can_be_checked_again(admin, watch, embedded):
    watch(embedded, name="shop-1", operator_user="operator")

    asked = admin.post("/targets/shop-1/edit/", {"check": "1"})
    row = TargetCheck.objects.get()
    check.carry_out(str(row.pk))
    page = admin.get(asked["Location"]).content.decode()

    assert "What Howdah can do on shop-1" in page
    assert "cancel_backend" in page
    assert "Save shop-1" not in page


def test_removing_asks_for_the_name(admin):
    make_target("shop-1")

    wrong = admin.post("/targets/shop-1/remove/", {"name": "shop"})
    assert wrong.status_code == 400
    assert "That is not its name" in wrong.content.decode()
    assert Target.objects.get().deleting_at is None

    right = admin.post("/targets/shop-1/remove/", {"name": "shop-1"})
    assert right.status_code == 302
    assert Target.objects.get().deleting_at is not None
    assert listed(admin) == []
    assert AuditEntry.objects.filter(what="target.remove", who="admin").count() == 1


def test_disable_and_enable_are_posts_and_in_the_audit(admin):
    make_target("shop-1")

    assert admin.get("/targets/shop-1/disable/").status_code == 405
    admin.post("/targets/shop-1/disable/")
    assert not Target.objects.get().enabled
    admin.post("/targets/shop-1/enable/")
    assert Target.objects.get().enabled
    assert list(AuditEntry.objects.order_by("id").values_list("what", flat=True)) == [
        "target.disable",
        "target.enable",
    ]


def test_the_list_without_targets_invites(admin):
    assert "Register a server" in admin.get("/targets/").content.decode()
    stranger = browser_of(person("stranger"))
    assert "Ask an admin for a role" in stranger.get("/targets/").content.decode()


def test_a_post_needs_the_csrf_token():
    make_target("shop-1")
    client = Client(enforce_csrf_checks=True)
    client.force_login(
        person("admin", "admin"), backend="django.contrib.auth.backends.ModelBackend"
    )

    assert client.post("/targets/shop-1/disable/").status_code == 403
    assert Target.objects.get().enabled
