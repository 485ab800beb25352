"""The form of a target: its address, its two logins, what is read of it and how often."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from monitors.kinds import PGBOUNCER, POSTGRES
from monitors.models import Environment, Target, validate_name
from monitors.probes import probes_of
from monitors.targets import register

OPERATORS = (
    ("none", "No actions: this target is only watched"),
    ("own", "A login of its own for actions"),
    ("same", "Use the collector's login for actions too"),
)
SSL_MODES = (
    ("", "verify-full, the safe default"),
    *((mode.value, mode.value) for mode in Target.SSLMode),  # as libpq writes them
)
SEPARATOR = re.compile(r"[\s,]+")
OF_SERVERS = ("dbname", "include", "exclude", "cores", "allow_superuser")
"""Fields that a pooler has not."""
NEW_PASSWORD = {"autocomplete": "new-password", "spellcheck": "false"}
PLAIN = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class Words(forms.CharField):
    """Several words, parted by commas or spaces; its value is a list."""

    def prepare_value(self, value: Any) -> Any:
        """Return the words as they are typed."""
        return ", ".join(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        """Return the list of words, empty ones left out."""
        text = value if isinstance(value, str) else ", ".join(value or ())
        return [word for word in SEPARATOR.split(text) if word]


def text_field(label: str, *, help_text: str = "", **options: Any) -> forms.CharField:
    """Return a field for a name that a program chose: nothing corrects or keeps it."""
    widget = forms.TextInput(attrs=PLAIN)
    return forms.CharField(label=label, help_text=help_text, widget=widget, **options)


def password_field(label: str, help_text: str) -> forms.CharField:
    """Return a field whose value is never shown again."""
    widget = forms.PasswordInput(render_value=False, attrs=NEW_PASSWORD)
    return forms.CharField(
        label=label, help_text=help_text, widget=widget, required=False, strip=False, max_length=500
    )


class TargetForm(forms.Form):
    """A new target; with `target` an existing one, whose name can't change."""

    name = text_field(
        "Name",
        help_text="In every address; it can't be changed later.",
        max_length=63,
        validators=[validate_name],
    )
    environment = forms.ModelChoiceField(
        Environment.objects.all(), to_field_name="name", empty_label=None, initial="production"
    )
    host = text_field("Host", help_text="A name or an address.", max_length=255)
    port = forms.IntegerField(min_value=1, max_value=65535, initial=5432)
    dbname = text_field(
        "Enter by database",
        help_text="The others are found from there.",
        max_length=63,
        initial="postgres",
    )
    sslmode = forms.ChoiceField(
        label="TLS",
        choices=SSL_MODES,
        required=False,
        help_text="For this machine itself the default is disable.",
    )
    require_auth = text_field(
        "Accepted authentication",
        help_text="Empty for the safe default, for example scram-sha-256.",
        max_length=100,
        required=False,
    )
    user = text_field("User", max_length=63, initial="howdah_collector")
    password = password_field("Password", "Sealed at once; only workers can open it.")
    operator = forms.ChoiceField(
        label="Actions", choices=OPERATORS, initial="none", widget=forms.RadioSelect
    )
    operator_user = text_field("Operator user", max_length=63, required=False)
    operator_password = password_field("Operator password", "Sealed like the other one.")
    allow_superuser = forms.BooleanField(
        label="Let a superuser act", help_text="Not advised.", required=False
    )
    include = Words(
        label="Only these databases",
        help_text="Patterns such as shop*; empty: all.",
        required=False,
    )
    exclude = Words(label="But not these", help_text="Patterns, such as *_old.", required=False)
    tags = Words(label="Tags", help_text="To group targets by.", required=False)
    cores = forms.IntegerField(
        label="Cores of its machine",
        min_value=1,
        max_value=4096,
        required=False,
        help_text="SQL can't read them; load is drawn against them.",
    )

    def __init__(
        self, *args: Any, target: Target | None = None, kind: str = POSTGRES, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.target = target
        self.kind = target.kind if target is not None else kind
        if self.kind == PGBOUNCER:
            self.leave_out_databases()
        for probe in probes_of(self.kind):
            self.fields[f"interval_{probe.name}"] = forms.FloatField(
                label=probe.name,
                min_value=1,
                max_value=24 * 3600,
                required=False,
                widget=forms.NumberInput(
                    attrs={"placeholder": f"{probe.every.total_seconds():.0f}", "step": "any"}
                ),
            )
        if target is not None:
            del self.fields["name"]
            kept = "Leave it empty to keep the one that is stored."
            self.fields["password"].help_text = kept
            self.fields["operator_password"].help_text = kept

    def leave_out_databases(self) -> None:
        """Ask no more than a pooler has: its console is all that is entered."""
        for name in OF_SERVERS:
            del self.fields[name]
        self.fields["port"].initial = register.USUAL[Target.Kind.PGBOUNCER][0]
        self.fields["user"].initial = "howdah_stats"

    @property
    def intervals(self) -> list[forms.BoundField]:
        """The fields of the probes' intervals."""
        return [self[f"interval_{probe.name}"] for probe in probes_of(self.kind)]

    def clean(self) -> dict[str, Any]:
        """Check what two fields say together."""
        cleaned = super().clean() or {}
        if cleaned.get("operator") == "own" and not cleaned.get("operator_user"):
            self.add_error("operator_user", "Name the login that acts, or choose no actions.")
        is_same = cleaned.get("operator") == "same" and not cleaned.get("password")
        if is_same and self.target and self.target.operator_user != cleaned.get("user"):
            text = "Give the password once more: it is sealed for each login by itself."
            self.add_error("password", text)
        return cleaned

    def fields_of_target(self) -> dict[str, Any]:
        """Return the cleaned values as registration takes them, without name and passwords."""
        cleaned = self.cleaned_data
        acting = {"own": cleaned["operator_user"], "same": cleaned["user"]}
        names = ("host", "port", "user", "require_auth", "tags", *OF_SERVERS)
        return {
            **{name: cleaned[name] for name in names if name in cleaned},
            "sslmode": cleaned["sslmode"] or None,
            "environment": cleaned["environment"].name,
            "operator_user": acting.get(cleaned["operator"], ""),
            "intervals": {
                probe.name: cleaned[f"interval_{probe.name}"]
                for probe in probes_of(self.kind)
                if cleaned.get(f"interval_{probe.name}")
            },
        }

    def passwords(self) -> dict[str, str]:
        """Return the given passwords by login; the collector's stands for both where asked."""
        cleaned = self.cleaned_data
        operator = {"own": cleaned["operator_password"], "same": cleaned["password"]}
        given = {
            "collector": cleaned["password"],
            "operator": operator.get(cleaned["operator"], ""),
        }
        return {login: text for login, text in given.items() if text}

    def add_errors(self, error: ValidationError) -> None:
        """Put what registration found at the fields; what has no field stands above the form."""
        if not hasattr(error, "error_dict"):
            self.add_error(None, error)
            return
        for name, problems in error.error_dict.items():
            self.add_error(name if name in self.fields else None, problems)


def initial_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a form begins with, from a draft or a target's fields; no password."""
    user, operator = values.get("user"), values.get("operator_user")
    mode = "none" if not operator else "same" if operator == user else "own"
    intervals = values.get("intervals") or {}
    return {
        **{name: value for name, value in values.items() if name != "intervals"},
        **{f"interval_{name}": seconds for name, seconds in intervals.items()},
        "operator": mode,
    }


def initial_of_target(target: Target) -> dict[str, Any]:
    """Return what the form of an existing target begins with."""
    names = ("host", "port", "dbname", "sslmode", "require_auth", "user", "operator_user")
    more = ("allow_superuser", "include", "exclude", "tags", "intervals", "cores")
    values = {name: getattr(target, name) for name in (*names, *more)}
    return initial_of({**values, "environment": target.environment.name})
