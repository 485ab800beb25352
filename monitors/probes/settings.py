"""The server's settings with their sources, kept when they change.

Source: https://www.postgresql.org/docs/current/view-pg-settings.html
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class SettingsSample(Sample):
    """One setting; `setting` is None where Howdah's own session or login sets it."""

    name = models.CharField(max_length=100)
    setting = models.TextField()  # in its unit
    source = models.TextField()
    pending_restart = models.BooleanField()
    unit = models.TextField()
    category = models.TextField()
    context = models.TextField()
    vartype = models.TextField()
    boot_val = models.TextField()
    short_desc = models.TextField()
    sourcefile = models.TextField()

    key = ("name",)
    facts = ("setting", "source", "pending_restart")
    labels = ("unit", "category", "context", "vartype", "boot_val", "short_desc", "sourcefile")

    class Meta:
        abstract = True


# Connection strings and commands may hold passwords: they are not read.
SQL_14 = """
SELECT s.name,
       CASE WHEN s.source IN ('client', 'session', 'user', 'database user') THEN NULL
            WHEN s.name IN ('primary_conninfo', 'restore_command', 'archive_command',
                            'archive_cleanup_command', 'recovery_end_command',
                            'ssl_passphrase_command') THEN
                 CASE WHEN s.setting = '' THEN '' ELSE '(not read)' END
            ELSE s.setting
       END AS setting,
       CASE WHEN s.source IN ('client', 'session', 'user', 'database user') THEN NULL
            ELSE s.source
       END AS source,
       s.pending_restart,
       s.unit,
       s.category,
       s.context,
       s.vartype,
       s.boot_val,
       s.short_desc,
       s.sourcefile
  FROM pg_catalog.pg_settings AS s
 WHERE s.name NOT IN ('transaction_read_only', 'transaction_isolation', 'transaction_deferrable',
                      'in_hot_standby', 'is_superuser', 'session_authorization', 'role', 'seed')
"""

PROBE = Probe(
    name="settings",
    sample=SettingsSample,
    sql={14: SQL_14},
    every=timedelta(minutes=10),
    rollups=False,
)
