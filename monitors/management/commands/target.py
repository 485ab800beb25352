"""Register, change, check and remove targets."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser

from monitors import words
from monitors.management import command
from monitors.management.command import SOURCE, add_json, bad_use, failure, read_secret
from monitors.models import Target, validate_name
from monitors.targets import check as checks, register, remove, rotation, secrets

OPTIONS = (
    "kind",
    "host",
    "port",
    "user",
    "dbname",
    "operator_user",
    "environment",
    "sslmode",
    "require_auth",
    "include",
    "exclude",
    "tags",
    "intervals",
    "cores",
    "allow_superuser",
)


class Command(command.Command):
    """`manage.py target add|edit|enable|disable|remove|list|check|reseal`."""

    help = "Register, change, check and remove targets."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands."""
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=command.Parser)
        add = verbs.add_parser("add", help="register a server")
        add.add_argument("name")
        add.add_argument(
            "--kind", choices=Target.Kind.values, help="postgres where it is not given"
        )
        add_fields(add, required=True)
        edit = verbs.add_parser("edit", help="change a target; what is not named stays")
        edit.add_argument("name")
        add_fields(edit, required=False)
        for verb, text in (
            ("enable", "watch it again"),
            ("disable", "stop watching it; its history stays"),
        ):
            verbs.add_parser(verb, help=text).add_argument("name")
        remove = verbs.add_parser("remove", help="delete it with all its history")
        remove.add_argument("name")
        remove.add_argument("--yes", action="store_true", help="don't ask")
        add_json(verbs.add_parser("list", help="list the targets"))
        checking = verbs.add_parser("check", help="connect and say what works")
        checking.add_argument("name")
        add_json(checking)
        verbs.add_parser("reseal", help="seal all passwords with the newest key")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one subcommand."""
        {
            "add": self.add,
            "edit": self.edit,
            "enable": self.enable,
            "disable": self.disable,
            "remove": self.remove,
            "list": self.list,
            "check": self.check_target,
            "reseal": self.reseal,
        }[options["verb"]](options)

    def add(self, options: dict[str, Any]) -> None:
        """Connect and check, then save."""
        validate_name(options["name"])  # before anybody connects
        fields = given(options)
        fields.setdefault("port", register.USUAL[fields.get("kind", Target.Kind.POSTGRES)][0])
        passwords = passwords_of(options)
        if Target.objects.filter(name=options["name"]).exists():
            message = (
                f"There is a target {options['name']} already: edit it, or choose another name."
            )
            raise failure(message)
        if not options["no_check"]:
            self.try_out({"name": options["name"], **fields}, passwords)
        target = register.add(
            command.person(),
            SOURCE,
            name=options["name"],
            password=passwords.get("collector", ""),
            operator_password=passwords.get("operator", ""),
            **fields,
        )
        self.say(f"{target.name} is registered: {target.address}.")
        if not target.operator_user:
            self.say("It has no operator login: nothing can be done to it (--operator-user).")

    def edit(self, options: dict[str, Any]) -> None:
        """Save what was named, and say which password has to be given again."""
        target = command.target_named(options["name"])
        fields, passwords = given(options), passwords_of(options)
        if not fields and not passwords:
            message = "Name what to change, as --host or --tag."
            raise bad_use(message)
        register.edit(
            command.person(),
            SOURCE,
            target,
            password=passwords.get("collector"),
            operator_password=passwords.get("operator"),
            **fields,
        )
        self.say(f"{target.name} is changed.")
        self.warn_of_missing_passwords(command.target_named(target.name))

    def warn_of_missing_passwords(self, target: Target) -> None:
        """Say which login has no password stored."""
        stored = set(target.targetsecret_set.values_list("login", flat=True))
        logins = {"collector": target.user, "operator": target.operator_user}
        for login, user in logins.items():
            if user and login not in stored:
                option = "--password-file" if login == "collector" else "--operator-password-file"
                self.warn(f"No password is stored for {user}: give it with {option}.")

    def enable(self, options: dict[str, Any]) -> None:
        """Watch a target again."""
        target = command.target_named(options["name"])
        register.enable(command.person(), SOURCE, target)
        self.say(f"{target.name} is enabled.")

    def disable(self, options: dict[str, Any]) -> None:
        """Stop watching a target."""
        target = command.target_named(options["name"])
        register.disable(command.person(), SOURCE, target)
        self.say(f"{target.name} is disabled; its history stays.")

    def remove(self, options: dict[str, Any]) -> None:
        """Delete a target after asking."""
        target = command.target_named(options["name"])
        if not options["yes"]:
            self.confirm(target)
        if register.remove(command.person(), SOURCE, target):
            self.say(f"{target.name} is being removed with its history.")
        else:
            remove.delete_target(target.pk)
            self.say(f"{target.name} is removed with its history.")

    def confirm(self, target: Target) -> None:
        """Ask for the name; raises CommandError where it is not typed."""
        question = f"Delete {target.name} and all its history? Type its name: "
        try:
            self.stderr.write(question, ending="")
            answer = input()
        except EOFError:
            answer = ""
        if answer.strip() != target.name:
            message = f"{target.name} stays: its name was not typed. Give --yes to not be asked."
            raise bad_use(message)

    def list(self, options: dict[str, Any]) -> None:
        """Print the targets by name."""
        targets = Target.objects.filter(deleting_at=None).select_related("environment")
        if options["json"]:
            self.print_json([described(target) for target in targets])
            return
        for target in targets:
            state = "" if target.enabled else "  disabled"
            self.say(f"{target.name}  {target.address}  {target.environment}{state}")

    def check_target(self, options: dict[str, Any]) -> None:
        """Connect with the stored passwords and print what works."""
        target = command.target_named(options["name"])
        try:
            result = checks.check(target, checks.stored_passwords(target))
        except (checks.CheckFailed, secrets.SecretUnreadable) as error:
            message = f"{target.name}: {error}"
            raise failure(message) from None
        if options["json"]:
            self.print_json(result)
        else:
            self.report(result)

    def reseal(self, options: dict[str, Any]) -> None:
        """Seal stored passwords with the newest key, in this process, which needs the private ones."""
        del options
        try:
            done = rotation.reseal(command.person(), SOURCE)
        except secrets.SecretUnreadable as error:
            raise failure(str(error)) from None
        self.say(f"{words.count(done.sealed, 'password')} sealed with key {done.key_id}.")
        if done.already:
            self.say(f"{words.count(done.already, 'password')} had it already.")
        if done.unreadable:
            lost = " ".join(f"{login}: {why}" for login, why in done.unreadable.items())
            raise failure(lost)
        self.say("Older keys can be dropped.")

    def try_out(self, draft: dict[str, Any], passwords: dict[str, str]) -> None:
        """Connect to what shall be saved; raises CommandError where that fails."""
        try:
            result = checks.check(draft, passwords)
        except checks.CheckFailed as error:
            message = f"{draft['host']}: {error} Nothing was saved; --no-check saves it unseen."
            raise failure(message) from None
        self.report(result)

    def report(self, result: dict[str, Any]) -> None:
        """Print a check's result for people."""
        role = "standby" if result["in_recovery"] else "primary"
        what = f"PostgreSQL {result['version_text']}, {role}."
        if result["kind"] == Target.Kind.PGBOUNCER:
            what = f"PgBouncer {result['version_text']}."
        self.say(what)
        for kind in ("probes", "actions"):
            for row in result[kind]:
                state = "works" if row["works"] else f"needs: {row['needs']}"
                self.say(f"  {row['name']}: {state}")
        for text in result["warnings"]:
            self.warn(f"Warning: {text}")


def add_fields(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Declare a target's fields as options."""
    parser.add_argument("--host", required=required)
    parser.add_argument("--port", type=int, help="5432 where it is not given, 6432 of a pooler")
    parser.add_argument("--user", required=required, help="the collector login")
    parser.add_argument("--password-file", help="its first line is the password; - reads input")
    parser.add_argument(
        "--database", dest="dbname", help="where to enter; postgres where it is not given"
    )
    parser.add_argument("--operator-user", help="the login for actions")
    parser.add_argument("--operator-password-file")
    parser.add_argument("--allow-superuser", action="store_true", default=None)
    parser.add_argument("--environment", help="production where it is not given")
    parser.add_argument("--sslmode", choices=Target.SSLMode.values)
    parser.add_argument("--require-auth")
    parser.add_argument("--include", action="append", metavar="GLOB", help="databases to read")
    parser.add_argument("--exclude", action="append", metavar="GLOB", help="databases to leave")
    parser.add_argument("--tag", action="append", dest="tags")
    parser.add_argument(
        "--interval", action="append", dest="intervals", type=interval, metavar="PROBE=SECONDS"
    )
    parser.add_argument("--cores", type=int, help="of its machine; 0 where they are not known")
    if required:
        parser.add_argument("--no-check", action="store_true", help="save without connecting")


def interval(text: str) -> tuple[str, float]:
    """Read PROBE=SECONDS."""
    name, separator, seconds = text.partition("=")
    try:
        return name, float(seconds) if separator else float("nan")
    except ValueError:
        message = f"give PROBE=SECONDS, not {text!r}."
        raise argparse.ArgumentTypeError(message) from None


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that were named."""
    fields = {name: options[name] for name in OPTIONS if options.get(name) is not None}
    if "intervals" in fields:
        fields["intervals"] = dict(fields["intervals"])
    if fields.get("cores") == 0:
        fields["cores"] = None
    return fields


def passwords_of(options: dict[str, Any]) -> dict[str, str]:
    """Return the passwords that were given, by login."""
    files = {"collector": options["password_file"], "operator": options["operator_password_file"]}
    return {login: read_secret(path) for login, path in files.items() if path}


def described(target: Target) -> dict[str, Any]:
    """Return a target as `list --json` prints it."""
    return {
        "name": target.name,
        "kind": target.kind,
        "host": target.host,
        "port": target.port,
        "environment": target.environment.name,
        "enabled": target.enabled,
        "dbname": target.dbname,
        "user": target.user,
        "operator_user": target.operator_user,
        "sslmode": target.sslmode,
        "tags": target.tags,
        "cores": target.cores,
        "version": target.server_version,
        "in_recovery": target.in_recovery,
    }
