#!/usr/bin/env python3
"""Django's command line. It runs itself in the project's environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYTHON = ROOT / ".venv" / "bin" / "python"


def main() -> None:
    """Run a management command against the stack that runs, if one does."""
    if PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
        os.execv(PYTHON, [str(PYTHON), str(ROOT / "manage.py"), *sys.argv[1:]])  # noqa: S606
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")

    if sys.argv[1:2] == ["up"]:  # starts what Django needs, so it does not wait for Django
        from dashboard.management.commands.up import Command  # noqa: PLC0415

        Command().run_from_argv(sys.argv)
        return
    from dashboard.embedded import running  # noqa: PLC0415 - not before the re-execution

    running.adopt(sys.argv)
    from django.core.management import execute_from_command_line  # noqa: PLC0415

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
