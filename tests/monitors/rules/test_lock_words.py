"""What a lock is called, and what releases those behind a root."""

from __future__ import annotations

from typing import Any

import pytest

from monitors.rules import lock_words

LOCK = {
    "locktype": "relation",
    "page": None,
    "tuple": None,
    "virtualxid": None,
    "transactionid": None,
    "classid": None,
    "objid": None,
    "objsubid": None,
}


@pytest.mark.parametrize(
    ("columns", "relation", "name", "whole"),
    [
        ({}, "public.t", "public.t", "public.t"),
        ({"locktype": "extend"}, "public.t", "extension of public.t", "public.t"),
        ({"locktype": "tuple", "page": 7, "tuple": 2}, "t", "row (7,2) of t", "t"),
        (
            {"locktype": "transactionid", "transactionid": 745, "page": 0, "tuple": 1},
            "t",
            "row (0,1) of t, changed by transaction 745",
            "t",
        ),
        (
            {"locktype": "transactionid", "transactionid": 745},
            "",
            "transaction 745",
            "rows of a relation that is not known",
        ),
        (
            {"locktype": "virtualxid", "virtualxid": "3/45"},
            "",
            "virtual transaction 3/45",
            "ends of transactions",
        ),
        (
            {"locktype": "advisory", "classid": 2**32 - 1, "objid": 2**32 - 5, "objsubid": 1},
            "",
            "advisory lock -5",
            "advisory lock -5",
        ),
        (
            {"locktype": "advisory", "classid": 7, "objid": 2**32 - 1, "objsubid": 2},
            "",
            "advisory lock (7, -1)",
            "advisory lock (7, -1)",
        ),
        (
            {"locktype": "object", "classid": 1262, "objid": 5, "objsubid": 0},
            "",
            "object 5 of pg_database",
            "object 5 of pg_database",
        ),
        (
            {"locktype": "object", "classid": 9999, "objid": 5, "objsubid": 0},
            "",
            "object 5 of catalog 9999",
            "object 5 of catalog 9999",
        ),
        ({"locktype": "frozenid"}, "", "frozenid lock", "frozenid lock"),
    ],
)
def test_a_lock_has_a_name_and_what_it_is_summed_up_by(
    columns: dict[str, Any], relation: str, name: str, whole: str
) -> None:
    row = {**LOCK, **columns}

    assert lock_words.name_lock(row, relation) == name
    assert lock_words.name_object(row, relation) == whole


@pytest.mark.parametrize(
    ("gid", "backend_type", "state", "ours", "kind", "action"),
    [
        (None, "client backend", "active", False, "cancel", "cancel_backend"),
        (None, "client backend", "fastpath function call", False, "cancel", "cancel_backend"),
        (None, "client backend", "idle in transaction", False, "terminate", "terminate_backend"),
        (
            None, "client backend", "idle in transaction (aborted)", False, "terminate",
            "terminate_backend",
        ),
        (None, "client backend", "idle", False, "terminate", "terminate_backend"),
        (None, "client backend", "disabled", False, "hidden", ""),
        (None, "client backend", None, False, "none", ""),
        (None, "client backend", "active", True, "none", ""),
        (None, "autovacuum worker", "active", False, "autovacuum", ""),
        (None, "walsender", "active", False, "none", ""),
        (None, "startup", None, False, "none", ""),
        (None, None, None, False, "ended", ""),
        ("it's", None, None, False, "prepared", ""),
        ("", None, None, False, "prepared", ""),
    ],
)  # fmt: skip
def test_the_way_out_is_the_right_one_for_the_root(
    gid: str | None,
    backend_type: str | None,
    state: str | None,
    ours: bool,
    kind: str,
    action: str,
) -> None:
    out = lock_words.find_way_out(gid=gid, backend_type=backend_type, state=state, ours=ours)

    assert (out.kind, out.action) == (kind, action)
    assert kind in lock_words.WAYS_OUT
    finish = "ROLLBACK PREPARED 'it''s';\n-- or: COMMIT PREPARED 'it''s';"
    assert out.statement == (finish if gid else "")


@pytest.mark.parametrize(
    ("relname", "relation", "name"),
    [("Odd", 5, 'public."Odd"'), (None, 5, "app.t"), (None, 6, "relation 6"), (None, None, "")],
)
def test_a_relation_is_named_by_the_catalog_else_by_history_else_by_its_oid(
    relname: str | None, relation: int | None, name: str
) -> None:
    row = {
        "relation": relation, "schemaname": "public", "relname": relname, "lock_database": 1,
    }  # fmt: skip

    assert lock_words.name_relation(row, {(1, 5): "app.t", (2, 6): "other.t"}) == name
