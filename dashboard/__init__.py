"""The web: settings, URLs and pages. It imports monitors, never the reverse."""

from __future__ import annotations

from dashboard.celery import app as celery_app

__all__ = ["celery_app"]
