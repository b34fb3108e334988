"""What a thread runs with when it starts or is loaded.

Precedence, strongest first: the request's own members, its ``config`` member, what the thread ran with
last (when it is loaded from disk), ``-c`` options, config.toml, built-in defaults.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, get_args

from actors.state import DEFAULT_CONTEXT_WINDOW, Settings
from agent.events import TurnSettings
from persistence.config import Config, ConfigError
from persistence.settings_codec import approval_from_rollout, sandbox_from_rollout
from protocol.errors import InvalidRequest
from protocol.settings import ReasoningSummary
from protocol.thread_methods import ThreadStartOverrides


def absolute(path: str, base: str) -> str:
    """``path`` joined to ``base`` and normalised; it need not exist. ``""`` is ``base`` itself."""
    return os.path.normpath(os.path.join(base, path)) if path else base  # noqa: PTH118 - text in, text out


def settings_from(
    config: Config,
    params: ThreadStartOverrides,
    server_cwd: str,
    recorded: dict[str, Any] | None = None,
) -> tuple[Settings, list[str]]:
    """The settings, and warnings about keys nobody knows.

    Args:
        config: the daemon's configuration.
        params: the request.
        server_cwd: absolute; what a relative ``cwd`` is joined to.
        recorded: payload of the thread's last ``turn_context`` line, with ``model_provider`` and
            ``base_instructions`` added.

    Raises:
        InvalidRequest: the configuration with these overrides is wrong, or the members exclude each other.
    """
    if params.permissions is not None and params.sandbox is not None:
        raise InvalidRequest("`permissions` cannot be combined with `sandbox`")
    before = _still_valid(recorded or {}, params.config or {})
    try:
        own = config.with_overrides(params.config) if params.config else config
        settings = _chosen(own, params, server_cwd, before)
    except ConfigError as error:
        raise InvalidRequest(f"failed to load configuration: {error}") from None
    return settings, [text for text in own.warnings if text not in config.warnings]


def _chosen(own: Config, params: ThreadStartOverrides, server_cwd: str, before: dict[str, Any]) -> Settings:
    provider = params.model_provider or _text(before, "model_provider") or own.model_provider
    own.provider(provider)
    default = own.model if provider == own.model_provider else own.default_model(provider)
    model = params.model or _text(before, "model") or default
    sandbox = own.sandbox_policy(params.sandbox)
    if params.sandbox is None:
        sandbox = sandbox_from_rollout(before.get("sandbox_policy")) or sandbox
    approval = params.approval_policy or approval_from_rollout(before.get("approval_policy"))
    cwd = absolute(params.cwd, server_cwd) if params.cwd else _text(before, "cwd") or server_cwd
    turn = TurnSettings(
        model=model,
        cwd=cwd,
        approval_policy=approval or own.approval_policy,
        sandbox_policy=sandbox,
        effort=_text(before, "effort") or own.model_reasoning_effort,
        summary=_summary(before, own.model_reasoning_summary),
        base_instructions=(
            params.base_instructions or _text(before, "base_instructions") or own.base_instructions
        ),
        developer_instructions=(
            params.developer_instructions
            or _text(before, "developer_instructions")
            or own.developer_instructions
        ),
    )
    return Settings(
        model=model,
        model_provider=provider,
        cwd=cwd,
        turn=turn,
        context_window=own.model_context_window or DEFAULT_CONTEXT_WINDOW,
        service_tier=params.service_tier or _text(before, "service_tier") or own.service_tier,
    )


_REPLACES = {
    "model": "model",
    "model_provider": "model_provider",
    "model_reasoning_effort": "effort",
    "approval_policy": "approval_policy",
    "sandbox_mode": "sandbox_policy",
    "sandbox_workspace_write": "sandbox_policy",
    "model_reasoning_summary": "summary",
    "instructions": "base_instructions",
    "model_instructions_file": "base_instructions",
    "developer_instructions": "developer_instructions",
    "service_tier": "service_tier",
}
"""Config key -> the member of what was recorded that it replaces."""


def _summary(before: dict[str, Any], configured: ReasoningSummary | None) -> ReasoningSummary | None:
    """A line says ``none`` for a summary that nobody asked for, too."""
    recorded = before.get("summary")
    if recorded not in get_args(ReasoningSummary):
        return configured
    return None if recorded == "none" and configured is None else recorded


def _still_valid(recorded: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """What the thread ran with, without what the request's ``config`` member replaces."""
    gone = {_REPLACES.get(key.split(".")[0]) for key, value in overrides.items() if value is not None}
    return {key: value for key, value in recorded.items() if key not in gone}


def _text(table: dict[str, Any], key: str) -> str | None:
    value = table.get(key)
    return value if isinstance(value, str) and value else None


def as_shown(settings: Settings) -> Settings:
    """Only what clients can see, to tell whether two settings look the same to them."""
    turn = replace(settings.turn, base_instructions=None, approved_commands=frozenset(), approved_prefixes=())
    return replace(settings, turn=turn)
