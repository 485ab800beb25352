"""Pages, as the addresses name them: no test lists them by hand."""

from __future__ import annotations

from dashboard.pages import PAGES
from dashboard.urls import OF_TARGET
from monitors.kinds import POSTGRES

FORMS = frozenset({"strip", "target-edit", "target-remove", "target-enable", "target-disable"})
"""Addresses of a target that are no page of figures."""
LISTS = frozenset({"jobs", "target-actions"})
"""Pages of our own rows, which show no window and go on by themselves."""
OF_POOLERS = frozenset(page.name for page in PAGES if POSTGRES not in page.kinds)
"""Pages that a server has not: tests/dashboard/pages/test_pooler.py has them."""
NAMES = sorted({str(one.name) for one in OF_TARGET if "<" not in str(one.pattern)} - OF_POOLERS)
"""All addresses that take a server alone."""
OF_THE_TARGET = [name for name in NAMES if name not in FORMS]
"""A target's own pages."""
