"""Where a capital and a full stop belong."""

from __future__ import annotations

import pytest

from monitors.sentences import second_half, sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("permission denied for table a", "Permission denied for table a."),
        ("must be owner.", "Must be owner."),
        ("is it on?", "Is it on?"),
        ("canceling statement due to …", "Canceling statement due to …"),
        ("ungültige Eingabe", "Ungültige Eingabe."),
        ("the database is invalid: DROP DATABASE inv1;", "The database is invalid: DROP DATABASE inv1;"),
        ("pg_stat_statements 1.8 is too old", "pg_stat_statements 1.8 is too old."),
        ("public.orders is locked", "public.orders is locked."),
        ("inv1 takes nobody", "inv1 takes nobody."),
        ("  ", ""),
    ],
)  # fmt: skip
def test_a_sentence_ends_once_and_begins_with_no_changed_name(text, said):
    assert sentence(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The database is invalid.", "the database is invalid."),
        ("A lock was not free.", "a lock was not free."),
        ("TLS is asked for.", "TLS is asked for."),
        ("pg_stat_statements is too old.", "pg_stat_statements is too old."),
        ("", ""),
    ],
)
def test_the_second_half_of_a_sentence_begins_small_where_it_is_a_word(text, said):
    assert second_half(text) == said
