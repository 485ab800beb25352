"""A server that is read only by default: it is read; what writes fails in the server's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from monitors.collect.rounds import take_now
from monitors.models import Action, Target
from tests.servers import Server

pytestmark = pytest.mark.django_db

Asked = Callable[..., Action]


@pytest.fixture
def read_only(server: Server, worker_id: str) -> Iterator[str]:
    """A database whose sessions begin read only, with a table of 100 dead rows."""
    name = f"frozen_{worker_id}"
    with server.connect() as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {name} OWNER owner")
        with server.connect(user="owner", dbname=name) as owner:
            owner.execute("CREATE TABLE stock (id bigint) WITH (autovacuum_enabled = off)")
            owner.execute("INSERT INTO stock SELECT generate_series(1, 1000)")
            owner.execute("DELETE FROM stock WHERE id <= 100")
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        yield name
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_read_only_target_is_read_and_what_writes_fails_in_its_words(
    server: Server,
    read_only: str,
    watch: Callable[..., Target],
    person: Callable[..., Any],
    done: Asked,
) -> None:
    target = watch(server, operator_user="owner", include=[read_only])
    dba = person("dba")

    assert {result.state for result in take_now(target, ["databases", "tables"])} == {"ok"}
    options = {"autovacuum_vacuum_threshold": "10"}
    set_ = done(dba, target, "set_autovacuum", database=read_only, table="public.stock", **options)
    vacuum = done(dba, target, "vacuum", database=read_only, table="public.stock")

    assert (set_.state, vacuum.state) == ("failed", "succeeded")
    assert "read-only transaction" in set_.outcome
    with server.connect(dbname=read_only) as admin:
        found = admin.execute("SELECT reloptions FROM pg_class WHERE relname = 'stock'").fetchone()
    assert found == (["autovacuum_enabled=off"],)
