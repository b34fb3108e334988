"""Provider tables: what they mean, and what a mistake in one is called."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from agent.model.provider import BUILT_IN, OFFLINE, ProviderConfig, find_provider

URL = {"base_url": "http://localhost:8080/v1"}


def test_a_table_with_only_an_address_gets_the_defaults() -> None:
    config = ProviderConfig.from_table("local", URL)
    assert (config.name, config.display_name, config.base_url) == ("local", "local", URL["base_url"])
    assert (config.wire_api, config.env_key) == ("responses", None)
    patience = (config.request_max_retries, config.stream_max_retries, config.stream_idle_timeout_ms)
    assert patience == (4, 5, 300_000)


def test_a_full_table_is_read() -> None:
    table = {
        "name": "Local",
        "base_url": "https://models.example/v1/",
        "env_key": "K",
        "env_key_instructions": "Ask Ada.",
        "experimental_bearer_token": "sesame",
        "http_headers": {"a": "1"},
        "env_http_headers": {"b": "B"},
        "query_params": {"v": "2"},
        "wire_api": "chat",
        "request_max_retries": 0,
        "stream_max_retries": 1,
        "stream_idle_timeout_ms": 10,
        "requires_openai_auth": False,
        "a_key_of_the_future": {},
    }
    config = ProviderConfig.from_table("x", table)
    assert config.base_url == "https://models.example/v1"
    assert config.display_name == "Local"
    assert config.wire_api == "chat"
    assert config.http_headers == {"a": "1"}
    assert config.stream_max_retries == 1


def test_secrets_are_not_shown_with_a_provider() -> None:
    table = {**URL, "experimental_bearer_token": "sesame", "http_headers": {"k": "sesame"}}
    assert "sesame" not in repr(ProviderConfig.from_table("x", {**table, "query_params": {"k": "sesame"}}))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("base_url", 5, "must be a string, not a number"),
        ("base_url", "localhost:1", "must be an http:// or https:// URL, not `localhost:1`"),
        ("base_url", "ftp://x", "must be an http:// or https:// URL"),
        ("base_url", "http://", "must be an http:// or https:// URL"),
        ("base_url", "http://x:99999", "must be an http:// or https:// URL"),
        ("base_url", "", "must be an http:// or https:// URL"),
        ("base_url", "http://x/?k=1", "use query_params"),
        ("wire_api", "grpc", "must be `responses` or `chat`, not `grpc`"),
        ("wire_api", "offline", "must be `responses` or `chat`"),
        ("env_key", ["K"], "must be a string, not a list"),
        ("http_headers", "x", "must be a table of strings, not a string"),
        ("query_params", {"a": 1}, "model_providers.x.query_params.a must be a string, not a number"),
        ("request_max_retries", -1, "must be between 0 and 100, not -1"),
        ("stream_max_retries", 101, "must be between 0 and 100, not 101"),
        ("stream_max_retries", True, "must be a whole number, not a boolean"),
        ("stream_idle_timeout_ms", 0, "must be at least 1, not 0"),
        ("stream_idle_timeout_ms", 1.5, "must be a whole number, not a number"),
    ],
)
def test_a_mistake_in_a_table_is_named(key: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        ProviderConfig.from_table("x", {**URL, key: value})
    assert str(caught.value).startswith(f"model_providers.x.{key}")
    assert complaint in str(caught.value)


def test_an_address_is_required() -> None:
    with pytest.raises(ValueError, match=r"model_providers\.x\.base_url is required"):
        ProviderConfig.from_table("x", {})


def test_openai_and_offline_are_there_without_a_table() -> None:
    openai = find_provider("openai", {})
    assert (openai.base_url, openai.env_key) == ("https://api.openai.com/v1", "OPENAI_API_KEY")
    assert find_provider("offline", {}) is OFFLINE


def test_a_table_for_openai_changes_only_what_it_mentions() -> None:
    config = find_provider("openai", {"openai": {"stream_max_retries": 1}})
    assert (config.base_url, config.env_key) == ("https://api.openai.com/v1", "OPENAI_API_KEY")
    assert config.stream_max_retries == 1


def test_offline_cannot_be_made_something_else() -> None:
    with pytest.raises(ValueError, match="offline"):
        find_provider("offline", {"offline": URL})


def test_an_unknown_provider_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="Model provider `nope` not found; known are `offline`, `openai`, `x`"
    ):
        find_provider("nope", {"x": URL})
    with pytest.raises(ValueError, match=r"model_providers\.x must be a table"):
        find_provider("x", {"x": 5})


def test_a_client_is_opened_without_importing_the_http_library() -> None:
    program = (
        "import sys\n"
        "from agent.model.provider import BUILT_IN, open_client\n"
        "[open_client(each, {}, None) for each in BUILT_IN.values()]\n"
        "assert 'httpx2' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert set(BUILT_IN) == {"openai", "offline"}
