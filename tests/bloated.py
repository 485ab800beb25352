"""Tables and indexes of known bloat, and what a rewrite of each really gives back."""

from __future__ import annotations

from typing import Any

import psycopg

# name: (its table, what is done to it), the share that a rewrite gives back is measured, not said.
TABLES = {
    "dense": "",
    "half": "DELETE FROM {} WHERE id % 2 = 0",
    "ff70": "",
    "ff70_half": "DELETE FROM {} WHERE id % 2 = 0",
    "nulls": "DELETE FROM {} WHERE id % 3 <> 0",
    "padded": "DELETE FROM {} WHERE id % 10 = 0",
    "broad": "DELETE FROM {} WHERE id % 2 = 0",
    "toasted": "DELETE FROM {} WHERE id % 2 = 0",
    "mass": "DELETE FROM {} WHERE id <= 36000",
}
SEEDS = """
CREATE TABLE dense AS
SELECT g::bigint AS id, g % 50 AS kind, md5(g::text) AS words,
       CASE WHEN g % 4 = 0 THEN g END AS rare
  FROM generate_series(1, 40000) AS g;
CREATE TABLE half AS SELECT id, kind, words, rare FROM dense;
CREATE TABLE ff70 WITH (fillfactor = 70) AS SELECT id, kind, words, rare FROM dense;
CREATE TABLE ff70_half WITH (fillfactor = 70) AS SELECT id, kind, words, rare FROM dense;
CREATE TABLE nulls AS
SELECT g AS id,
       CASE WHEN g % 5 = 0 THEN g::bigint END AS a, CASE WHEN g % 7 = 0 THEN g::bigint END AS b,
       CASE WHEN g % 3 = 0 THEN now() END AS c, CASE WHEN g % 9 = 0 THEN md5(g::text) END AS d,
       CASE WHEN g % 2 = 0 THEN g END AS e, CASE WHEN g % 11 = 0 THEN md5(g::text) END AS f,
       CASE WHEN g % 13 = 0 THEN g::numeric END AS g, CASE WHEN g % 4 = 0 THEN true END AS h,
       CASE WHEN g % 6 = 0 THEN g::bigint END AS i, CASE WHEN g % 8 = 0 THEN g END AS j
  FROM generate_series(1, 40000) AS g;
CREATE TABLE padded AS
SELECT true AS x, g::bigint AS id, (g % 9)::smallint AS s, now() AS t, g % 2 = 0 AS y,
       g::float8 AS f, g AS i
  FROM generate_series(1, 40000) AS g;
CREATE TABLE broad (id int, words text);
ALTER TABLE broad ALTER words SET STORAGE PLAIN;
INSERT INTO broad SELECT g, repeat('x', 1700) FROM generate_series(1, 4000) AS g;
CREATE TABLE toasted (id int, body text);
ALTER TABLE toasted ALTER body SET STORAGE EXTERNAL;
INSERT INTO toasted SELECT g, repeat(md5(g::text), 190) FROM generate_series(1, 1500) AS g;
CREATE TABLE mass AS SELECT id, kind, words, rare FROM dense;
CREATE UNIQUE INDEX mass_id ON mass (id);
CREATE INDEX mass_words ON mass (words);
CREATE INDEX mass_kind ON mass (kind);
CREATE INDEX mass_rare ON mass (rare);
CREATE INDEX mass_pair ON mass (kind, words);
CREATE INDEX mass_covering ON mass (id) INCLUDE (words);
CREATE INDEX mass_lower ON mass (lower(words));
CREATE TABLE mixed AS
SELECT g AS id, (g * 1.37)::numeric(12, 2) AS price, repeat('x', g % 20) || g AS label,
       'user' || (g % 5000) AS owner, CASE WHEN g % 2 = 0 THEN g END AS half,
       CASE WHEN g % 3 <> 0 THEN md5(g::text) END AS words, CASE WHEN g % 3 = 0 THEN g::numeric END AS rare
  FROM generate_series(1, 60000) AS g;
CREATE INDEX mixed_price ON mixed (price);
CREATE INDEX mixed_label ON mixed (label);
CREATE INDEX mixed_owner_label ON mixed (owner, label);
CREATE INDEX mixed_half_id ON mixed (half, id);
CREATE INDEX mixed_id_half ON mixed (id, half);
CREATE INDEX mixed_words ON mixed (words);
CREATE INDEX mixed_words_id ON mixed (words, id);
CREATE INDEX mixed_three ON mixed (half, words, rare);
CREATE INDEX mixed_coalesce ON mixed (coalesce(half, 0));
CREATE INDEX mixed_upper ON mixed (upper(label));
CREATE INDEX mixed_twice ON mixed ((price * 2));
CREATE UNIQUE INDEX dense_id ON dense (id);
CREATE INDEX dense_words ON dense (words);
CREATE INDEX dense_kind ON dense (kind);
CREATE INDEX dense_rare ON dense (rare);
CREATE INDEX dense_pair ON dense (kind, words);
CREATE INDEX dense_some ON dense (id) WHERE kind < 5;
CREATE INDEX dense_ff50 ON dense (id) WITH (fillfactor = 50);
CREATE INDEX half_words ON half (words);
CREATE INDEX half_kind ON half (kind);
"""
SIZES = """
SELECT c.oid::bigint AS relid, c.relname::text AS name, pg_relation_size(c.oid) AS size
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = 'public' AND c.relkind IN ('r', 'i')
 UNION ALL
SELECT t.oid::bigint, 'toast of ' || c.relname, pg_relation_size(t.oid)
  FROM pg_class AS c JOIN pg_class AS t ON t.oid = c.reltoastrelid
 WHERE c.relname = 'toasted'
"""


def seed(connection: psycopg.Connection[Any]) -> None:
    """Make them all, with fresh statistics."""
    connection.execute("SET client_min_messages = error")
    for statement in SEEDS.split(";"):
        if statement.strip():
            connection.execute(statement)
    for name, change in TABLES.items():
        connection.execute(f"ALTER TABLE {name} SET (autovacuum_enabled = false)")
        if change:
            connection.execute(change.format(name))
    connection.execute("VACUUM (ANALYZE)")


def sizes(connection: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    """Return {name: (relid, size in bytes)}."""
    return {name: (relid, size) for relid, name, size in connection.execute(SIZES)}


def rewritten(connection: psycopg.Connection[Any]) -> dict[str, float]:
    """Rewrite everything; return by name the bytes that came back."""
    before = sizes(connection)
    for name in TABLES:
        connection.execute(f"VACUUM (FULL, ANALYZE) {name}")
    after = sizes(connection)
    return {name: size - after[name][1] for name, (_, size) in before.items()}
