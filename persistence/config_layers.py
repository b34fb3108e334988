"""Where settings come from: config.toml, ``-c`` flags, one thread's overrides; and what is shown of them.

A layer is the nested table it contributes and the source that clients are told. Later layers win key by
key; tables are merged, everything else is replaced.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

Table = dict[str, Any]

_DEEPEST = 64

SESSION_FLAGS: Mapping[str, Any] = {"type": "sessionFlags"}


class ConfigError(Exception):
    """The configuration cannot be used.

    Attributes:
        reason: what is wrong.
        key: dotted name of the key it is about, or None.
        file: the file it stands in; None when it came from a flag, a client, or a thread's settings.
    """

    def __init__(self, reason: str, *, key: str | None = None, file: Path | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = key
        self.file = file

    def __str__(self) -> str:
        """What follows ``failed to load configuration: `` for a client; with the file, if it is to blame."""
        where = f"{self.file}: " if self.file else ""
        return f"{where}{self.reason}\nin `{self.key}`\n" if self.key else where + self.reason

    @property
    def line(self) -> str:
        """The same in one line, for the person who started the program."""
        return " ".join(str(self).split())


@dataclass(frozen=True)
class Layer:
    """One source of settings.

    Attributes:
        source: ``ConfigLayerSource`` of the protocol.
        values: the nested table.
        file: the file it was read from, or None.
    """

    source: Mapping[str, Any]
    values: Table
    file: Path | None = None

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """``ConfigLayerMetadata``: the source and a fingerprint that changes with the content."""
        canonical = json.dumps(self.values, sort_keys=True, separators=(",", ":"), default=str)
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        return {"name": dict(self.source), "version": f"sha256:{digest}"}


def read_file(path: Path) -> Layer:
    """Read config.toml; a missing file is an empty layer.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or is not TOML; the reason begins with the position.
    """
    source = {"type": "user", "file": str(path), "profile": None}
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Layer(source, {}, path)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from None
    try:
        values = tomllib.loads(content.decode())
        refuse_deep(values)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"line {line}: invalid UTF-8", file=path) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_position_first(str(error)), file=path) from None
    except (RecursionError, ConfigError):
        raise ConfigError("nested too deeply", file=path) from None
    return Layer(source, values, path)


def _position_first(message: str) -> str:
    found = re.fullmatch(r"(?s)(.*) \(at line (\d+), column (\d+)\)", message)
    if found:
        return f"line {found[2]}, column {found[3]}: {found[1]}"
    return re.sub(r"(?s)(.*) \(at end of document\)", r"end of file: \1", message)


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Take ``key=value`` apart: a dotted key, and a TOML value, or plain text where it is no TOML.

    Raises:
        ConfigError: there is no ``=``, or no key before it.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"Invalid override (missing '='): {text}")
    if not key.strip():
        raise ConfigError(f"Empty key in override: {text}")
    return split_key(key.strip()), _parse_value(value.strip())


def split_key(key: str) -> tuple[str, ...]:
    """The names of a dotted key; a name with dots in it is quoted as in TOML.

    Raises:
        ConfigError: a name is empty.
    """
    quoted = '"' in key or "'" in key
    names = _quoted_names(key) if quoted else tuple(name.strip() for name in key.split("."))
    if not all(names):
        raise ConfigError(f"Empty key in override: {key}")
    return names


def _quoted_names(key: str) -> tuple[str, ...]:
    try:
        node: Any = tomllib.loads(f"{key} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        raise ConfigError(f"Invalid key in override: {key}") from None
    names = []
    while isinstance(node, dict):
        if len(node) != 1:
            raise ConfigError(f"Invalid key in override: {key}")
        name, node = next(iter(node.items()))
        names.append(name)
    return tuple(names)


def _parse_value(value: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return value.strip("\"'")
    # A line break can end the value and begin another key; then the text was not one TOML value.
    return parsed["value"] if len(parsed) == 1 else value


def nest(pairs: Iterable[tuple[tuple[str, ...], Any]]) -> Table:
    """The nested table that some keys with values make; later ones win.

    Raises:
        ConfigError: nested too deeply.
    """
    table: Table = {}
    for names, value in pairs:
        grown = value
        for name in reversed(names):
            grown = {name: grown}
        refuse_deep(grown)
        table = merge(table, grown)
    return table


def refuse_deep(table: Table) -> None:
    """Refuse tables nested deeper than any setting is, so that the rest may walk them recursively.

    Raises:
        ConfigError: there are more than 64 levels.
    """
    level: list[Any] = [table]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ConfigError("nested too deeply")


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Table:
    """Both tables as one; ``above`` wins. Neither is changed; parts may be shared with the result."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[name] = merge(old, value)
        else:
            merged[name] = value
    return merged


def origins(layers: Iterable[Layer]) -> dict[str, Any]:
    """Which layer each value comes from, by dotted key; ``layers`` are given lowest first."""
    found: dict[str, Any] = {}
    for layer in layers:
        for key in _leaves(layer.values, ""):
            found[key] = layer.metadata
    return found


def _leaves(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        pairs: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    else:
        yield path
        return
    for name, inner in pairs:
        yield from _leaves(inner, f"{path}.{name}" if path else str(name))


MASK = "********"
_SECRET_NAME = re.compile(
    r"token|secret|password|passwd|authorization|cookie|api[-_]?key|credential|signature|^key$|^sig$", re.I
)
_NO_SECRET_NAME = re.compile(r"^env_|_env_var$|_store$|_file$|_path$|token_limit", re.I)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def redact(value: Any, name: str = "") -> Any:
    """A copy without secrets: values whose name says secret, variables of programs, user info in URLs."""
    if isinstance(value, dict):
        if name == "env_http_headers":
            return dict(value)
        if name == "env":
            return dict.fromkeys(value, MASK)
        return {inner: redact(item, str(inner)) for inner, item in value.items()}
    if isinstance(value, list):
        return [redact(item, name) for item in value]
    if not isinstance(value, str):
        return value
    if value and _SECRET_NAME.search(name) and not _NO_SECRET_NAME.search(name):
        return MASK
    return _USERINFO.sub(f"{MASK}@", value)
