"""Parameters and results of the methods that concern the daemon, not one thread."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from protocol.base import Wire
from protocol.thread_methods import U32


class ModelListParams(Wire):
    """``model/list``."""

    cursor: str | None = None
    limit: int | None = U32
    include_hidden: bool | None = None
    model_provider: str | None = None


class ReasoningEffortOption(Wire):
    """One effort a model supports."""

    reasoning_effort: str
    description: str


class Model(Wire):
    """A model that can be chosen."""

    id: str
    model: str
    upgrade: str | None = None
    upgrade_info: Any = None
    availability_nux: Any = None
    display_name: str
    description: str
    model_specialty: str | None = None
    hidden: bool = False
    supported_reasoning_efforts: list[ReasoningEffortOption]
    default_reasoning_effort: str
    input_modalities: list[str] = Field(default_factory=lambda: ["text", "image"])
    supports_personality: bool = False
    multi_agent_version: str | None = None
    additional_speed_tiers: list[str] = Field(default_factory=list)
    service_tiers: list[Any] = Field(default_factory=list)
    default_service_tier: str | None = None
    available_access_programs: Any = None
    is_default: bool = False


class ModelListResult(Wire):
    """``model/list``."""

    data: list[Model]
    next_cursor: str | None = None


class ConfigReadParams(Wire):
    """``config/read``."""

    include_layers: bool = False
    cwd: str | None = None


class ConfigReadResult(Wire):
    """The effective configuration under its config.toml names, and where each value came from."""

    config: dict[str, Any]
    origins: dict[str, Any] = Field(default_factory=dict)
    layers: list[Any] | None = None


class AccountReadParams(Wire):
    """``account/read``."""

    refresh_token: bool = False


class AccountReadResult(Wire):
    """spoold holds no account: providers take their keys from the environment."""

    account: Any = None
    user_id: str | None = None
    requires_openai_auth: bool = False
    workspace_routing: Any = None
