"""How an application keeps its connections, in the words of its framework.

Sources: https://docs.sqlalchemy.org/en/20/core/pooling.html,
https://docs.djangoproject.com/en/stable/ref/databases/#connection-management,
https://www.psycopg.org/psycopg3/docs/advanced/pool.html, https://github.com/brettwooldridge/HikariCP,
https://www.php.net/manual/en/pdo.connections.php and https://www.pgbouncer.org/config.html
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remedy:
    """What keeps one framework from opening a connection for each request."""

    framework: str
    words: tuple[str, ...]
    """Of an application's name, by which it is recognised."""
    text: str
    code: str


REMEDIES = (
    Remedy(
        "SQLAlchemy",
        ("sqlalchemy", "fastapi", "uvicorn", "flask", "alembic"),
        "Make the engine once a process, not once a request, and take NullPool out: closing a session "
        "then gives its connection back to the pool.",
        "engine = create_engine(\n"
        "    DATABASE_URL,\n"
        "    pool_size=10,  # kept by each process\n"
        "    max_overflow=5,  # more while it is busy\n"
        "    pool_timeout=30,\n"
        "    pool_recycle=1800,\n"
        "    pool_pre_ping=True,\n"
        ")",
    ),
    Remedy(
        "Django",
        ("django", "gunicorn", "celery", "uwsgi", "manage.py"),
        "CONN_MAX_AGE is 0 by default, which closes the connection after each request. Keep it, or "
        "(from 5.1 on, with psycopg[pool], and always under ASGI) use the pool with CONN_MAX_AGE = 0.",
        'DATABASES["default"] |= {\n'
        '    "CONN_MAX_AGE": 600,\n'
        '    "CONN_HEALTH_CHECKS": True,\n'
        "}\n"
        "# or, under ASGI:\n"
        'DATABASES["default"] |= {\n'
        '    "CONN_MAX_AGE": 0,\n'
        '    "OPTIONS": {"pool": {"min_size": 2, "max_size": 10}},\n'
        "}",
    ),
    Remedy(
        "psycopg_pool",
        ("psycopg", "python"),
        "Open one ConnectionPool a process, and borrow from it in place of psycopg.connect().",
        "pool = ConnectionPool(DATABASE_URL, min_size=2, max_size=10, open=True)\n"
        "with pool.connection() as connection:\n"
        "    connection.execute(...)",
    ),
    Remedy(
        "HikariCP",
        ("jdbc", "hikari", "java", "spring"),
        "Use one HikariDataSource a process in place of DriverManager.getConnection(); close() then "
        "gives the connection back.",
        "spring.datasource.hikari.maximum-pool-size=10\n"
        "spring.datasource.hikari.minimum-idle=10\n"
        "spring.datasource.hikari.max-lifetime=1800000",
    ),
    Remedy(
        "PHP",
        ("php", "laravel", "symfony", "wordpress"),
        "A PHP process forgets its connection with each request unless that is persistent; "
        "pm.max_children then bounds how many there are. Where it is large, put PgBouncer before it.",
        "$db = new PDO($dsn, $user, $password, [\n    PDO::ATTR_PERSISTENT => true,\n]);",
    ),
    Remedy(
        "Serverless",
        ("lambda", "serverless", "vercel", "netlify", "cloudflare"),
        "Connect outside of the handler, so that an instance that is used again keeps its connection, "
        "and put a pooler in transaction mode before the server: instances come by the hundred.",
        "[pgbouncer]\n"
        "pool_mode = transaction\n"
        "default_pool_size = 20\n"
        "max_client_conn = 1000\n"
        "max_prepared_statements = 200",
    ),
)


def remedies_for(application_name: str) -> tuple[Remedy, ...]:
    """Return what helps an application: of its framework where its name tells that, else of all."""
    name = application_name.lower()
    known = tuple(one for one in REMEDIES if any(word in name for word in one.words))
    return known or REMEDIES


def advice_for(application_name: str) -> str:
    """Return in a sentence what helps: of one framework its own words, else the settings' names."""
    known = remedies_for(application_name)
    if len(known) == 1:
        return f"{known[0].framework}: {known[0].text}"
    return (
        "Keep connections: SQLAlchemy without NullPool, Django with CONN_MAX_AGE or its pool, one "
        "psycopg_pool or HikariCP pool a process, PHP with PDO::ATTR_PERSISTENT, serverless behind "
        "PgBouncer in transaction mode."
    )
