"""Logs as lines of JSON: a name or a traceback with line breaks in it makes no second entry."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

SERVER_ERROR = 500


class Short(logging.Filter):
    """Leaves out the traceback of a request that was refused for what it holds (4xx)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass; Django gives those of requests a `status_code`."""
        if getattr(record, "status_code", SERVER_ERROR) < SERVER_ERROR:
            record.exc_info = None
        return True


class JSONFormatter(logging.Formatter):
    """Writes {"at", "level", "logger", "message"} and, of an exception, "traceback"; `at` is UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
