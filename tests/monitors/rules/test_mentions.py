"""Which statements name a table, by their text."""

from __future__ import annotations

import pytest

from monitors.pg.text import redact
from monitors.rules.mentions import BARE, SCHEMA, named, sought


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM orders",
        "select count(*) from ORDERS o where o.id = $1",
        'SELECT * FROM "orders" WHERE a = 1',
        "SELECT * FROM customers c, orders AS o WHERE c.id = o.customer_id",
        "SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = c.id, sessions",
        "SELECT * FROM a JOIN b ON (a.x = b.x AND b.y IN ($1, $2)), orders",
        "SELECT * FROM (orders JOIN customers USING (id))",
        "SELECT * FROM ONLY orders",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM orders)",
        "INSERT INTO orders (id) VALUES (1), (2)",
        "INSERT INTO archive SELECT * FROM orders",
        "UPDATE orders SET state = 'paid' WHERE id = 4",
        "UPDATE customers SET n = o.n FROM orders o",
        "DELETE FROM ONLY orders WHERE id = 4",
        "DELETE FROM customers USING orders o WHERE o.id = 1",
        "MERGE INTO orders USING new ON true WHEN MATCHED THEN DO NOTHING",
        "COPY orders FROM STDIN",
        "TRUNCATE customers, orders",
        "TRUNCATE TABLE orders",
        "REPACK orders",
        "REPACK (CONCURRENTLY) orders USING INDEX i",
        "COMMENT ON TABLE orders IS 'x'",
        "CREATE INDEX CONCURRENTLY ON orders (id)",
        "ALTER TABLE IF EXISTS orders ADD COLUMN x int",
        "DROP TABLE IF EXISTS sessions, orders",
        "WITH old AS (SELECT 1) SELECT * FROM orders",
        "SELECT extract(epoch FROM now()) FROM orders",
        "SELECT * FROM a FOR UPDATE OF a; SELECT 1 FROM orders",
        "SELECT * FROM customers WHERE id IN (SELECT id FROM x UNION SELECT id FROM orders)",
        "VACUUM (ANALYZE) orders",
        "VACUUM ANALYZE customers, orders",
        "LOCK TABLE orders IN SHARE MODE",
        "EXPLAIN SELECT 1 FROM orders WHERE id = 4",
        "DECLARE c CURSOR FOR SELECT * FROM orders WHERE state = 'open'",
        "SELECT 1 FROM orders WHERE state = 'open' AND tags ? $1",
        # What the parser of 18 does not know, and what is too deep or too long for it.
        "REPACK orders; VACUUM orders",
        "SELECT " + " || ".join(["a"] * 300) + " FROM orders",
        "SELECT " + "+".join(["a"] * 600) + " FROM orders",
        "SELECT 1 FROM orders WHERE id IN (" + ",".join(f"${n}" for n in range(1, 600)),
    ],
    ids=lambda text: text[:60],
)
def test_a_table_is_named_where_one_is_expected(text):
    assert named(redact(text), ["public"], "orders") == BARE


@pytest.mark.parametrize(
    "text",
    [
        "SELECT orders FROM customers",
        "SELECT o.orders FROM customers o WHERE orders = 1 ORDER BY orders",
        "SELECT * FROM shop.orders",
        'SELECT * FROM "Orders"',
        "SELECT * FROM orders_old",
        "SELECT * FROM my_orders JOIN ordersx USING (id)",
        'SELECT * FROM "old orders x"',
        "SELECT 'FROM orders' FROM customers",
        "SELECT 1 FROM customers -- FROM orders",
        "WITH orders AS (SELECT 1) SELECT * FROM orders",
        "WITH a AS (SELECT 1), orders AS MATERIALIZED (SELECT 1) SELECT * FROM orders",
        "WITH RECURSIVE orders (id) AS (SELECT 1) SELECT * FROM orders",
        "SELECT 1 FROM a WHERE x IS DISTINCT FROM orders",
        "SELECT extract(epoch FROM orders) FROM a",
        "SELECT * FROM a WHERE b IN (x, orders)",
        "INSERT INTO a (id, orders) VALUES (1, 2)",
        "UPDATE a SET x = 1, orders = 2",
        "SELECT * FROM orders.items",
        "SELECT 1 FROM a AS orders FOR UPDATE OF orders",
        "DROP INDEX orders",
        "FETCH 5 FROM orders",
        "MOVE ALL IN orders",
        "CREATE INDEX orders ON a (id)",
        "",
        "SELECT",
        "))((, . FROM",
    ],
)
def test_what_only_looks_like_it_is_not_named(text):
    assert named(redact(text), ["public"], "orders") == ""


@pytest.mark.parametrize(
    ("text", "schemaname", "relname"),
    [
        ("SELECT * FROM shop.orders o", "shop", "orders"),
        ("SELECT * FROM db.Shop.Orders o", "shop", "orders"),
        ('SELECT * FROM "My shop"."Odd ""x"" y" o', "My shop", 'Odd "x" y'),
        ('SELECT * FROM orders JOIN shop . "orders" ON true', "shop", "orders"),
    ],
)
def test_its_schema_makes_it_sure(text, schemaname, relname):
    assert named(redact(text), [schemaname], relname) == SCHEMA
    assert sought(relname).lower() in redact(text).lower()


def test_a_name_in_capitals_is_another_one_unless_it_is_quoted():
    assert named("SELECT * FROM Orders", ["public"], "Orders") == ""
    assert named('SELECT * FROM "Orders"', ["public"], "Orders") == BARE
