"""The forms of what stuck means for somebody, and of the standing rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from monitors.models import Environment, StandingRule, StuckDefinition, Target, validate_name
from monitors.models.stuck import MONTH_SECONDS

PLAIN = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
GLOB = "A glob, as report-*; empty fits all."


def glob_field(label: str, help_text: str = "") -> forms.CharField:
    """Return a field for a glob over names."""
    return forms.CharField(
        label=label,
        required=False,
        max_length=100,
        widget=forms.TextInput(attrs=PLAIN),
        help_text=help_text,
    )


def seconds_field(label: str, help_text: str = "") -> forms.FloatField:
    """Return a field for a limit in seconds; empty means never."""
    return forms.FloatField(
        label=label, required=False, min_value=1, max_value=MONTH_SECONDS, help_text=help_text
    )


class DefinitionForm(forms.Form):
    """Whom it names, and after how many seconds they are stuck."""

    application_name = glob_field("Application", GLOB)
    usename = glob_field("User", GLOB)
    datname = glob_field("Database", GLOB)
    environment = forms.ModelChoiceField(
        Environment.objects.none(), required=False, empty_label="every environment"
    )
    running = seconds_field("Running over (seconds)", "Of all four: empty means never.")
    blocked = seconds_field("Blocked over (seconds)")
    blocking = seconds_field("Blocking over (seconds)")
    idle_in_transaction = seconds_field("Idle in transaction over (seconds)")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen = self.fields["environment"]
        assert isinstance(chosen, forms.ModelChoiceField)  # noqa: S101 - declared above
        chosen.queryset = Environment.objects.all()

    def applied(self) -> StuckDefinition:
        """Return the definition that was entered, not saved."""
        return StuckDefinition(**self.cleaned_data)


class RuleForm(forms.Form):
    """Whom a standing rule means, when, and what it does."""

    name = forms.CharField(
        max_length=63,
        validators=[validate_name],
        widget=forms.TextInput(attrs=PLAIN),
        help_text="Lower-case letters, digits and hyphens.",
    )
    scope = forms.ChoiceField(label="On")
    application_name = glob_field("Application", GLOB)
    usename = glob_field("User", GLOB)
    datname = glob_field("Database", GLOB)
    state = forms.ChoiceField(label="Who is", choices=StandingRule.State.choices)
    seconds = forms.FloatField(
        label="For over (seconds)", min_value=5, max_value=MONTH_SECONDS, initial=1800
    )
    load_per_core = forms.FloatField(
        label="While active sessions a core are over",
        required=False,
        min_value=0.1,
        max_value=1000,
        help_text="The average of the last minute. Empty: always.",
    )
    connections_pct = forms.FloatField(
        label="While connections are used over (percent)",
        required=False,
        min_value=1,
        max_value=100,
        help_text="Of the usable ones. Empty: always.",
    )
    action = forms.ChoiceField(label="Then", choices=StandingRule.Does.choices)
    at_most = forms.IntegerField(
        label="At most so often an hour", min_value=1, max_value=20, initial=6
    )

    def __init__(
        self, *args: Any, targets: Iterable[Target], rule: StandingRule | None = None, **kwargs: Any
    ) -> None:
        if rule is not None:
            kwargs["initial"] = {**vars(rule), "scope": scope_of(rule)}
        super().__init__(*args, **kwargs)
        self.rule = rule
        self.scopes: dict[str, Target | Environment | None] = {"": None}
        self.scopes |= {f"environment {one.name}": one for one in Environment.objects.all()}
        self.scopes |= {f"target {one.name}": one for one in targets}
        chosen = self.fields["scope"]
        assert isinstance(chosen, forms.ChoiceField)  # noqa: S101 - declared above
        chosen.choices = [(key, key or "every target") for key in self.scopes]
        chosen.required = False

    def clean_name(self) -> str:
        """Refuse a name that another rule has."""
        name = str(self.cleaned_data["name"])
        others = StandingRule.objects.filter(name=name)
        if self.rule is not None:
            others = others.exclude(pk=self.rule.pk)
        if others.exists():
            message = f"There is a rule {name} already."
            raise ValidationError(message)
        return name

    def applied(self) -> StandingRule:
        """Return the rule with what was entered, not saved."""
        rule = self.rule or StandingRule()
        given = dict(self.cleaned_data)
        scope = self.scopes[given.pop("scope")]
        rule.target = scope if isinstance(scope, Target) else None
        rule.environment = scope if isinstance(scope, Environment) else None
        for name, value in given.items():
            setattr(rule, name, value)
        return rule


def scope_of(rule: StandingRule) -> str:
    """Return a rule's scope as the form names it."""
    if rule.target is not None:
        return f"target {rule.target.name}"
    return f"environment {rule.environment.name}" if rule.environment is not None else ""
