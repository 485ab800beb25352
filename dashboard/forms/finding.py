"""The forms that put a finding aside."""

from __future__ import annotations

from datetime import datetime

from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils import timezone

from monitors.findings import aside

PLAIN = {"autocomplete": "off"}

Data = QueryDict | None
"""What was typed, None before that."""


def reason_field() -> forms.CharField:
    """Return the field for why."""
    return forms.CharField(
        label="Reason", max_length=aside.LONGEST_REASON, widget=forms.TextInput(attrs=PLAIN)
    )


class AcknowledgeForm(forms.Form):
    """Why a finding need not count."""

    reason = reason_field()


class SnoozeForm(forms.Form):
    """Until when a finding need not count, and why."""

    until = forms.CharField(
        label="Until",
        max_length=40,
        help_text="In 30m, 2h, 3d or 1w, or at a time as 2026-03-01T12:30Z.",
        widget=forms.TextInput(attrs={**PLAIN, "list": "spans"}),
    )
    reason = reason_field()

    def clean_until(self) -> datetime:
        """Return the moment; it must be within the next year."""
        now = timezone.now()
        try:
            moment = aside.until_of(self.cleaned_data["until"], now)
        except ValidationError as error:
            raise ValidationError(error.messages) from None
        if not now < moment <= now + aside.LONGEST:
            message = "Choose a moment within the next year."
            raise ValidationError(message)
        return moment


def acknowledge_form(data: Data = None) -> AcknowledgeForm:
    """Return the form with ids of its own: the page shows both."""
    return AcknowledgeForm(data, auto_id="acknowledge_%s")


def snooze_form(data: Data = None) -> SnoozeForm:
    """Return the form with ids of its own."""
    return SnoozeForm(data, auto_id="snooze_%s")
