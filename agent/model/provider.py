"""Model providers: where a model is, how to prove who we are, which wire format it speaks.

A provider is a table ``[model_providers.NAME]`` of config.toml, or one of two built-in ones: ``openai``, and
``offline``, which needs no network (see ``agent.model.offline``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from agent.model.events import ModelClient
from protocol.late_imports import one_import_at_a_time
from protocol.runtime import Runtime

WireApi = Literal["responses", "chat", "offline"]

_MAX_RETRIES = 100
_NO_STRINGS: Mapping[str, str] = {}


@dataclass(frozen=True)
class ProviderConfig:
    """One provider. Secrets are not in its ``repr``.

    Attributes:
        name: its key under ``model_providers``.
        base_url: what ``/responses`` or ``/chat/completions`` is appended to; no slash at the end.
        display_name: for people.
        env_key: environment variable with the API key, or None if it needs none.
        env_key_instructions: how to get such a key, shown when the variable is missing.
        experimental_bearer_token: the key itself, for those who must; wins over ``env_key``.
        http_headers: sent with every request.
        env_http_headers: header name to environment variable; left out where that is unset or blank.
        query_params: appended to the URL.
        wire_api: the wire format.
        request_max_retries: quiet retries of a request that got no response.
        stream_max_retries: retries of a response that broke.
        stream_idle_timeout_ms: how long a stream may be silent.
    """

    name: str
    base_url: str
    display_name: str = ""
    env_key: str | None = None
    env_key_instructions: str | None = None
    experimental_bearer_token: str | None = field(default=None, repr=False)
    http_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    env_http_headers: Mapping[str, str] = field(default_factory=dict)
    query_params: Mapping[str, str] = field(default_factory=dict, repr=False)
    wire_api: WireApi = "responses"
    request_max_retries: int = 4
    stream_max_retries: int = 5
    stream_idle_timeout_ms: int = 300_000

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, Any]) -> ProviderConfig:
        """Read ``[model_providers.NAME]``. Keys that spoold does not know are ignored.

        A table for a built-in name changes only what it mentions.

        Raises:
            ValueError: a key is missing or has a wrong value; the message names it.
        """
        reader = _Table(f"model_providers.{name}", table)
        base = BUILT_IN.get(name)
        if base is None:
            if "base_url" not in table:
                raise ValueError(f"model_providers.{name}.base_url is required")
            base = cls(name=name, base_url="", display_name=name)
        elif base.wire_api == "offline":
            raise ValueError(f"model_providers.{name}: the name `{name}` is taken by a built-in provider")
        wire_api = reader.text("wire_api", base.wire_api)
        if wire_api not in ("responses", "chat"):
            raise ValueError(
                f"model_providers.{name}.wire_api must be `responses` or `chat`, not `{wire_api}`"
            )
        return replace(
            base,
            display_name=reader.text("name", base.display_name) or name,
            base_url=reader.url("base_url", base.base_url),
            env_key=reader.text("env_key", base.env_key) or None,
            env_key_instructions=reader.text("env_key_instructions", base.env_key_instructions),
            experimental_bearer_token=reader.text("experimental_bearer_token", None),
            http_headers=reader.strings("http_headers"),
            env_http_headers=reader.strings("env_http_headers"),
            query_params=reader.strings("query_params"),
            wire_api=cast("WireApi", wire_api),
            request_max_retries=reader.count(
                "request_max_retries", base.request_max_retries, 0, _MAX_RETRIES
            ),
            stream_max_retries=reader.count("stream_max_retries", base.stream_max_retries, 0, _MAX_RETRIES),
            stream_idle_timeout_ms=reader.count("stream_idle_timeout_ms", base.stream_idle_timeout_ms, 1),
        )


OPENAI = ProviderConfig(
    name="openai",
    base_url="https://api.openai.com/v1",
    display_name="OpenAI",
    env_key="OPENAI_API_KEY",
    env_key_instructions="Create a key at https://platform.openai.com.",
)
OFFLINE = ProviderConfig(
    name="offline",
    base_url="",
    display_name="spoold's built-in offline model",
    wire_api="offline",
    request_max_retries=0,
    stream_max_retries=0,
)
BUILT_IN: Mapping[str, ProviderConfig] = {"openai": OPENAI, "offline": OFFLINE}


def find_provider(name: str, tables: Mapping[str, Any]) -> ProviderConfig:
    """The provider ``name`` of the ``model_providers`` table, or the built-in one of that name.

    Raises:
        ValueError: there is none, or its table is wrong.
    """
    table = tables.get(name)
    if table is not None:
        if not isinstance(table, Mapping):
            raise ValueError(f"model_providers.{name} must be a table")
        return ProviderConfig.from_table(name, table)
    if name in BUILT_IN:
        return BUILT_IN[name]
    known = ", ".join(f"`{each}`" for each in sorted({*BUILT_IN, *tables}))
    raise ValueError(f"Model provider `{name}` not found; known are {known}")


def open_client(config: ProviderConfig, environ: Mapping[str, str], runtime: Runtime) -> ModelClient:
    """The client for a provider. Cheap: nothing is connected, and no HTTP library imported, before its use.

    Args:
        config: the provider.
        environ: where ``env_key`` and ``env_http_headers`` are looked up, at each request.
        runtime: for ids and time.
    """
    with one_import_at_a_time:
        if config.wire_api == "offline":
            from agent.model.offline import OfflineClient

            return OfflineClient(runtime)
        from agent.model.http_stream import ProviderHttp

        http = ProviderHttp(config, environ, runtime)
        if config.wire_api == "chat":
            from agent.model.chat import ChatClient

            return ChatClient(http, runtime)
        from agent.model.responses import ResponsesClient

        return ResponsesClient(http, runtime)


class _Table:
    """Typed reading of one table; every complaint names the full key and what is allowed."""

    def __init__(self, path: str, table: Mapping[str, Any]) -> None:
        self._path = path
        self._table = table

    def text(self, key: str, default: str | None) -> str | None:
        value = self._table.get(key, default)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{self._path}.{key} must be a string, not {_kind(value)}")
        return value

    def url(self, key: str, default: str) -> str:
        text = (self.text(key, default) or "").strip()
        try:
            parts = urlsplit(text)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"{self._path}.{key} must be an http:// or https:// URL, not `{text}`")
        if parts.query or parts.fragment:
            raise ValueError(f"{self._path}.{key} must not have a query; use query_params")
        return text.rstrip("/")

    def strings(self, key: str) -> Mapping[str, str]:
        value = self._table.get(key, _NO_STRINGS)
        if not isinstance(value, Mapping):
            raise ValueError(f"{self._path}.{key} must be a table of strings, not {_kind(value)}")
        for name, each in value.items():
            if not isinstance(each, str):
                raise ValueError(f"{self._path}.{key}.{name} must be a string, not {_kind(each)}")
        return dict(value)

    def count(self, key: str, default: int, least: int, most: int | None = None) -> int:
        value = self._table.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{self._path}.{key} must be a whole number, not {_kind(value)}")
        if value < least or (most is not None and value > most):
            allowed = f"at least {least}" if most is None else f"between {least} and {most}"
            raise ValueError(f"{self._path}.{key} must be {allowed}, not {value}")
        return value


def _kind(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), f"a {type(value).__name__}")
