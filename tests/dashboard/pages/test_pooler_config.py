"""A pooler's configuration: what differs from the default, and the export."""

from __future__ import annotations

import json

import pytest

from monitors.collect.rounds import take_now
from monitors.rows import pooler_config
from tests import poolers
from tests.typed import assert_typed


def told(response):
    """Return the rows of an export."""
    return json.loads(response.getvalue())


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_what_was_changed_from_its_default(pooler, watch_pooler, browse):
    target = watch_pooler(pooler(default_pool_size="7", **poolers.CONSOLE))
    take_now(target)
    client = browse("viewer")

    page = client.get(f"/targets/{target.name}/configuration/?filter=changed&q=pool_size")
    rows = told(client.get(f"/targets/{target.name}/configuration/?format=json"))
    changes = told(client.get(f"/targets/{target.name}/configuration/?format=json&table=changes"))

    assert [row["name"] for row in page.context["listing"].rows] == ["default_pool_size"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["default_pool_size"]["boot_val"] == "20"
    assert by_name["listen_port"]["changeable"] is False
    assert changes == []
    assert_typed(page.context["rows"][0], pooler_config.ConfigRow)
