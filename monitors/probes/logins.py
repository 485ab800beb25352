"""The roles whose password is taken only until some moment.

Source: https://www.postgresql.org/docs/current/view-pg-roles.html
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class LoginsSample(Sample):
    """One role that may log in and whose password expires; none of those that don't."""

    rolname = models.CharField(max_length=200)
    rolvaliduntil = models.DateTimeField()

    key = ("rolname",)
    facts = ("rolvaliduntil",)

    class Meta:
        abstract = True


# A year that Python's datetime can't hold is none that anybody waits for.
SQL_14 = """
SELECT r.rolname::text AS rolname,
       r.rolvaliduntil
  FROM pg_catalog.pg_roles AS r
 WHERE r.rolcanlogin
   AND r.rolvaliduntil > '0001-01-02'
   AND r.rolvaliduntil < '9999-01-01'
"""

PROBE = Probe(
    name="logins",
    sample=LoginsSample,
    sql={14: SQL_14},
    every=timedelta(minutes=5),
    rollups=False,
)
