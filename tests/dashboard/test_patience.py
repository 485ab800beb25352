"""A history database that falls silent frees the thread that waits for it."""

from __future__ import annotations

import copy
import time

import pytest
from django.db import OperationalError, connection
from django.db.backends.postgresql.base import DatabaseWrapper

from dashboard.patience import at_most

pytestmark = pytest.mark.django_db


@pytest.fixture
def own():
    """A connection that no other test uses."""
    wrapper = DatabaseWrapper(copy.deepcopy(connection.settings_dict), "default")
    yield wrapper
    wrapper.close()


def test_what_waits_for_a_silent_database_ends_and_the_next_one_connects_anew(own):
    began = time.monotonic()
    with pytest.raises(OperationalError), at_most(0.3, own), own.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(20)")
    took = time.monotonic() - began
    own.close_if_unusable_or_obsolete()

    assert 0.3 <= took < 3
    with own.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_what_is_answered_in_time_keeps_its_connection(own):
    with at_most(0.3, own), own.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        before = cursor.fetchone()
    time.sleep(0.5)

    with own.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        assert cursor.fetchone() == before
