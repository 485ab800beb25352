"""Programs of a later Debian: found where they were prepared, told where they were not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import debian, servers


def test_what_was_not_prepared_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOWDAH_TEST_POSTGRESQL_19", str(tmp_path))

    with pytest.raises(servers.Missing, match=r"python -m tests\.debian postgresql-19"):
        servers.fleet_programs(19)


@pytest.mark.parametrize("name", debian.SETS)
def test_what_was_prepared_runs_here(name: str) -> None:
    try:
        folder = debian.found(name)
    except debian.Missing as error:
        pytest.skip(str(error))
    program = debian.SETS[name].programs[0]

    said = subprocess.run(
        [folder / program, "--version"], capture_output=True, text=True, check=True
    )

    assert name.rpartition("-")[2] in said.stdout
