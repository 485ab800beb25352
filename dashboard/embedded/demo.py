"""The demonstration's workload: a small shop with the troubles that Howdah is for.

A process of its own, `python -m dashboard.embedded.demo`; libpq's environment
variables say where the server is. It is bounded: a few queries a second, and
tables that are rewritten before they grow large. Its sessions are there to be
cancelled and terminated; whatever was ended comes back half a minute later.

Some of its statements are slow, each in a way of its own: one scans a whole
table, one sorts more than its memory holds, one compares all with all, one is
quick and asked far too often, and one becomes slower for minutes, since its
table grows, until a job empties it.

One application opens a connection for each request, for a quarter of an hour out of each half.

The lock queue and the report are in a database of their own, because their
open transactions would keep VACUUM in `shop` from removing dead rows.

Long, since the whole workload of the demonstration, and its tables.
"""

from __future__ import annotations

import os
import random
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg

SHOP = "shop"
BILLING = "billing"
PAUSE_SECONDS = 30  # until an ended session comes back
BEAT_SECONDS = 2.5  # between two bursts of the workload
HOLD_SECONDS = 420  # the lock queue dissolves by itself after that
SESSIONS = 20_000
DEAD_AT_START = 8_000
DEAD_AT_MOST = 60_000
DEAD_A_BEAT = 250
EVENTS = 120_000
EVENTS_BYTES = 100 * 1024**2  # smaller: somebody rewrote it, so bloat it again
BLOAT_CHECK_SECONDS = 900
ORDERS_AT_MOST = 20_000
PRODUCTS = 20_000
PRICE_BANDS = 150
POOL_CLIENTS = 8
CALM_CLIENTS = 2  # as many as the pool has servers
RUSH_SECONDS, ROUND_SECONDS = 50, 120  # all clients work for so long of each round
VISITS_AT_MOST = 120_000
VISITS_A_BEAT = 750
VISITS_SECONDS = 3.0  # so VISITS_AT_MOST is reached after eight minutes
SLOW_SECONDS = 4.0  # between two of the slow statements
LOOKUPS = 40  # in a row
COUPONS_SECONDS = 900.0  # of requests, each over a connection of its own; then it rests as long
COUPON_PAUSE = 0.2  # between two of them: a few a second

TABLES: LiteralString = """
CREATE TABLE IF NOT EXISTS public.sessions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id integer NOT NULL,
    token text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_enabled = false);
CREATE INDEX IF NOT EXISTS sessions_seen_at ON public.sessions (seen_at);

CREATE TABLE IF NOT EXISTS public.carts (
    id integer PRIMARY KEY,
    items integer NOT NULL DEFAULT 0,
    changed_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE TABLE IF NOT EXISTS public.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    payload text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS events_kind_created_at ON public.events (kind, created_at);

CREATE TABLE IF NOT EXISTS public.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id integer NOT NULL,
    status text NOT NULL DEFAULT 'new',
    total numeric(10, 2) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS orders_customer_id ON public.orders (customer_id);

CREATE TABLE IF NOT EXISTS public.products (
    id integer PRIMARY KEY,
    name text NOT NULL,
    description text NOT NULL,
    price numeric(10, 2) NOT NULL
);

CREATE TABLE IF NOT EXISTS public.price_bands (
    low numeric(10, 2) NOT NULL,
    high numeric(10, 2) NOT NULL
);

CREATE TABLE IF NOT EXISTS public.visits (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    visitor_id integer NOT NULL,
    referrer text NOT NULL
);
"""
FILL_PRODUCTS: LiteralString = """
INSERT INTO public.products (id, name, description, price)
SELECT n, 'product ' || n, repeat(md5(n::text), 4), (n * 61 %% 50000) / 100.0
  FROM generate_series(1, %(count)s) AS n
ON CONFLICT DO NOTHING
"""
FILL_PRICE_BANDS: LiteralString = """
INSERT INTO public.price_bands (low, high)
SELECT n, n + 2 FROM generate_series(1, %(count)s) AS n
"""
FILL_VISITS: LiteralString = """
INSERT INTO public.visits (visitor_id, referrer)
SELECT (random() * 5000)::integer, 'shop.example/' || md5(n::text) || '/sale/' || n %% 100
  FROM generate_series(1, %(count)s) AS n
"""
SPAN_OF_VISITS: LiteralString = "SELECT coalesce(max(id) - min(id), 0) FROM public.visits"
VISITORS: LiteralString = """
SELECT visitor_id, count(*) AS visits
  FROM public.visits
 WHERE referrer LIKE %(pattern)s
 GROUP BY visitor_id
 ORDER BY visits DESC
 LIMIT 10
"""  # no index helps: as slow as the table is large
SCAN: LiteralString = (
    "SELECT id, name, price FROM public.products WHERE description LIKE %(pattern)s"
)
SORT: LiteralString = """
SELECT id, description
  FROM public.products
 ORDER BY description DESC, price
OFFSET %(offset)s
"""
COMPARE: LiteralString = """
SELECT b.low, count(*) AS orders, sum(o.total) AS total
  FROM public.orders AS o
  JOIN public.price_bands AS b ON o.total >= b.low AND o.total < b.high
 WHERE o.customer_id < %(customer)s
 GROUP BY b.low
"""
LOOKUP: LiteralString = "SELECT name, price FROM public.products WHERE id = %(id)s"
COUPON: LiteralString = """
SELECT count(*), sum(total), pg_sleep(0.05)
  FROM public.orders
 WHERE customer_id = %(customer)s
"""  # the rest of the request takes its time too
FILL_SESSIONS: LiteralString = """
INSERT INTO public.sessions (customer_id, token)
SELECT 1 + n %% 5000, md5(n::text) || md5((n + 1)::text)
  FROM generate_series(1, %(count)s) AS n
"""
FILL_CARTS: LiteralString = """
INSERT INTO public.carts (id) SELECT n FROM generate_series(1, 10000) AS n
ON CONFLICT DO NOTHING
"""
FILL_ORDERS: LiteralString = """
INSERT INTO public.orders (customer_id, total)
SELECT 1 + n % 5000, (n * 37 % 9000) / 100.0 FROM generate_series(1, 8000) AS n
"""
FILL_EVENTS: LiteralString = """
INSERT INTO public.events (kind, payload)
SELECT (ARRAY['view', 'search', 'click', 'pay'])[1 + n %% 4], repeat(md5(n::text), 32)
  FROM generate_series(1, %(count)s) AS n
"""
THIN_EVENTS: LiteralString = "DELETE FROM public.events WHERE id % 5 <> 0"
CHURN: LiteralString = """
UPDATE public.sessions
   SET seen_at = clock_timestamp()
 WHERE id IN (SELECT (SELECT min(id) FROM public.sessions)
                     + (%(start)s + n * 7) %% %(count)s
                FROM generate_series(1, %(changes)s) AS n)
"""
DEAD_ROWS: LiteralString = """
SELECT pg_stat_get_dead_tuples('public.sessions'::regclass)
"""
KEEP_SESSIONS: LiteralString = """
CREATE TEMPORARY TABLE kept ON COMMIT DROP AS
SELECT customer_id, token FROM public.sessions;
TRUNCATE public.sessions;
INSERT INTO public.sessions (customer_id, token) SELECT customer_id, token FROM kept;
"""
FLUSH: LiteralString = "SELECT pg_stat_force_next_flush()"
"""Count what this session did now, before a vacuum or a truncate changes the count."""
BILLING_TABLES: LiteralString = """
CREATE TABLE IF NOT EXISTS public.invoices (
    id integer PRIMARY KEY,
    customer_id integer NOT NULL,
    amount numeric(10, 2) NOT NULL,
    paid_at timestamptz
);
CREATE TABLE IF NOT EXISTS public.ledger (
    id integer PRIMARY KEY,
    account text NOT NULL,
    amount numeric(10, 2) NOT NULL
);
INSERT INTO public.invoices (id, customer_id, amount)
SELECT n, 1 + n % 500, (n * 53 % 20000) / 100.0 FROM generate_series(1, 2000) AS n
ON CONFLICT DO NOTHING;
INSERT INTO public.ledger (id, account, amount)
SELECT n, 'account ' || n % 12, (n * 71 % 30000) / 100.0 FROM generate_series(1, 600) AS n
ON CONFLICT DO NOTHING;
"""
ROOT_STATEMENT: LiteralString = "UPDATE public.invoices SET paid_at = now() WHERE id = 1042"
QUEUE: tuple[tuple[str, LiteralString], ...] = (  # application, what it waits with; in this order
    ("migrations", "ALTER TABLE public.invoices ADD COLUMN reference text"),
    ("web-api", "SELECT id, amount, paid_at FROM public.invoices WHERE customer_id = 42"),
    ("web-api", "SELECT sum(amount) FROM public.invoices WHERE paid_at IS NULL"),
    ("worker", "UPDATE public.invoices SET paid_at = now() WHERE id = 1042"),
)
REPORT: LiteralString = """
SELECT account, sum(amount) AS total, count(pg_sleep(0.5)) AS entries
  FROM public.ledger
 GROUP BY account
 ORDER BY total DESC
"""  # half a second a row: five minutes
WEB_QUERIES: tuple[LiteralString, ...] = (
    "SELECT id, status, total FROM public.orders WHERE customer_id = %(customer)s ORDER BY id DESC LIMIT 10",
    "SELECT token FROM public.sessions WHERE customer_id = %(customer)s LIMIT 1",
    "UPDATE public.carts SET items = items + 1, changed_at = now() WHERE id = %(customer)s",
    "INSERT INTO public.events (kind, payload) VALUES ('view', 'product ' || %(customer)s::text)",
)
WORKER_QUERIES: tuple[LiteralString, ...] = (
    "INSERT INTO public.orders (customer_id, total) VALUES (%(customer)s, 12.50)",
    "UPDATE public.orders SET status = 'sent' WHERE id IN (SELECT id FROM public.orders WHERE status = 'new' ORDER BY id LIMIT 2)",
    "SELECT status, count(*), sum(total) FROM public.orders GROUP BY status",
    "UPDATE public.carts SET changed_at = now() WHERE id %% 400 = %(customer)s %% 400",
)

Session = psycopg.Connection[Any]


def connect(database: str, application: str, *, autocommit: bool = True) -> Session:
    """Return a new session of one of the shop's applications."""
    return psycopg.connect(
        dbname=database,
        application_name=application,
        autocommit=autocommit,
        connect_timeout=5,
        options="-c lock_timeout=0",  # those who wait here wait until somebody helps
    )


def prepare() -> None:
    """Make and fill what is missing; bloat and dead rows are in place afterwards."""
    with connect(SHOP, "setup") as session:
        session.execute(TABLES)
        if is_empty(session, "SELECT 1 FROM public.sessions LIMIT 1"):
            session.execute(FILL_SESSIONS, {"count": SESSIONS})
        session.execute(FILL_CARTS)
        if is_empty(session, "SELECT 1 FROM public.orders LIMIT 1"):
            session.execute(FILL_ORDERS)
            session.execute(FLUSH)
            session.execute("ANALYZE public.orders")
        if is_empty(session, "SELECT 1 FROM public.price_bands LIMIT 1"):
            session.execute(FILL_PRODUCTS, {"count": PRODUCTS})
            session.execute(FILL_PRICE_BANDS, {"count": PRICE_BANDS})
            session.execute(FLUSH)
            session.execute("ANALYZE public.products, public.price_bands")
        if dead_rows(session) < DEAD_AT_START:
            churn(session, DEAD_AT_START)
        keep_bloated(session)
    with connect(BILLING, "setup") as session:
        session.execute("SET lock_timeout = '2s'")
        session.execute(BILLING_TABLES)


def is_empty(session: Session, query: LiteralString) -> bool:
    """Whether a query returns nothing."""
    return session.execute(query).fetchone() is None


def dead_rows(session: Session) -> int:
    """Return the statistics' count of dead rows in `sessions`."""
    row = session.execute(DEAD_ROWS).fetchone()
    return int(row[0]) if row else 0


def churn(session: Session, changes: int) -> None:
    """Leave that many dead rows in `sessions`, each row changed at most once a call."""
    start = random.randrange(SESSIONS)  # noqa: S311 - no secret
    session.execute(CHURN, {"start": start, "count": SESSIONS, "changes": changes})


def keep_bloated(session: Session) -> None:
    """Fill `events` and delete most of it again, where it is not bloated already."""
    row = session.execute("SELECT pg_relation_size('public.events')").fetchone()
    if row and row[0] < EVENTS_BYTES:
        session.execute(FILL_EVENTS, {"count": EVENTS})
        session.execute(THIN_EVENTS)
        session.execute(FLUSH)
        # The vacuum finds the space free but can't give it back: that is bloat.
        session.execute("VACUUM (ANALYZE) public.events")


def rewrite_sessions(session: Session) -> None:
    """Start `sessions` over when its dead rows are many, so that it stays small."""
    if dead_rows(session) < DEAD_AT_MOST:
        return
    session.execute("SET lock_timeout = '2s'")
    with session.transaction():
        session.execute(KEEP_SESSIONS)
    # The next commit would make the server forget that the table was emptied.
    session.execute(FLUSH)
    churn(session, DEAD_AT_START)


def prune(session: Session) -> None:
    """Delete what the steady workload added long ago."""
    session.execute(
        "DELETE FROM public.orders WHERE id < (SELECT max(id) FROM public.orders) - %s",
        [ORDERS_AT_MOST],
    )
    session.execute(
        "DELETE FROM public.events WHERE kind = 'view' AND created_at < now() - interval '1 hour'"
        " AND id > (SELECT min(id) FROM public.events) + %s",
        [EVENTS],
    )


def keep_churning() -> None:
    """Run the steady maintenance of the troubles until the session is ended."""
    checked = 0.0
    with connect(SHOP, "session-store") as session:
        while True:
            churn(session, DEAD_A_BEAT)
            rewrite_sessions(session)
            if time.monotonic() - checked > BLOAT_CHECK_SECONDS:
                checked = time.monotonic()
                keep_bloated(session)
                prune(session)
            time.sleep(BEAT_SECONDS)


def run_queries(application: str, queries: tuple[LiteralString, ...], pause: float) -> None:
    """Run short queries one after the other until the session is ended."""
    with connect(SHOP, application) as session:
        while True:
            for query in queries:
                customer = random.randrange(1, 5000)  # noqa: S311 - no secret
                session.execute(query, {"customer": customer})
                time.sleep(pause)


def run_slow() -> None:
    """Run the slow statements one after the other until the session is ended."""
    with connect(SHOP, "analytics") as session:
        session.execute("SET work_mem = '256kB'")  # so little that the sort goes to disk
        while True:
            for statement in (scan, sort, compare, look_up):
                statement(session)
                time.sleep(SLOW_SECONDS)


def scan(session: Session) -> None:
    """Read a whole table for a few rows."""
    session.execute(SCAN, {"pattern": f"%{random.randrange(10_000, 100_000)}%"})  # noqa: S311


def sort(session: Session) -> None:
    """Sort more than the memory for it holds, and throw nearly all away."""
    session.execute(SORT, {"offset": PRODUCTS - 20})


def compare(session: Session) -> None:
    """Compare each row of one table with each of another."""
    session.execute(COMPARE, {"customer": 400})


def look_up(session: Session) -> None:
    """Ask for one row after the other where one statement would do."""
    for _ in range(LOOKUPS):
        session.execute(LOOKUP, {"id": random.randrange(1, PRODUCTS)})  # noqa: S311 - no secret


def run_coupons() -> None:
    """Open a connection for each request, as applications without a pool do, and rest again."""
    ends = time.monotonic() + COUPONS_SECONDS
    while time.monotonic() < ends:
        with connect(SHOP, "coupons") as session:
            session.execute(COUPON, {"customer": random.randrange(1, 5000)})  # noqa: S311
        time.sleep(COUPON_PAUSE)


def run_visits() -> None:
    """Let a table grow and one statement become slower with it, until the table is emptied."""
    with connect(SHOP, "tracker") as session:
        while True:
            grow_visits(session)
            session.execute(VISITORS, {"pattern": "%/sale/1%"})
            time.sleep(VISITS_SECONDS)


def grow_visits(session: Session) -> None:
    """Add a beat's rows; empties the table first where it is full."""
    row = session.execute(SPAN_OF_VISITS).fetchone()
    if row and row[0] >= VISITS_AT_MOST:
        session.execute("SET lock_timeout = '2s'")
        session.execute("TRUNCATE public.visits")
        session.execute(FLUSH)  # as after `rewrite_sessions`
    session.execute(FILL_VISITS, {"count": VISITS_A_BEAT})


def run_pooled(port: int, place: int) -> None:
    """Buy through the pooler; in a rush more do so than its pool has servers, and wait for them."""
    with psycopg.connect(
        port=port,
        dbname=SHOP,
        application_name="checkout" if place % 2 else "search",
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=5,
    ) as session:
        while True:
            if place < CALM_CLIENTS or time.time() % ROUND_SECONDS < RUSH_SECONDS:
                session.execute("SELECT pg_sleep(0.45)")
            time.sleep(0.5 + random.random() / 2)  # noqa: S311 - no secret


def run_report() -> None:
    """Run the long query once."""
    with connect(BILLING, "reports") as session:
        session.execute(REPORT)


@dataclass
class LockQueue:
    """A session that forgot its transaction, and those that wait behind it."""

    held: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        """Lock a row, then do nothing until ended from outside or until time is over."""
        with connect(BILLING, "billing-api", autocommit=False) as session:
            session.execute(ROOT_STATEMENT)
            self.held.set()
            try:
                # The server writes to an idle session only to say that it is over.
                select.select([session.fileno()], [], [], HOLD_SECONDS)
            finally:
                self.held.clear()
                session.rollback()

    def wait_in_line(self, place: int) -> None:
        """Wait for the lock once, behind those of a lower place, and change nothing.

        Who was let through, since somebody cancelled the migration, gets in line
        again after the pause, as the migration does.
        """
        application, statement = QUEUE[place]
        self.held.wait()
        time.sleep(0.3 * (place + 1))  # the migration first, then whoever it blocks
        with connect(BILLING, application, autocommit=False) as session:
            session.execute(statement)
            session.rollback()


def keep(name: str, work: Callable[[], None], pause: float | None = None) -> threading.Thread:
    """Do the work again and again in a thread, whatever is done to its sessions."""

    def loop() -> None:
        while True:
            try:
                work()
            except psycopg.Error:
                pass  # cancelled, terminated, or its table is gone: that is what it is for
            time.sleep(PAUSE_SECONDS if pause is None else pause)

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    return thread


def main() -> None:
    """Run until killed. PGPASSWORD may also be given as the path PGPASSWORD_FILE."""
    if file := os.environ.get("PGPASSWORD_FILE"):
        os.environ["PGPASSWORD"] = Path(file).read_text(encoding="utf-8").strip()
    prepare()
    queue = LockQueue()
    keep("churn", keep_churning, pause=5)
    keep("web-api", lambda: run_queries("web-api", WEB_QUERIES, 0.4), pause=5)
    keep("worker", lambda: run_queries("worker", WORKER_QUERIES, 0.7), pause=5)
    keep("analytics", run_slow, pause=5)
    keep("tracker", run_visits, pause=5)
    keep("coupons", run_coupons, pause=COUPONS_SECONDS)
    keep("reports", run_report)
    keep("billing-api", queue.hold)
    if port := os.environ.get("HOWDAH_DEMO_POOL_PORT"):
        for place in range(POOL_CLIENTS):
            keep(f"pooled {place}", partial(run_pooled, int(port), place), pause=5)
    for place, (application, _) in enumerate(QUEUE):
        keep(f"{application} {place}", partial(queue.wait_in_line, place))
    while True:
        time.sleep(BLOAT_CHECK_SECONDS)
        try:
            prepare()
        except psycopg.Error:
            continue  # somebody holds a lock or the server restarts: next time


if __name__ == "__main__":
    main()
