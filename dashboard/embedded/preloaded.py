"""The process that imports all of web, workers and beat, and that they are then forked from.

It must see neither the private key nor the owner's login: the web is forked from it too. It leaves
no connection open and starts no thread.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import signal
import socket
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import django

from dashboard.embedded import processes
from dashboard.embedded.processes import PR_SET_NAME, PR_SET_PDEATHSIG, ROOT


def main() -> None:
    """Be what the one argument orders, or fork what each line of standard input orders."""
    load()
    if len(sys.argv) > 1:
        work(json.loads(sys.argv[1]))
    rehearse()
    gc.collect()
    gc.freeze()  # else the first collection of each child would write to every page of it
    with socket.socket(fileno=os.dup(0)) as orderer, orderer.makefile("rw") as orders:
        for line in orders:
            print(fork(json.loads(line)), file=orders, flush=True)


def load() -> None:
    """Import what any of them uses."""
    django.setup()
    from celery import concurrency, worker  # noqa: PLC0415 - after django.setup()
    from django.core.checks import run_checks  # noqa: PLC0415
    from django.urls import reverse  # noqa: PLC0415
    from kombu.transport import resolve_transport  # noqa: PLC0415

    from dashboard.celery import app  # noqa: PLC0415

    app.finalize()
    app.loader.import_default_modules()
    for found in pkgutil.walk_packages(worker.__path__, "celery.worker."):
        import_module(found.name)
    for name in ("celery.apps.worker", "celery.app.log", "celery.beat", "granian.server"):
        import_module(name)
    concurrency.get_implementation("threads")
    resolve_transport("redis")
    reverse("login")  # imports every page
    run_checks()
    os.environ["CELERY_SKIP_CHECKS"] = "1"  # each worker would repeat them


def rehearse() -> None:
    """Do once what each would do first, so that what that makes is in memory once as well."""
    from celery import concurrency  # noqa: PLC0415 - after load()
    from django.db import DatabaseError, connections  # noqa: PLC0415
    from kombu.exceptions import OperationalError  # noqa: PLC0415

    from dashboard.celery import app  # noqa: PLC0415
    from monitors.models import Target  # noqa: PLC0415

    app.Worker(pool_cls=concurrency.get_implementation("threads"), queues="rehearsal", quiet=True)
    with suppress(OperationalError), app.connection_for_read() as broker:
        broker.ensure_connection(max_retries=1)
    with suppress(DatabaseError):  # each will say for itself that it is away
        Target.objects.exists()
    connections.close_all()


def fork(order: dict[str, Any]) -> int:
    """Fork a process that no longer is our child but that of whoever ordered it; return its id."""
    reads, writes = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid:
            os.write(writes, str(pid).encode())
            os._exit(0)
        os.close(reads)
        os.close(writes)
        become(order)
    os.close(writes)
    os.waitpid(between, 0)
    with os.fdopen(reads) as answer:
        return int(answer.read())


def become(order: dict[str, Any]) -> NoReturn:
    """Leave all that is the parent's but what it has imported, and work."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for ours, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(ours, standard)
    os.close(nothing)
    os.close(log)
    while os.getppid() != order["parent"]:  # the process between has not ended yet
        if not processes.alive(order["parent"]):
            os._exit(1)
        time.sleep(0.001)
    processes.control(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != order["parent"]:
        os._exit(1)
    processes.control(PR_SET_NAME, order["name"].encode()[:15])
    os.environ.update(order["env"])
    try:
        work(order)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # noqa: BLE001 - it must never go on as its parent
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def work(order: dict[str, Any]) -> NoReturn:
    """Do what a role does until it ends."""
    from dashboard.embedded.roles import ROLES  # noqa: PLC0415 - after load()

    os.chdir(ROOT)
    ROLES[order["role"]](**order["arguments"])
    sys.exit(0)


if __name__ == "__main__":
    main()
