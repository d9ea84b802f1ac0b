"""Buildbot's worker, from its source distribution: the wheels have no tests."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

__all__ = ["VERSION", "unpacked"]

VERSION = "4.3.0"
_NAME = f"buildbot_worker-{VERSION}"
_SHA256 = "14f5e806c32ef9669e58a3398e9d53ca54fa9080cd6f04956fed1e251da9f4dc"


def unpacked(cache: Path) -> Path:
    """Return its directory below *cache*; it is fetched with pip when it is not there.

    ValueError for another file than the one that is known, CalledProcessError without a network.
    """
    directory = cache / _NAME
    if directory.is_dir():
        return directory
    archive = cache / f"{_NAME}.tar.gz"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
        which = ["--no-deps", "--no-binary", ":all:", "--dest", str(cache)]
        subprocess.run([*pip, *which, f"buildbot-worker=={VERSION}"], check=True)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != _SHA256:
        raise ValueError(f"{archive} is not the file that is known by this name")
    # A directory of this name is there whole, or not at all.
    unpacking = cache / "unpacking"
    unpacking.mkdir(exist_ok=True)
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(unpacking)], check=True)
    (unpacking / _NAME).rename(directory)
    unpacking.rmdir()
    return directory
