"""Do something to a target: same rights, guard and audit as on the pages."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.management.base import CommandParser

from monitors.acting import ask, batch, perform, preview
from monitors.action import InvalidArguments, Refused
from monitors.actions import ACTIONS
from monitors.management import command
from monitors.management.command import FAILURE, SOURCE, add_json, bad_use, failure
from monitors.models import Action, Batch, Target
from monitors.people import access
from monitors.rows import due
from monitors.targets import secrets

WORKER_SECONDS = 5.0
"""How long a worker may take to pick something up before we do it here."""
POLL_SECONDS = 0.1
SKIPPED = 3
REFUSED = 4
UNREACHABLE = "unreachable"
"""The outcome where the target's state could not be read, so that nothing was asked for."""
STATUS = {
    Action.State.SUCCEEDED: 0,
    Action.State.SKIPPED: SKIPPED,
    Action.State.REFUSED: REFUSED,
}
ACCEPTED = frozenset({Action.State.QUEUED, Action.State.RUNNING, Action.State.WAITING})


class Command(command.Command):
    """`manage.py act ACTION --target NAME --as USER --arg key=value …`.

    With `--tables` or `--due` one action on several tables, a result for each.
    """

    help = (
        "Do something to a target. Exit status: 0 succeeded (without --wait: accepted),"
        " 3 skipped, 4 refused, 2 bad use, 1 otherwise."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("action", choices=list(ACTIONS), metavar="ACTION")
        parser.add_argument("--target", required=True)
        parser.add_argument("--as", required=True, dest="user", help="whose rights to use")
        parser.add_argument(
            "--arg", action="append", default=[], type=pair, metavar="KEY=VALUE", dest="arguments"
        )
        several = parser.add_mutually_exclusive_group()
        several.add_argument(
            "--tables", nargs="+", metavar="TABLE", help="several tables, as public.orders"
        )
        several.add_argument(
            "--due", action="store_true", help="every table that is past autovacuum's threshold"
        )
        parser.add_argument("--reason", default="", help="why, for the audit")
        parser.add_argument("--wait", action="store_true", help="wait until it has ended")
        add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, and perform here where no worker does."""
        user, target = person_and_target(options["user"], options["target"])
        several = options["tables"] or options["due"]
        (self.several if several else self.one)(user, target, options)

    def one(self, user: User, target: Target, options: dict[str, Any]) -> None:
        """Ask for one action, and print what became of it."""
        try:
            row = self.asked(user, target, options)
        except InvalidArguments as error:
            raise bad_use(str(error)) from None
        except (Refused, PermissionDenied) as error:
            self.not_asked(options, str(error))
        row = self.picked_up(row)
        if options["wait"]:
            if row.state == Action.State.WAITING:
                self.warn("It waits until another person approves it.")
            row = wait_until(row, lambda found: found.is_final)
        if options["json"]:
            self.print_json(described(row))
        else:
            self.say(f"{row.name} {row.object_name}: {row.state}. {row.outcome}".strip())
        status = STATUS.get(Action.State(row.state), FAILURE)
        if row.state in ACCEPTED and not options["wait"]:
            status = 0
        if status:
            raise SystemExit(status)

    def several(self, user: User, target: Target, options: dict[str, Any]) -> None:
        """Ask for one action on several tables, and print one line with a result for each."""
        try:
            made = self.batch_asked(user, target, options)
        except InvalidArguments as error:
            raise bad_use(str(error)) from None
        except (Refused, PermissionDenied) as error:
            self.not_asked(options, str(error), more={"results": []})
        rows = self.worked_off(made, wait=options["wait"])
        if options["json"]:
            outcome = "asked" if any(not row.is_final for row in rows) else "ended"
            self.print_json(
                {
                    "id": str(made.pk),
                    "action": made.name,
                    "target": made.target_name,
                    "outcome": outcome,
                    "states": batch.counts(rows),
                    "results": [{**described(row), "object": row.object_name} for row in rows],
                }
            )
        else:
            for row in rows:
                self.say(f"{row.name} {row.object_name}: {row.state}. {row.outcome}".strip())
        status = max((severity(row, wait=options["wait"]) for row in rows), key=WORST.index)
        if status:
            raise SystemExit(status)

    def batch_asked(self, user: User, target: Target, options: dict[str, Any]) -> Batch:
        """Return the batch that was asked for, through its preview."""
        arguments = dict(options["arguments"])
        database = arguments.pop("database", target.dbname)
        if options["due"]:
            tables = [
                {"database": one.database, "relid": str(one.relid)}
                for one in due.due_tables(target)
            ]
        else:
            tables = [{"database": database, "table": name} for name in options["tables"]]
        made = batch.preview(
            user, target, options["action"], tables, arguments, due=options["due"], source=SOURCE
        )
        deadline = time.monotonic() + WORKER_SECONDS + len(tables) / 10
        while not batch.is_ready(made) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if not batch.is_ready(made):
            require_key()
            preview.preview_batch(str(made.pk))
        return batch.request(user, made, reason=options["reason"], source=SOURCE)

    def worked_off(self, made: Batch, *, wait: bool) -> list[Action]:
        """Return the rows once a worker has begun, or all have ended; performed here without one."""
        rows = made.actions.order_by("batch_position")
        deadline = time.monotonic() + WORKER_SECONDS
        waiting = rows.filter(state=Action.State.QUEUED)
        while waiting.count() == made.actions.count() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        # A worker has begun with this one, or has not ended another one of the same target.
        running = Action.objects.filter(batch__target=made.target, state=Action.State.RUNNING)
        begun = running.exists() or rows.filter(started_at__isnull=False).exists()
        while not begun and (row := waiting.first()) is not None:
            require_key()
            perform.perform(str(row.pk))
            if waiting.filter(pk=row.pk).exists():
                time.sleep(POLL_SECONDS)  # another batch took the place
        while wait and rows.filter(state__in=batch.OPEN).exists():
            time.sleep(POLL_SECONDS)
        return list(rows)

    def asked(self, user: User, target: Target, options: dict[str, Any]) -> Action:
        """Return the row of what was asked for, through its preview where it has one."""
        name, arguments = options["action"], dict(options["arguments"])
        if ACTIONS[name].direct:
            return ask.ask(user, target, name, arguments, reason=options["reason"], source=SOURCE)
        draft = ask.preview(user, target, name, arguments, source=SOURCE)
        draft = self.previewed(draft)
        for warning in draft.preview.get("warnings", []):
            self.warn(f"Warning: {warning}")
        if draft.preview.get("unreachable"):
            self.not_asked(options, draft.preview["refused"], UNREACHABLE, FAILURE)
        return ask.request(user, draft, reason=options["reason"], source=SOURCE)

    def previewed(self, draft: Action) -> Action:
        """Return a draft whose preview is there: a worker's, else our own."""
        if draft.preview.get("queued", True):
            draft = wait_until(draft, lambda row: bool(row.preview.get("ready")), WORKER_SECONDS)
        if not draft.preview.get("ready"):
            require_key()
            preview.preview_now(str(draft.pk))
            draft.refresh_from_db()
        return draft

    def picked_up(self, row: Action) -> Action:
        """Return a row that a worker has taken, or perform it here: it is claimed once."""
        row = wait_until(row, lambda found: found.state != Action.State.QUEUED, WORKER_SECONDS)
        if row.state == Action.State.QUEUED:
            require_key()
            perform.perform(str(row.pk))
            row.refresh_from_db()
        return row

    def not_asked(
        self,
        options: dict[str, Any],
        reason: str,
        outcome: str = Action.State.REFUSED.value,
        status: int = REFUSED,
        *,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> NoReturn:
        """Print why nothing was asked for, and leave."""
        if options["json"]:
            self.print_json(
                {
                    "id": None,
                    "action": options["action"],
                    "target": options["target"],
                    "outcome": outcome,
                    "reason": reason,
                    "sql": "",
                    "before": {},
                    "after": {},
                    "effect": "",
                    **more,
                }
            )
        self.leave(reason, status)


WORST = (0, SKIPPED, REFUSED, FAILURE)
"""Exit statuses of several results: the worst one counts."""


def severity(row: Action, *, wait: bool) -> int:
    """Return the exit status of one row."""
    if row.state in ACCEPTED and not wait:
        return 0
    return STATUS.get(Action.State(row.state), FAILURE)


def pair(text: str) -> tuple[str, str]:
    """Read KEY=VALUE."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        message = f"give KEY=VALUE, not {text!r}."
        raise argparse.ArgumentTypeError(message)
    return key, value


def person_and_target(user_name: str, target_name: str) -> tuple[User, Target]:
    """Return who acts on what; raises CommandError, for a hidden target as for none."""
    user = User.objects.filter(username=user_name, is_active=True).first()
    if user is None:
        message = f"There is no active account {user_name}: make it with person add."
        raise failure(message)
    try:
        return user, access.get_visible_target(user, target_name)
    except Target.DoesNotExist:
        message = f"There is no target {target_name} that {user_name} may see."
        raise failure(message) from None


def require_key() -> None:
    """Raise CommandError where this process can't read passwords."""
    if not secrets.can_unseal():
        message = (
            "No worker answers and this process has no private key: start the workers, or set"
            " HOWDAH_PRIVATE_KEY_FILE."
        )
        raise failure(message)


def wait_until(
    row: Action, condition: Callable[[Action], bool], seconds: float | None = None
) -> Action:
    """Return the row once a condition holds or the time is up; None waits for ever."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        row.refresh_from_db()
        if condition(row) or (deadline is not None and time.monotonic() > deadline):
            return row
        time.sleep(POLL_SECONDS)


def described(row: Action) -> dict[str, Any]:
    """Return a row as `--json` prints it; reason is the outcome's sentence."""
    return {
        "id": str(row.pk),
        "action": row.name,
        "target": row.target_name,
        "outcome": row.state,
        "reason": row.outcome,
        "sql": row.sql,
        "before": row.before,
        "after": row.after,
        "effect": row.effect,
    }
