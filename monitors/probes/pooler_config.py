"""PgBouncer's settings, kept when they change.

Source: https://www.pgbouncer.org/usage.html#show-config
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Reading, Sample

SECRET = frozenset({"auth_ldap_options", "auth_ldap_parameter"})
"""Settings that may hold a password: they are not read."""


class PoolerConfigSample(Sample):
    """One setting."""

    name = models.CharField(max_length=100)
    setting = models.TextField()
    boot_val = models.TextField()  # None: there is none
    changeable = models.BooleanField()  # by RELOAD, without a restart

    key = ("name",)
    facts = ("setting",)
    labels = ("boot_val", "changeable")

    class Meta:
        abstract = True


def shape(rows: Sequence[Reading]) -> Iterable[Reading]:
    """Return the settings without secrets."""
    return [
        {
            "name": row["key"],
            "setting": "(not read)" if row["key"] in SECRET and row["value"] else row["value"],
            "boot_val": row.get("default"),
            "changeable": row["changeable"] == "yes",
        }
        for row in rows
    ]


PROBE = Probe(
    name="pooler_config",
    sample=PoolerConfigSample,
    show="CONFIG",
    shape=shape,
    every=timedelta(seconds=60),
    rollups=False,
)
