"""The reference server: ``codex app-server`` of the npm package ``@openai/codex``, in one fixed version.

``SPOOLD_REFERENCE=PATH`` names its native binary; else it is looked for in ``.cache/reference``, where
``install_reference`` puts it with npm. ``python -m benchmarks.reference`` installs it and prints its path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

VERSION = "0.169.0"
ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "reference"


class NoReference(Exception):
    """The reference server is not to be had. The text is one line that says why."""


def find_reference() -> Path | None:
    """The native binary that is already there, or None.

    Raises:
        NoReference: ``SPOOLD_REFERENCE`` names something that is no program.
    """
    named = os.environ.get("SPOOLD_REFERENCE")
    if named:
        path = Path(named).expanduser().absolute()
        if not os.access(path, os.X_OK) or path.is_dir():
            raise NoReference(f"SPOOLD_REFERENCE={named} is no program")
        return path
    # npm puts the binary of the machine's own platform into a package of its own.
    found = sorted(CACHE.glob("node_modules/@openai/*/vendor/*/bin/codex"))
    return found[0] if found else None


def install_reference() -> Path:
    """The native binary; installed with npm where it is not there yet.

    Raises:
        NoReference: there is no npm, or it failed.
    """
    found = find_reference()
    if found is not None:
        return found
    CACHE.mkdir(parents=True, exist_ok=True)
    package = f"@openai/codex@{VERSION}"
    command = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        "--prefix",
        str(CACHE),
        package,
    ]
    try:
        subprocess.run(command, check=True, stdout=sys.stderr)
    except FileNotFoundError:
        raise NoReference(f"npm is not installed; it is needed to fetch {package}") from None
    except subprocess.CalledProcessError as error:
        raise NoReference(f"npm could not install {package} (exit code {error.returncode})") from None
    found = find_reference()
    if found is None:
        raise NoReference(f"{package} has no binary for this platform")
    return found


if __name__ == "__main__":
    try:
        print(install_reference())
    except NoReference as failure:
        sys.exit(f"Error: {failure}")
