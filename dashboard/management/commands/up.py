"""Start everything that Howdah needs, and watch over it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from dashboard.embedded.stack import Options
from dashboard.embedded.supervisor import run


class Command(BaseCommand):
    """Run the embedded stack, or only Howdah's own processes where DATABASE_URL is set."""

    help = "Starts Howdah with all it needs. bin/up calls this."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options of bin/up."""
        parser.add_argument("--port", type=int, help="port of the web server (default: 8000)")
        parser.add_argument("--bind", default="127.0.0.1", help="address (default: 127.0.0.1)")
        parser.add_argument(
            "--once",
            action="store_true",
            help="start, wait until healthy, print one line of JSON, stop",
        )
        parser.add_argument("--no-demo", action="store_true", help="no demonstration target")
        parser.add_argument(
            "--insecure",
            action="store_true",
            help="allow plain HTTP on an address that others can reach",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Run until stopped; the exit status is 0 for a stop, 1 for a failure, 2 for bad use."""
        status = run(
            Options(
                port=options["port"],
                bind=options["bind"],
                once=options["once"],
                demo=not options["no_demo"],
                insecure=options["insecure"],
            )
        )
        if status:
            raise SystemExit(status)
