"""The drawing of waits over sizes."""

from __future__ import annotations

import re

from dashboard.curve import BOTTOM, HIGH, LEFT, RIGHT, TOP, WIDE, wait_curve
from monitors.rules.queueing import waits


def places(drawing, kind):
    found = re.findall(rf'<circle data-kind="{kind}" cx="([\d.]+)" cy="([\d.]+)"', drawing)
    return [(float(x), float(y)) for x, y in found]


def test_a_curve_falls_from_the_first_size_that_keeps_up_and_bears_its_marks():
    line = waits(8, 0.02, range(7, 20))

    drawing = wait_curve(line, 0.02, label="Wait <by> size", marks=[(10, "now"), (19, "balanced")])

    assert 'role="img" aria-label="Wait &lt;by&gt; size"' in drawing
    steps = re.findall(r"[ML]([\d.]+) ([\d.]+)", drawing.split('class="line"')[1].split("/>")[0])
    ups = [float(up) for _, up in steps]
    assert len(steps) == 11  # 9 to 19: 7 and 8 can't keep up
    assert ups == sorted(ups)  # down the screen
    assert (float(steps[0][0]), float(steps[-1][0])) == (LEFT, WIDE - RIGHT)
    assert places(drawing, "now") == [(float(steps[1][0]), ups[1])]
    assert places(drawing, "balanced") == [(WIDE - RIGHT, ups[-1])]
    assert ">9</text>" in drawing
    assert ">19 connections</text>" in drawing


def test_measured_points_stand_beside_the_model():
    drawing = wait_curve(
        waits(8, 0.02, range(9, 20)), 0.02, label="x", measured=[(12, 0.1), (30, 0.0)]
    )

    assert places(drawing, "measured") == [
        (places(drawing, "measured")[0][0], TOP), (WIDE - RIGHT, HIGH - BOTTOM),
    ]  # fmt: skip
    assert ">100 ms</text>" in drawing  # the longest is on it


def test_a_wait_of_no_use_is_cut_off():
    assert "≥40 ms" in wait_curve(waits(8.99, 0.02, range(9, 20)), 0.02, label="x")


def test_without_a_size_that_keeps_up_nothing_is_drawn():
    assert wait_curve(waits(8, 0.02, [7, 8]), 0.02, label="x") == ""
