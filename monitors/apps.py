"""The engine as a Django app."""

from __future__ import annotations

from django.apps import AppConfig


class MonitorsConfig(AppConfig):
    """Targets, what is read of them and what is done to them."""

    name = "monitors"
    default_auto_field = "django.db.models.BigAutoField"
