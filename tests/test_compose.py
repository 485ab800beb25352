"""docker-compose.yml and Dockerfile against the code: commands, variables, queues and ports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from dashboard.embedded import databases, demo, deploy, prepare, stack, state
from dashboard.embedded.processes import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "howdah"}
WORKERS = {name: service for name, service in OURS.items() if name.startswith("worker-")}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def option(service: dict[str, Any], flag: str) -> str:
    """What stands behind a flag of a service's command."""
    command = service["command"]
    return str(command[command.index(flag) + 1])


def variables_in_code() -> set[str]:
    """Every environment variable that our own code asks for, a secret also as _FILE."""
    names = set()
    for path in (ROOT / "dashboard").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        names |= set(
            re.findall(r"""(?:env\.\w+|secret|environ\.get|environ\[)\(?\s*"(\w+)\"""", source)
        )
    names |= {"DATABASE_URL", "MIGRATE_DATABASE_URL", "HOWDAH_ROLE"}
    return names | {f"{name}_FILE" for name in names}


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_our_services_is_read_by_the_code(name: str) -> None:
    libpq = {"PGHOST", "PGPORT", "PGUSER"}

    assert set(OURS[name].get("environment", {})) - libpq <= variables_in_code()


def test_the_workers_read_the_same_queues_as_those_of_bin_up() -> None:
    queues = {
        service["environment"]["HOWDAH_ROLE"]: (option(service, "-Q"), int(option(service, "-c")))
        for service in WORKERS.values()
    }

    assert queues == stack.WORKERS


def test_every_queue_of_the_schedule_has_a_reader() -> None:
    read = {queue for service in WORKERS.values() for queue in option(service, "-Q").split(",")}
    used = {entry["options"]["queue"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}

    assert used | {settings.CELERY_TASK_DEFAULT_QUEUE} <= read


@pytest.mark.parametrize("name", [name for name in OURS if "command" in OURS[name]])
def test_every_command_runs_a_program_that_exists(name: str) -> None:
    command = SERVICES[name]["command"]
    if command[0] == "celery":
        assert option(SERVICES[name], "-A") == "dashboard"
        assert command[3] == "-q"
        assert command[4] in {"worker", "beat"}
    else:
        assert command[:2] == ["python", "-m"]
        assert (ROOT / f"{command[2].replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("name", ["worker-signals", "beat"])
def test_a_celery_command_starts_with_nothing_but_its_own_variables(name: str) -> None:
    program = Path(sys.executable).with_name("celery")
    bare = {"PATH": os.environ["PATH"], "SECRET_KEY": "x", "HOWDAH_NO_ADOPT": "1"}
    done = subprocess.run(
        [program, *SERVICES[name]["command"][1:3], "report"],
        cwd=ROOT,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "tick" in done.stdout


def test_only_workers_hold_the_private_key() -> None:
    holders = {
        name for name, service in SERVICES.items() if "private_key" in service.get("secrets", [])
    }

    assert holders == set(WORKERS)


def test_every_secret_is_mounted_declared_and_written() -> None:
    written = set(deploy.files(dict.fromkeys([*state.PASSWORDS, "public_key", "private_key"], "x")))
    mounted = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}

    assert mounted == set(COMPOSE["secrets"]) == written


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "secrets"])
def test_every_secret_file_that_a_service_names_is_mounted_there(name: str) -> None:
    service = SERVICES[name]
    configs = [
        COMPOSE["configs"][config["source"]]["content"] for config in service.get("configs", [])
    ]
    text = json.dumps([service.get(key) for key in ("command", "environment", "healthcheck")])
    named = set(re.findall(r"/run/secrets/(\w+)", text + "".join(configs)))

    assert named <= set(service.get("secrets", []))
    assert set(service.get("secrets", [])) <= named


def test_no_secret_stands_in_the_file_itself() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|KEY|URL", name):
                assert name.endswith("_FILE"), name
                assert str(value).startswith("/run/secrets/")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"prepare", "secrets", "sample-workload"}))
def test_everything_that_stays_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


def test_the_published_port_is_the_one_that_the_server_listens_on() -> None:
    (published,) = SERVICES["web"]["ports"]
    listens = re.search(r'"--port", "(\d+)"', DOCKERFILE)

    assert listens
    assert published == f"127.0.0.1:8000:{listens[1]}"
    assert f"EXPOSE {listens[1]}" in DOCKERFILE


def test_nothing_but_the_web_is_published() -> None:
    assert [name for name, service in SERVICES.items() if service.get("ports")] == ["web"]


def test_our_processes_run_as_an_ordinary_user_and_may_write_nothing() -> None:
    assert re.findall(r"^USER (\w+)", DOCKERFILE, re.MULTILINE) == ["howdah"]
    for name, service in OURS.items():
        if name != "secrets":  # writes files of the host, by hand, once
            assert "user" not in service
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]


def test_the_health_checks_ask_addresses_that_exist(client: Any) -> None:
    asked = set(re.findall(r"http://[\w.]+:8000(/[\w/]+)", json.dumps(SERVICES)))

    assert asked == {"/healthz/live", "/healthz/ready"}
    assert client.get("/healthz/live").status_code == 200


def test_the_roles_and_databases_are_those_of_bin_up() -> None:
    history = COMPOSE["configs"]["history"]["content"]
    sample = COMPOSE["configs"]["sample"]["content"]

    assert set(re.findall(r"CREATE ROLE (\w+)", history)) == {databases.OWNER, databases.APP}
    assert {databases.COLLECTOR, databases.OPERATOR} < set(re.findall(r"CREATE ROLE (\w+)", sample))
    assert set(re.findall(r"CREATE DATABASE (\w+)", sample)) == {demo.SHOP, demo.BILLING}
    assert SERVICES["web"]["environment"]["HOWDAH_APP_ROLE"] == databases.APP


def test_the_sample_is_registered_as_the_demonstration() -> None:
    (known,) = json.loads(SERVICES["prepare"]["environment"]["HOWDAH_TARGETS"])

    assert known["name"] == prepare.DEMO
    assert known["host"] in SERVICES
    assert set(known) == set(prepare.Known.__annotations__)


def test_the_image_copies_every_file_that_it_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:].rstrip("/") for line in ignored if line.startswith("!")}

    assert allowed >= {"manage.py", "dashboard", "monitors", "templates", "static"}
    assert {name for name in allowed if not (ROOT / name).exists()} == set()
    for name in re.findall(r"^COPY ((?:[\w.-]+\.txt ?)+)", DOCKERFILE, re.MULTILINE):
        assert set(name.split()) <= allowed
