"""The git repository around a folder, read from its files.

Starting ``git`` three times per thread costs more than the whole thread; HEAD, the ref and the remote's
address are plain files. What cannot be read (worktrees with exotic layouts, reftables) is left out.
"""

from __future__ import annotations

import configparser
from pathlib import Path

import trio

from protocol.threads import GitInfo


async def read_git_info(cwd: str) -> GitInfo | None:
    """Commit, branch and origin of the repository that holds ``cwd``; None outside of one."""
    return await trio.to_thread.run_sync(_read, Path(cwd))


def _read(cwd: Path) -> GitInfo | None:
    git = _git_dir(cwd)
    if git is None:
        return None
    branch, sha = None, None
    head = _text(git / "HEAD")
    if head.startswith("ref: "):
        ref = head[5:]
        branch = ref.removeprefix("refs/heads/")
        sha = _text(git / ref) or _text(_common(git) / ref) or _packed(_common(git), ref)
    elif head:
        sha = head
    return GitInfo(sha=sha or None, branch=branch, origin_url=_origin(_common(git)))


def _git_dir(cwd: Path) -> Path | None:
    for folder in (cwd, *cwd.parents):
        dot_git = folder / ".git"
        if dot_git.is_dir():
            return dot_git
        if dot_git.is_file():
            target = _text(dot_git).removeprefix("gitdir: ")
            return (folder / target).resolve() if target else None
    return None


def _common(git: Path) -> Path:
    """The folder that a worktree shares with its main checkout."""
    shared = _text(git / "commondir")
    return (git / shared).resolve() if shared else git


def _packed(git: Path, ref: str) -> str | None:
    for line in _text(git / "packed-refs").splitlines():
        sha, _, name = line.partition(" ")
        if name == ref:
            return sha
    return None


def _origin(git: Path) -> str | None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(_text(git / "config"))
        return parser.get('remote "origin"', "url", fallback=None)
    except configparser.Error:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
