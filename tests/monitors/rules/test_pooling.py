"""Whose words a remedy is in: the framework's where its name tells it, else all of them."""

from __future__ import annotations

import pytest

from monitors.rules import pooling


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        ("PostgreSQL JDBC Driver", "HikariCP"),
        ("gunicorn: worker [shop]", "Django"),
        ("fastapi-orders", "SQLAlchemy"),
        ("php-fpm", "PHP"),
        ("orders-lambda", "Serverless"),
        ("psycopg", "psycopg_pool"),
    ],
)
def test_a_name_that_tells_its_framework_gets_that_frameworks_words(name, framework):
    assert [one.framework for one in pooling.remedies_for(name)] == [framework]
    assert pooling.advice_for(name).startswith(f"{framework}: ")


def test_a_name_that_tells_none_gets_all_of_them():
    assert pooling.remedies_for("checkout") == pooling.REMEDIES
    assert "NullPool" in pooling.advice_for("")
    assert "CONN_MAX_AGE" in pooling.advice_for("")
