"""How much memory web, workers and beat keep to themselves, ten minutes after bin/up.

    .venv/bin/python -m pytest -m bench -s tests/bench/test_memory.py

HOWDAH_BENCH_BESIDE=/another/checkout starts that one at the same time and prints both.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from dashboard.embedded import processes, running
from dashboard.embedded.processes import ROOT
from tests import servers
from tests.test_up import environment, processes_of

pytestmark = pytest.mark.bench

MINUTES = float(os.environ.get("HOWDAH_BENCH_MINUTES", "10"))
OURS = re.compile(r"granian|celery|dashboard\.embedded\.preloaded")


def test_memory_of_web_workers_and_beat() -> None:
    beside = os.environ.get("HOWDAH_BENCH_BESIDE")
    checkouts = [ROOT, *([Path(beside)] if beside else [])]
    with ExitStack() as stack:
        states = [stack.enter_context(servers.home()) / "state" for _ in checkouts]
        for checkout, state in zip(checkouts, states, strict=True):
            up = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=checkout,
                env=environment(state),
                stdout=subprocess.DEVNULL,
            )
            stack.callback(up.wait, 30)
            stack.callback(up.terminate)
            ready = processes.wait_until(partial(is_up, state), seconds=200)
            assert ready, state
        time.sleep(60 * MINUTES)
        print("\n| checkout | processes | Pss_Anon, MB | RssAnon, MB |\n|---|---|---|---|")
        for checkout, state in zip(checkouts, states, strict=True):
            pids = [pid for pid, line in processes_of(state).items() if OURS.search(line)]
            shares = sum(kilobytes(pid, "smaps_rollup", "Pss_Anon") for pid in pids)
            whole = sum(kilobytes(pid, "status", "RssAnon") for pid in pids)
            print(f"| {checkout.name} | {len(pids)} | {shares / 1000:.0f} | {whole / 1000:.0f} |")


def is_up(state: Path) -> bool:
    """Whether a stack says that it runs."""
    return running.read(state) is not None


def kilobytes(pid: int, file: str, name: str) -> int:
    """A figure of a process; Pss_Anon counts a page that several share as a part for each."""
    found = re.search(
        rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE
    )
    assert found, (pid, name)
    return int(found[1])
