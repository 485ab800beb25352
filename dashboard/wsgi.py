"""Entry point of the web server."""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from dashboard.embedded import processes

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
processes.end_with_parent()
application = get_wsgi_application()

if settings.SECRET_KEY == settings.PUBLIC_SECRET_KEY:
    sys.exit(
        "SECRET_KEY is missing: with the public one anybody could sign a session. Set SECRET_KEY or"
        " SECRET_KEY_FILE; docs/deploy.md says how."
    )
