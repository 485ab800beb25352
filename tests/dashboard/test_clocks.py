"""A target whose clock is wrong says so on its page, by how much and to which side."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db.models import F
from django.test import Client
from django.urls import reverse

from monitors.models import ProbeState, Target


@pytest.mark.parametrize(
    ("ahead", "says"),
    [
        (timedelta(hours=2, minutes=4), "is 2 h 04 min ahead of Howdah"),
        (timedelta(seconds=-90), "is 1 min 30 s behind Howdah"),
        (timedelta(seconds=2), ""),
        (timedelta(0), ""),
    ],
)
def test_a_wrong_clock_is_told_with_its_difference(
    ahead: timedelta, says: str, shop: Target, browse: Callable[[str], Client]
) -> None:
    state = ProbeState.objects.get(target=shop, probe="progress")
    assert state.taken_at
    assert state.target_at
    measured = state.target_at - state.taken_at
    assert abs(measured) < timedelta(seconds=2)  # they share one clock: so it was really read
    ProbeState.objects.filter(pk=state.pk).update(target_at=F("target_at") + ahead - measured)

    text = browse("viewer").get(reverse("overview", args=[shop.name])).content.decode()

    assert ("The clock of shop-1 is" in text) is bool(says)
    assert says.replace("'", "&#x27;") in text
