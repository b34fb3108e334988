"""Every key of config.toml that spoold reads: its type, its default, what it means.

The table ``KEYS`` drives validation, the warnings about unknown keys and the test that keeps
docs/configuration.md complete. A check gets a TOML value and returns None, or what is wrong with it in
the words that clients of the protocol know (``invalid type: integer `5`, expected a string``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Check = Callable[[object], str | None]

I64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Key:
    """One key. A ``*`` segment of ``name`` stands for any name (``model_providers.*.base_url``)."""

    name: str
    check: Check
    default: Any
    meaning: str


class BadValue(Exception):
    """A key holds a value it cannot hold; ``key`` is its dotted name."""

    def __init__(self, reason: str, key: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = key


def describe(value: object) -> str:
    """A TOML value as error texts name it."""
    match value:
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value}`"
        case str():
            shown = value if len(value) <= 80 else value[:79] + "…"
            return f'string "{shown}"'
        case list():
            return "sequence"
        case dict():
            return "map"
    return f"{type(value).__name__} `{value}`"


def _wrong_type(value: object, expected: str) -> str:
    return f"invalid type: {describe(value)}, expected {expected}"


def text(value: object) -> str | None:
    """A string."""
    return None if isinstance(value, str) else _wrong_type(value, "a string")


def filled_text(value: object) -> str | None:
    """A string with something in it."""
    return text(value) or (None if value else "value must not be empty")


def boolean(value: object) -> str | None:
    """True or false."""
    return None if isinstance(value, bool) else _wrong_type(value, "a boolean")


def whole(least: int = 0, most: int = I64_MAX) -> Check:
    """A whole number from ``least`` to ``most``."""

    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return _wrong_type(value, "i64" if most == I64_MAX else f"a whole number up to {most}")
        if not least <= value <= most:
            return f"invalid value: integer `{value}`, expected {least} to {most}"
        return None

    return check


def seconds(value: object) -> str | None:
    """A number of seconds, zero or more."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _wrong_type(value, "a number of seconds")
    # The comparison is written so that nan, which compares false with everything, is refused too.
    return None if 0 <= value <= I64_MAX else f"invalid value: {describe(value)}, expected 0 or more seconds"


def one_of(*allowed: str) -> Check:
    """One of some words."""

    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return _wrong_type(value, "a string")
        if value not in allowed:
            listed = ", ".join(f"`{word}`" for word in allowed)
            return f"unknown variant `{value}`, expected one of {listed}"
        return None

    return check


def list_of(check_item: Check) -> Check:
    """A list whose items pass a check."""

    def check(value: object) -> str | None:
        if not isinstance(value, list):
            return _wrong_type(value, "a sequence")
        return next((wrong for item in value if (wrong := check_item(item))), None)

    return check


def map_of(check_item: Check) -> Check:
    """A table of any keys whose values pass a check."""

    def check(value: object) -> str | None:
        if not isinstance(value, dict):
            return _wrong_type(value, "a map")
        return next((wrong for item in value.values() if (wrong := check_item(item))), None)

    return check


_GRANULAR = ("sandbox_approval", "rules", "mcp_elicitations", "skill_approval", "request_permissions")
_GRANULAR_REQUIRED = _GRANULAR[:3]
_policy_word = one_of("untrusted", "on-failure", "on-request", "never")


def approval_policy(value: object) -> str | None:
    """A policy word, or ``{granular = {...}}`` with booleans."""
    if not isinstance(value, dict):
        return _policy_word(value)
    granular = value.get("granular")
    if set(value) != {"granular"} or not isinstance(granular, dict):
        return "invalid value: map, expected a policy name or { granular = { ... } }"
    for name in _GRANULAR_REQUIRED:
        if name not in granular:
            return f"missing field `granular.{name}`"
    return next(
        (wrong for name in _GRANULAR if name in granular and (wrong := boolean(granular[name]))), None
    )


MIB = 1024 * 1024
_FOUR_GIB = 4096 * MIB

KEYS: tuple[Key, ...] = (
    Key("model", filled_text, None, "Model name as its provider knows it."),
    Key("model_provider", filled_text, "openai", "Which of `model_providers` threads use."),
    Key("model_reasoning_effort", filled_text, None, "How much a reasoning model thinks."),
    Key(
        "model_reasoning_summary",
        one_of("auto", "concise", "detailed", "none"),
        None,
        "Which summary of its reasoning the model is asked for.",
    ),
    Key("model_context_window", whole(1), None, "Context window in tokens, shown with the token usage."),
    Key("model_instructions_file", filled_text, None, "File with the base instructions (system text)."),
    Key("instructions", text, None, "Base instructions, when there is no `model_instructions_file`."),
    Key("developer_instructions", text, None, "Instructions added after the base instructions."),
    Key("service_tier", filled_text, None, "Service tier asked of the provider."),
    Key("approval_policy", approval_policy, "on-request", "When commands wait for an approval."),
    Key(
        "sandbox_mode",
        one_of("read-only", "workspace-write", "danger-full-access"),
        "read-only",
        "What commands may touch.",
    ),
    Key("sandbox_workspace_write.writable_roots", list_of(text), [], "More folders commands may write."),
    Key("sandbox_workspace_write.network_access", boolean, False, "Whether commands may use the network."),
    Key("sandbox_workspace_write.exclude_tmpdir_env_var", boolean, False, "Keep `$TMPDIR` read-only."),
    Key("sandbox_workspace_write.exclude_slash_tmp", boolean, False, "Keep `/tmp` read-only."),
    Key("thread_unload_delay_secs", seconds, 1800, "How long an unwatched idle thread stays loaded."),
    Key("server_requests.unattended_secs", seconds, 0, "How long questions wait while nobody is attached."),
    Key("server_requests.unattended", one_of("decline", "cancel"), "decline", "How they are answered then."),
    Key("openai_base_url", filled_text, None, "Base URL of the built-in provider `openai`."),
    Key("model_providers.*.name", text, None, "Name to show; the id when missing."),
    Key("model_providers.*.base_url", filled_text, None, "URL that `/responses` is appended to."),
    Key("model_providers.*.wire_api", one_of("responses", "chat"), "responses", "Which API it speaks."),
    Key("model_providers.*.env_key", filled_text, None, "Environment variable that holds the API key."),
    Key("model_providers.*.env_key_instructions", text, None, "How to get a key; shown when it is missing."),
    Key("model_providers.*.experimental_bearer_token", text, None, "The key itself; prefer `env_key`."),
    Key("model_providers.*.http_headers", map_of(text), None, "Headers added to every request."),
    Key("model_providers.*.env_http_headers", map_of(text), None, "Headers with values from variables."),
    Key("model_providers.*.query_params", map_of(text), None, "Query parameters added to every request."),
    Key("model_providers.*.request_max_retries", whole(0, 100), None, "Retries of a refused request."),
    Key("model_providers.*.stream_max_retries", whole(0, 100), None, "Retries of a broken stream."),
    Key("model_providers.*.stream_idle_timeout_ms", whole(1), None, "Silence that counts as broken."),
    Key("queue.on_interrupt", one_of("drain", "pause"), "drain", "What the queue does after an interrupt."),
    Key("spoold.outbox_bytes", whole(65536, _FOUR_GIB), 64 * MIB, "Unsent bytes kept for one client."),
    Key("spoold.mailbox_length", whole(1, 1_000_000), 1024, "Messages waiting for one thread."),
    Key("spoold.requests_in_flight", whole(1, 100_000), 256, "Unanswered requests of one client."),
    Key("spoold.runtime_idle_secs", seconds, 300, "How long a thread keeps what only its turns need."),
    Key("spoold.max_resident_runtimes", whole(1, 100_000), 64, "Threads that may keep it at a time."),
    Key("spoold.shutdown_grace_secs", seconds, 60, "How long running turns may finish after SIGTERM."),
)

# Keys of the reference that change nothing here: a config.toml shared with it earns no warnings.
_ACCEPTED_NAMES = """
    agents allow_login_shell allow_symlinked_codex_home analytics approvals_reviewer apps
    apps_mcp_product_sku audio auto_review background_terminal_max_timeout browser_use chatgpt_base_url
    check_for_update_on_startup cli_auth_credentials_store client_search_provider cloud compact_prompt
    computer_use daybreak default_permissions desktop disable_paste_burst experimental_compact_prompt_file
    experimental_thread_store experimental_thread_store_endpoint experimental_use_unified_exec_tool features
    feedback file_opener forced_chatgpt_workspace_id forced_login_method ghost_snapshot goals
    hide_agent_reasoning history hooks include_apps_instructions include_collaboration_mode_instructions
    include_environment_context include_environment_context_time include_permissions_instructions
    js_repl_node_module_dirs js_repl_node_path log_dir marketplaces mcp_enterprise_managed_auth
    mcp_oauth_callback_port mcp_oauth_callback_url mcp_oauth_credentials_store
    mcp_optional_startup_grace_ms mcp_servers memories model_auto_compact_token_limit
    model_auto_compact_token_limit_scope model_catalog_json model_post_turn_compact_threshold_percent
    model_verbosity notice notify orchestrator oss_provider otel permissions personality
    plan_mode_reasoning_effort plugins profile profiles project_doc_fallback_filenames
    project_doc_max_bytes project_root_markers projects realtime responses_api_metadata review_model
    shell_environment_policy show_raw_agent_reasoning skills sqlite_home
    suppress_unstable_features_warning tool_output_token_limit tool_suggest tools tui web_search windows
    """
_ACCEPTED = frozenset(_ACCEPTED_NAMES.split())
_ACCEPTED_PROVIDER_NAMES = """
    auth aws capabilities credential_file gateway_oauth location model_catalog_url project_id
    requires_openai_auth supports_standalone_web_search supports_websockets websocket_connect_timeout_ms
    """
_ACCEPTED_OF_PROVIDER = frozenset(_ACCEPTED_PROVIDER_NAMES.split())


def _tree() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key in KEYS:
        *folders, leaf = key.name.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = key
    return tree


_TREE = _tree()
DEFAULTS: Mapping[str, Any] = {key.name: key.default for key in KEYS}


def check(values: Mapping[str, Any]) -> list[str]:
    """Check the values of a whole configuration.

    Returns:
        The dotted names of the keys that nothing reads, in the order of the file.

    Raises:
        BadValue: the first key whose value it cannot hold.
    """
    return list(_unknown(values, _TREE, ()))


def _unknown(values: Mapping[str, Any], tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    accepted = _ACCEPTED if not path else _ACCEPTED_OF_PROVIDER if path[0] == "model_providers" else ()
    for name, value in values.items():
        here = (*path, name)
        known = tree.get(name) or tree.get("*")
        if isinstance(known, Key):
            wrong = known.check(value)
            if wrong:
                raise BadValue(wrong, ".".join(here))
        elif known is not None:
            if not isinstance(value, dict):
                raise BadValue(_wrong_type(value, "a map"), ".".join(here))
            yield from _unknown(value, known, here)
        elif name not in accepted and not name.startswith("experimental_"):
            yield ".".join(here)
