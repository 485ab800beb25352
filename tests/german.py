"""PostgreSQL that speaks German: what decides by English words fails there.

`HOWDAH_TEST_GERMAN=1 bin/test …` gives the fixture `server` German servers, those of 15 and 19
where they are, and skips the other versions: npm's builds are not translated, Debian's are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import debian
from tests.debian import Missing

WANTED = "HOWDAH_TEST_GERMAN" in os.environ
MAJORS = (15, 19)
LOCALE = "de_DE.UTF-8"


def programs(major: int) -> Path:
    """Return a translated version's folder of programs; raises Missing where there is none."""
    installed = Path(f"/usr/lib/postgresql/{major}/bin")
    translated = Path(f"/usr/share/locale/de/LC_MESSAGES/postgres-{major}.mo")
    if (installed / "postgres").exists() and translated.exists():
        return installed
    if major == MAJORS[-1]:
        return debian.found(f"postgresql-{major}")
    message = f"No PostgreSQL {major} that speaks German: apt-get install postgresql-{major}."
    raise Missing(message)


@contextmanager
def spoken(folder: Path) -> Iterator[dict[str, str]]:
    """Give the settings of a server that speaks German, and what it needs where it starts.

    Raises Missing where the locale can't be made: Debian's package `locales` has its source.
    """
    place = folder / "locales"
    program = shutil.which("localedef", path=f"{os.environ.get('PATH', '')}:/usr/bin")
    if program is None:
        message = "No localedef makes German: apt-get install locales."
        raise Missing(message)
    place.mkdir(mode=0o755, exist_ok=True)
    made = subprocess.run(
        [program, "-i", "de_DE", "-f", "UTF-8", place / LOCALE],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        message = f"German can't be made: apt-get install locales. {made.stderr.strip()[-200:]}"
        raise Missing(message)
    before = os.environ.get("LOCPATH")
    os.environ["LOCPATH"] = str(place)
    try:
        yield {"lc_messages": LOCALE}
    finally:
        del os.environ["LOCPATH"]
        if before is not None:
            os.environ["LOCPATH"] = before
