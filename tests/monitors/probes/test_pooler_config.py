"""Settings of a pooler: kept when they change, with a mark, and read back as of a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.history.window import Window
from monitors.models import Mark
from monitors.rows import configuration, pooler_config
from tests import poolers
from tests.monitors.probes.consoles import latest


@pytest.mark.django_db
def test_a_reload_is_a_change_with_a_mark(pooler, watch_pooler):
    behind = pooler(default_pool_size="2", **poolers.CONSOLE)
    target = watch_pooler(behind)
    take_now(target, ["pooler_config"])
    before = timezone.now()
    ini = Path(behind.log).with_name("pgbouncer.ini")
    ini.write_text(ini.read_text().replace("default_pool_size = 2", "default_pool_size = 9"))
    with behind.connect(user="operator", dbname="pgbouncer", autocommit=True) as admin:
        admin.execute("RELOAD")
    take_now(target, ["pooler_config"])

    known = {row["name"]: row for row in latest("pooler_config", target, "")}
    [change] = configuration.changes_of(target, Window.last("1h", timezone.now()))
    then = Window(start=before, end=before, is_live=False, label="")
    was = {row["name"]: row for row in pooler_config.config_of(target, then)}

    assert known["default_pool_size"]["setting"] == "9"
    assert (change["name"], change["was"], change["value"]) == ("default_pool_size", "2", "9")
    assert was["default_pool_size"]["setting"] == "2"
    assert was["default_pool_size"]["is_changed"] is True
    assert known["listen_port"]["changeable"] is False
    [mark] = Mark.objects.filter(target=target, kind=Mark.Kind.SETTING)
    assert mark.text == "Settings: default_pool_size 2 to 9."
