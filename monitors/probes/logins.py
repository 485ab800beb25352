"""The roles whose password is taken only until some moment, or whose sessions are limited.

Source: https://www.postgresql.org/docs/current/view-pg-roles.html
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class LoginsSample(Sample):
    """One role that may log in and whose password expires or whose sessions are limited; no other."""

    rolname = models.CharField(max_length=200)
    rolvaliduntil = models.DateTimeField()  # None: its password does not expire
    rolconnlimit = models.IntegerField()  # -1: none, which holds for superusers whatever it says

    key = ("rolname",)
    facts = ("rolvaliduntil", "rolconnlimit")

    class Meta:
        abstract = True


# A year that Python's datetime can't hold is none that anybody waits for.
SQL_14 = """
SELECT r.rolname::text AS rolname,
       CASE WHEN r.rolvaliduntil > '0001-01-02' AND r.rolvaliduntil < '9999-01-01'
            THEN r.rolvaliduntil
       END AS rolvaliduntil,
       CASE WHEN r.rolsuper THEN -1 ELSE r.rolconnlimit END AS rolconnlimit
  FROM pg_catalog.pg_roles AS r
 WHERE r.rolcanlogin
   AND (r.rolvaliduntil > '0001-01-02' AND r.rolvaliduntil < '9999-01-01'
        OR r.rolconnlimit >= 0 AND NOT r.rolsuper)
"""

PROBE = Probe(
    name="logins",
    sample=LoginsSample,
    sql={14: SQL_14},
    every=timedelta(minutes=5),
    rollups=False,
)
