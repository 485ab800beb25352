"""Reload: what the file says now holds, and is in the history at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitors.collect.rounds import take_now
from tests import poolers
from tests.monitors.probes.consoles import latest


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_the_file_is_read_again(pooler, watch_pooler, person, done):
    behind = pooler(default_pool_size="2", **poolers.CONSOLE)
    target = watch_pooler(behind, operator_user="operator")
    take_now(target)
    ini = Path(behind.log).with_name("pgbouncer.ini")
    ini.write_text(ini.read_text().replace("default_pool_size = 2", "default_pool_size = 9"))

    row = done(person("dba"), target, "reload_pooler")

    assert (row.state, row.sql, row.object_name) == ("succeeded", "RELOAD", "the pooler")
    settings = {one["name"]: one["setting"] for one in latest("pooler_config", target, "")}
    assert settings["default_pool_size"] == "9"
