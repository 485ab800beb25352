"""Statements for reading."""

from __future__ import annotations

import html
import re

from hypothesis import given, strategies

from dashboard.sql import highlight


def test_keywords_strings_numbers_and_comments_are_marked():
    found = highlight("SELECT 'a''b', 42 FROM t -- why")

    assert found == (
        "<b>SELECT</b> <em>&#x27;a&#x27;&#x27;b&#x27;</em>, <i>42</i> <b>FROM</b> t <s>-- why</s>"
    )


def test_a_quoted_identifier_is_no_keyword():
    assert highlight('"select"') == "&quot;select&quot;"


@given(strategies.text(max_size=200))
def test_no_text_becomes_markup(text):
    found = highlight(text)

    assert html.unescape(re.sub(r"</?[bise]m?>", "", found)) == text
    assert set(re.findall(r"<[^>]*>", found)) <= {
        f"<{end}{tag}>" for end in ("", "/") for tag in ("b", "i", "em", "s")
    }


def test_a_very_long_statement_is_cut():
    assert len(highlight("x" * 50_000)) < 21_000
