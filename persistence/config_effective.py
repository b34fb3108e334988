"""What ``config/read`` shows: the whole configuration under the names of config.toml.

Clients of the protocol read some keys without asking whether they are there, so every key the reference
shows is present: null where nothing is set, and the reference's own default where it shows one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persistence.config_layers import redact

_NULLS = """
    model review_model model_context_window model_auto_compact_token_limit
    model_auto_compact_token_limit_scope model_provider approval_policy approvals_reviewer sandbox_mode
    sandbox_workspace_write forced_chatgpt_workspace_id forced_login_method web_search
    client_search_provider tools instructions developer_instructions compact_prompt model_reasoning_effort
    model_reasoning_summary model_verbosity service_tier analytics apps browser_use computer_use desktop
    agents allow_symlinked_codex_home audio auto_review check_for_update_on_startup cloud daybreak
    default_permissions disable_paste_burst experimental_compact_prompt_file
    experimental_use_unified_exec_tool feedback ghost_snapshot goals hooks log_dir memories
    mcp_oauth_callback_port mcp_oauth_callback_url mcp_optional_startup_grace_ms model_catalog_json
    model_instructions_file notice notify openai_base_url orchestrator oss_provider otel permissions
    personality plan_mode_reasoning_effort profile projects realtime responses_api_metadata
    show_raw_agent_reasoning skills sqlite_home suppress_unstable_features_warning
    thread_unload_delay_secs tool_output_token_limit tool_suggest tui windows
    """

_SHOWN_DEFAULTS: Mapping[str, Any] = {
    "model_providers": {},
    "profiles": {},
    "mcp_servers": {},
    "plugins": {},
    "marketplaces": {},
    "features": {},
    "project_root_markers": [".git"],
    "project_doc_fallback_filenames": [],
    "project_doc_max_bytes": 32768,
    "history": {"persistence": "save-all", "max_bytes": None},
    "file_opener": "vscode",
    "hide_agent_reasoning": False,
    "allow_login_shell": True,
    "include_environment_context": True,
    "include_permissions_instructions": True,
}

_PROVIDER_NULLS = """
    name base_url model_catalog_url env_key env_key_instructions experimental_bearer_token auth
    gateway_oauth aws project_id location credential_file wire_api capabilities query_params http_headers
    env_http_headers request_max_retries stream_max_retries stream_idle_timeout_ms
    websocket_connect_timeout_ms
    """
_PROVIDER_DEFAULTS: Mapping[str, Any] = {
    "wire_api": "responses",
    "requires_openai_auth": False,
    "supports_websockets": False,
    "supports_standalone_web_search": False,
}
_WORKSPACE_WRITE: Mapping[str, Any] = {
    "writable_roots": [],
    "network_access": False,
    "exclude_tmpdir_env_var": False,
    "exclude_slash_tmp": False,
}

# Members that clients read by type and that nothing here checks: shown only when they have that type.
_TABLES = frozenset({"tools", "analytics", "apps", "browser_use", "computer_use", "desktop"})


def effective(values: Mapping[str, Any], unread: frozenset[str]) -> dict[str, Any]:
    """The configuration as clients see it, without secrets.

    Args:
        values: the merged layers.
        unread: top-level names that nothing knows; they are left out.
    """
    shown: dict[str, Any] = dict.fromkeys(_NULLS.split())
    shown |= _SHOWN_DEFAULTS
    shown |= {name: value for name, value in redact(dict(values)).items() if name not in unread}
    if shown["approval_policy"] == "on-failure":
        # Clients know only the words of the protocol; this is the one it is treated as.
        shown["approval_policy"] = "on-request"
    if shown["sandbox_workspace_write"] is not None:
        shown["sandbox_workspace_write"] = {**_WORKSPACE_WRITE, **shown["sandbox_workspace_write"]}
    shown["model_providers"] = {
        name: {**dict.fromkeys(_PROVIDER_NULLS.split()), **_PROVIDER_DEFAULTS, **provider}
        for name, provider in shown["model_providers"].items()
    }
    for name in _TABLES:
        if not isinstance(shown[name], dict):
            shown[name] = None
    tools = shown["tools"]
    if tools is not None and not isinstance(tools.get("web_search"), dict):
        shown["tools"] = {**tools, "web_search": None}
    return shown
