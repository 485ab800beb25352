"""Write the secrets that docker-compose.yml names, each into a file of its own.

`python -m dashboard.embedded.deploy FOLDER` keeps what is there already.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dashboard.embedded import state
from dashboard.embedded.databases import APP, COLLECTOR, OPERATOR, OWNER


def files(passwords: dict[str, str]) -> dict[str, str]:
    """Return {file name: content} for a stack whose parts find each other by service name."""
    database = "@postgres:5432/howdah"
    broker = passwords["broker"]
    return {
        "secret_key": passwords["secret_key"],
        "public_key": passwords["public_key"],
        "private_key": passwords["private_key"],
        "admin_password": passwords["admin"],
        "postgres_password": passwords["history_superuser"],
        "owner_password": passwords[OWNER],
        "owner_url": f"postgresql://{OWNER}:{passwords[OWNER]}{database}",
        "app_password": passwords[APP],
        "app_url": f"postgresql://{APP}:{passwords[APP]}{database}",
        "redis_url": f"redis://:{broker}@redis:6379/0",
        "redis_conf": f'requirepass {broker}\nmaxmemory 256mb\nmaxmemory-policy noeviction\nsave ""',
        "sample_password": passwords["demo_superuser"],
        "shop_password": passwords["shop"],
        "collector_password": passwords[COLLECTOR],
        "operator_password": passwords[OPERATOR],
    }


def main(folder: Path) -> None:
    """Make what is missing. The folder is the owner's alone; what runs in containers reads files."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    for name, content in files(state.passwords(folder)).items():
        path = folder / name
        if not path.exists():
            path.write_text(f"{content}\n", encoding="utf-8")
            path.chmod(0o444)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
