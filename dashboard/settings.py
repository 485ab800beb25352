"""Settings of every environment; what differs comes from environment variables.

A secret may also be given as a file: NAME_FILE holds the path of one that
contains NAME's value. A value that is missing or malformed stops the start.
"""

from __future__ import annotations

import hashlib
import sys
from datetime import timedelta
from pathlib import Path

import dj_database_url
from celery.schedules import schedule
from csp.constants import NONE, SELF
from environs import Env

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env()


def secret(name: str, default: str = "") -> str:
    """Return NAME, or the stripped content of the file that NAME_FILE names."""
    path = env.str(f"{name}_FILE", "")
    return Path(path).read_text(encoding="utf-8").strip() if path else env.str(name, default)


# Commands and workers sign nothing and run without one; the web server refuses it.
PUBLIC_SECRET_KEY = "unset-and-refused-by-the-web-server"  # noqa: S105 - that is what it says
SECRET_KEY = secret("SECRET_KEY") or PUBLIC_SECRET_KEY
DEBUG = env.bool("DEBUG", False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", [])
# Behind a proxy that ends TLS and sets this header itself, to http or https.
TLS = env.bool("HOWDAH_TLS", False)
# The web server can't tell `X_Forwarded_Proto` from the usual one; a name without a hyphen has no other spelling.
PROTO_HEADER = env.str("HOWDAH_PROTO_HEADER", "X-Forwarded-Proto")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_htmx",
    "template_partials",
    "csp",
    "axes",
    "dashboard",
    "monitors",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "dashboard.middleware.same_origin_resources",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "dashboard.patience.bounded",
    "dashboard.middleware.no_null_characters",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "dashboard.middleware.login_required",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
ROOT_URLCONF = "dashboard.urls"
WSGI_APPLICATION = "dashboard.wsgi.application"
LOADERS = (
    "dashboard.lines.Loader",
    [
        "django.template.loaders.filesystem.Loader",
        "django.template.loaders.app_directories.Loader",
    ],
)
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            "loaders": [("template_partials.loader.Loader", [LOADERS])],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "debug": env.bool("TEMPLATE_DEBUG", DEBUG),
        },
    }
]

# Two roles: migrations run as the owner, everything else as the app.
DATABASES = {
    "default": {
        **dj_database_url.parse(
            secret(
                "MIGRATE_DATABASE_URL" if env.bool("HOWDAH_MIGRATE", False) else "DATABASE_URL",
                "postgresql://howdah@127.0.0.1:5432/howdah",
            )
        ),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": 5,
            "application_name": "howdah",
            "options": "-c statement_timeout=30s -c lock_timeout=10s",
        },
    }
}
# The role that owns the history tables and may insert into the audit;
# empty: the role that migrates does everything.
APP_DATABASE_ROLE = env.str("HOWDAH_APP_ROLE", "")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = secret("REDIS_URL", "redis://127.0.0.1:6379/0")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": env.str("HOWDAH_PREFIX", "howdah"),
        "OPTIONS": {
            "serializer": "monitors.json_cache.JSON",
            "socket_timeout": 2,
            "socket_connect_timeout": 2,
        },
    }
}

CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "global_keyprefix": env.str("HOWDAH_PREFIX", "howdah") + ":",
    # Who only publishes shall not wait for a broker that is silent; workers
    # wait longer (dashboard.celery).
    "socket_timeout": 1.5,
    "socket_connect_timeout": 2,
    "max_retries": 1,
    "visibility_timeout": 3600,
}
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_STORE_EAGER_RESULT = False
CELERY_TASK_DEFAULT_QUEUE = "requests"
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Nobody commands workers through the broker, and what is none of ours would reach them that way.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "tick": {
        "task": "monitors.tasks.tick",
        "schedule": schedule(timedelta(seconds=1)),
        "options": {"queue": "requests", "expires": 3},
    },
    "maintain_history": {
        "task": "monitors.tasks.maintain_history",
        "schedule": schedule(timedelta(minutes=1)),
        "options": {"queue": "requests", "expires": 60},
    },
    "sweep": {
        "task": "monitors.tasks.sweep",
        "schedule": schedule(timedelta(seconds=5)),
        "options": {"queue": "requests", "expires": 10},
    },
}

# Sealed boxes: the web seals with the public key, workers alone hold the other.
PUBLIC_KEY = secret("HOWDAH_PUBLIC_KEY")
PRIVATE_KEY = secret("HOWDAH_PRIVATE_KEY")
# Which worker this process is: it reads the queue snapshots.SLOT.
WORKER_SLOT = env.int("HOWDAH_SLOT", 0)
# How many seconds one round of reads of a target may take.
FAST_BUDGET_SECONDS = env.float("HOWDAH_FAST_BUDGET_SECONDS", 8)
SLOW_BUDGET_SECONDS = env.float("HOWDAH_SLOW_BUDGET_SECONDS", 20)
# Addresses that a target may have: always denied unless allowed here.
ALLOW_LOOPBACK_TARGETS = env.bool("HOWDAH_ALLOW_LOOPBACK_TARGETS", False)
ALLOWED_TARGET_NETWORKS: list[str] = env.list("HOWDAH_ALLOWED_TARGET_NETWORKS", [])

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "fleet"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=5)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "registration/locked.html"
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
ADDRESS_FAILURE_LIMIT = 50
"""Failed logins from one address within AXES_COOLOFF_TIME, whatever the names."""

LANGUAGE_CODE = "en"
USE_TZ = True
TIME_ZONE = "UTC"
USE_THOUSAND_SEPARATOR = False

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "staticfiles": {
        "BACKEND": env.str(
            "STATICFILES_STORAGE", "whitenoise.storage.CompressedManifestStaticFilesStorage"
        )
    },
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
}

SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
# Browsers keep cookies by host, not by port: each installation has names of its own.
OWN = hashlib.sha256(f"cookies {SECRET_KEY}".encode()).hexdigest()[:8]
SESSION_COOKIE_NAME = f"{'__Host-' if TLS else ''}sessionid_{OWN}"
CSRF_COOKIE_NAME = f"{'__Host-' if TLS else ''}csrftoken_{OWN}"
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
if TLS:
    SECURE_PROXY_SSL_HEADER = (f"HTTP_{PROTO_HEADER.upper().replace('-', '_')}", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = ["^healthz/"]
    SECURE_HSTS_SECONDS = 2 * 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "connect-src": [SELF],
        "font-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "person": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"},
        "program": {"()": "dashboard.logs.JSONFormatter"},
    },
    "filters": {"short": {"()": "dashboard.logs.Short"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "filters": ["short"],
            "formatter": "person" if sys.stderr.isatty() else "program",
        }
    },
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", "INFO")},
    "loggers": {"celery": {"level": "WARNING"}},  # a line for each task would be one a second
}
