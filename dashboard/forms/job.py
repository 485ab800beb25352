"""The form of a recurring job."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.core.exceptions import ValidationError

from monitors.jobs import plan
from monitors.models import Job, Target, validate_name

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OPTIONS = {
    "analyze": "Analyze too",
    "freeze": "Freeze all rows",
    "skip_locked": "Skip tables whose lock is taken",
}
"""Arguments of the actions that a job may have; an action takes those that it knows."""
MEBIBYTE = 1024 * 1024
PLAIN = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class JobForm(forms.Form):
    """What, on which tables, when, and when not."""

    name = forms.CharField(
        max_length=63,
        validators=[validate_name],
        widget=forms.TextInput(attrs=PLAIN),
        help_text="Lower-case letters, digits and hyphens.",
    )
    action = forms.ChoiceField()
    options = forms.MultipleChoiceField(
        choices=list(OPTIONS.items()), required=False, widget=forms.CheckboxSelectMultiple
    )
    tables = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={**PLAIN, "rows": 3}),
        help_text="One a line, as shop: public.orders. Empty: every table that is due.",
    )
    weekdays = forms.MultipleChoiceField(
        choices=list(enumerate(WEEKDAYS)),
        initial=list(range(len(WEEKDAYS))),
        widget=forms.CheckboxSelectMultiple,
    )
    opens_at = forms.TimeField(
        label="Opens at", initial="22:00", widget=forms.TimeInput(format="%H:%M")
    )
    time_zone = forms.CharField(
        initial="UTC", widget=forms.TextInput(attrs=PLAIN), help_text="As Europe/Paris."
    )
    open_minutes = forms.IntegerField(
        label="Open for (minutes)",
        initial=240,
        min_value=5,
        max_value=24 * 60,
        help_text="When the hours end no further table is begun.",
    )
    every_minutes = forms.IntegerField(
        label="Again every (minutes)",
        required=False,
        min_value=5,
        max_value=24 * 60,
        help_text="Empty: once each time the hours open.",
    )
    at_once = forms.IntegerField(label="Tables at once", min_value=1, max_value=4, initial=1)
    max_active_backends = forms.IntegerField(
        label="At most active backends", required=False, min_value=0
    )
    max_running_vacuums = forms.IntegerField(
        label="At most running vacuums", required=False, min_value=0
    )
    max_replay_lag_mb = forms.IntegerField(
        label="At most replay lag (MB)", required=False, min_value=0
    )

    def __init__(self, *args: Any, target: Target, job: Job | None = None, **kwargs: Any) -> None:
        if job is not None:
            kwargs["initial"] = values_of(job)
        super().__init__(*args, **kwargs)
        self.target, self.job = target, job
        chosen = self.fields["action"]
        assert isinstance(chosen, forms.ChoiceField)  # noqa: S101 - declared above
        chosen.choices = [(name, spec.verb) for name, spec in plan.actions().items()]
        chosen.initial = "vacuum"

    def clean_name(self) -> str:
        """Refuse a name that another job of the target has."""
        name = str(self.cleaned_data["name"])
        others = Job.objects.filter(target=self.target, name=name)
        if self.job is not None:
            others = others.exclude(pk=self.job.pk)
        if others.exists():
            message = f"{self.target.name} has a job {name} already."
            raise ValidationError(message)
        return name

    def clean_time_zone(self) -> str:
        """Refuse what is not a time zone."""
        name = str(self.cleaned_data["time_zone"])
        if name not in available_timezones():
            message = f"{name} is not a time zone: give one as Europe/Paris, or UTC."
            raise ValidationError(message)
        return name

    def clean_tables(self) -> list[dict[str, str]]:
        """Read one table a line."""
        return plan.tables_of(str(self.cleaned_data["tables"]).splitlines())

    def applied(self) -> Job:
        """Return the job with what was entered, not saved."""
        job = self.job or Job(target=self.target)
        given = self.cleaned_data
        known = {parameter.name for parameter in plan.actions()[given["action"]].parameters}
        job.name, job.action, job.tables = given["name"], given["action"], given["tables"]
        kept = {name: value for name, value in job.options.items() if name not in OPTIONS}
        job.options = {
            name: value
            for name, value in {**kept, **dict.fromkeys(given["options"], "true")}.items()
            if name in known
        }
        job.weekdays = sorted(int(day) for day in given["weekdays"])
        for name in ("opens_at", "time_zone", "open_minutes", "every_minutes", "at_once"):
            setattr(job, name, given[name])
        job.max_active_backends = given["max_active_backends"]
        job.max_running_vacuums = given["max_running_vacuums"]
        lag = given["max_replay_lag_mb"]
        job.max_replay_lag_bytes = None if lag is None else lag * MEBIBYTE
        return job


def values_of(job: Job) -> dict[str, Any]:
    """Return a job as the form shows it."""
    lag = job.max_replay_lag_bytes
    return {
        "name": job.name,
        "action": job.action,
        "options": [name for name, value in job.options.items() if value == "true"],
        "tables": "\n".join(f"{one['database']}: {one['table']}" for one in job.tables),
        "weekdays": job.weekdays,
        "opens_at": job.opens_at,
        "time_zone": job.time_zone,
        "open_minutes": job.open_minutes,
        "every_minutes": job.every_minutes,
        "at_once": job.at_once,
        "max_active_backends": job.max_active_backends,
        "max_running_vacuums": job.max_running_vacuums,
        "max_replay_lag_mb": None if lag is None else lag // MEBIBYTE,
    }
