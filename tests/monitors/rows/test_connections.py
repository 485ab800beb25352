"""`manage.py connections`: the page for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from monitors.collect.rounds import take_now
from monitors.models import Target
from monitors.rows import connections
from tests.servers import Server

pytestmark = pytest.mark.django_db

READ = ["sessions", "connections", "databases"]


def test_the_command_says_the_same_as_the_page(
    embedded: Server,
    watch: Callable[..., Target],
    live: Callable[..., Any],
    said: Callable[..., Any],
) -> None:
    target = watch(embedded)
    status, _, wrong = said("connections", target.name)
    assert (status, "were not read yet" in wrong) == (1, True)
    live(embedded, user="owner", dbname="shop", application_name="billing")
    take_now(target, READ)

    _, text, _ = said("connections", target.name)
    rows = json.loads(said("connections", target.name, "--by", "datname", "--json")[1])
    churned = said("connections", target.name, "--churn")[1]

    assert "billing: 1 (0 active, 1 idle" in text
    assert "usable connections are taken" in text.splitlines()[0]
    assert tuple(rows[0]) == connections.COLUMNS
    assert "shop" in {row["name"] for row in rows}
    assert churned == "Not known: that takes two readings of the databases within an hour."
