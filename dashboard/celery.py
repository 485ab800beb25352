"""The Celery application that web, workers and beat share."""

from __future__ import annotations

from celery import Celery

app = Celery("howdah")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["monitors"])
