"""The configuration of the daemon, and of one thread.

``Config`` is immutable and complete once it exists: every value has been checked, so its properties
cannot fail. A thread that brings its own settings gets a ``Config`` of its own (``with_overrides``).

The parts: the keys with their types and defaults (``config_keys``), where values come from
(``config_layers``), what clients are shown (``config_effective``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from persistence.config_effective import effective
from persistence.config_keys import DEFAULTS, BadValue, check
from persistence.config_layers import (
    SESSION_FLAGS,
    ConfigError,
    Layer,
    Table,
    merge,
    nest,
    origins,
    parse_override,
    read_file,
    redact,
    refuse_deep,
    split_key,
)
from persistence.home import Home
from protocol.late_imports import one_import_at_a_time

if TYPE_CHECKING:
    from protocol.settings import ApprovalPolicy, ReasoningSummary, SandboxMode, SandboxPolicy

__all__ = ["DEFAULT_MODEL", "OFFLINE", "OPENAI", "Config", "ConfigError", "Limits", "Unattended"]

OPENAI = "openai"
OFFLINE = "offline"
DEFAULT_MODEL = "gpt-5.1-codex"
_DEFAULT_MODELS: Mapping[str, str] = {OFFLINE: "offline"}

_BUILT_IN_PROVIDERS: Mapping[str, Table] = {OPENAI: {}, OFFLINE: {}}


@dataclass(frozen=True, slots=True)
class Limits:
    """The daemon's own bounds.

    Attributes:
        outbox_bytes: unsent bytes kept for one client before it is let go.
        mailbox_length: messages that may wait for one thread.
        requests_in_flight: unanswered requests of one client.
        runtime_idle_secs: how long a thread keeps its runtime after its last turn.
        max_resident_runtimes: how many threads may keep one.
        shutdown_grace_secs: how long running turns may finish after SIGTERM.
    """

    outbox_bytes: int
    mailbox_length: int
    requests_in_flight: int
    runtime_idle_secs: float
    max_resident_runtimes: int
    shutdown_grace_secs: float


@dataclass(frozen=True, slots=True)
class Unattended:
    """What happens to questions while nobody is attached.

    Attributes:
        seconds: how long they wait; infinity is for ever.
        answer: what they are answered with then.
    """

    seconds: float = math.inf
    answer: Literal["decline", "cancel"] = "decline"


class Config:
    """Checked settings. Compare and share freely; nothing in it changes.

    Attributes:
        values: the merged layers as one nested table under config.toml names. Do not change it.
        layers: lowest first: config.toml, the ``-c`` flags, a thread's overrides.
        unread: dotted names of the keys that nothing reads.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        """Merge and check some layers, lowest first.

        Raises:
            ConfigError: a value is not what its key can hold, or the chosen provider does not exist.
        """
        self.layers = tuple(layers)
        values: Table = {}
        try:
            for layer in self.layers:
                refuse_deep(layer.values)
                values = merge(values, layer.values)
            self.unread = tuple(check(values))
        except BadValue as error:
            raise ConfigError(error.reason, key=error.key, file=self._file_of(error.key)) from None
        self.values = values
        if OFFLINE in values.get("model_providers", {}):
            key = f"model_providers.{OFFLINE}"
            raise ConfigError("the name of a built-in provider", key=key, file=self._file_of(key))
        try:
            self.provider(self.model_provider)
        except ConfigError as error:
            file = self._file_of(error.key or "model_provider")
            raise ConfigError(error.reason, key=error.key, file=file) from None

    @classmethod
    def load(cls, home: Home, overrides: Iterable[str] = ()) -> Config:
        """Read the home's config.toml and put ``key=value`` overrides over it. Blocks on one small file.

        Raises:
            ConfigError: see ``__init__``; or the file cannot be read, or an override is malformed.
        """
        flags = nest([parse_override(text) for text in overrides])
        layers = [read_file(home.config_path)]
        if flags:
            layers.append(Layer(SESSION_FLAGS, flags))
        config = cls(layers)
        # Read once here so that a missing file stops the start and not the first thread.
        _ = config.base_instructions
        return config

    def with_overrides(self, overrides: Mapping[str, Any] | None) -> Config:
        """This configuration with one thread's own settings over it.

        Args:
            overrides: values by dotted key; a value may be a nested table. None or empty: nothing changes.

        Raises:
            ConfigError: see ``__init__``.
        """
        if not overrides:
            return self
        table = nest([(split_key(key), value) for key, value in overrides.items()])
        return Config([*self.layers, Layer(SESSION_FLAGS, _without_nulls(table))])

    def _file_of(self, key: str) -> Path | None:
        """The file that the value of a key comes from, if it comes from one."""
        for layer in reversed(self.layers):
            node: Any = layer.values
            for name in key.split("."):
                node = node.get(name) if isinstance(node, dict) else None
            if node is not None:
                return layer.file
        return None

    def get(self, key: str) -> Any:
        """The value of a dotted key of ``KEYS``, or its default."""
        node: Any = self.values
        for name in key.split("."):
            node = node.get(name) if isinstance(node, dict) else None
            if node is None:
                return DEFAULTS[key]
        return node

    @property
    def model_provider(self) -> str:
        """Id of the provider threads use."""
        return cast("str", self.get("model_provider"))

    @property
    def model(self) -> str:
        """The model threads use; without one in the settings, what the provider offers first."""
        return cast("str", self.get("model") or self.default_model(self.model_provider))

    @staticmethod
    def default_model(provider: str) -> str:
        """The model used at a provider when none is named."""
        return _DEFAULT_MODELS.get(provider, DEFAULT_MODEL)

    @property
    def model_reasoning_effort(self) -> str | None:
        """Reasoning effort, or None for the provider's default."""
        return cast("str | None", self.get("model_reasoning_effort"))

    @property
    def model_reasoning_summary(self) -> ReasoningSummary | None:
        """Reasoning summary, or None for the provider's default."""
        return cast("ReasoningSummary | None", self.get("model_reasoning_summary"))

    @property
    def model_context_window(self) -> int | None:
        """Context window in tokens, or None when it is not known."""
        return cast("int | None", self.get("model_context_window"))

    @property
    def service_tier(self) -> str | None:
        """Service tier asked of the provider, or None."""
        return cast("str | None", self.get("service_tier"))

    @cached_property
    def approval_policy(self) -> ApprovalPolicy:
        """When commands ask. ``on-failure`` of older files is treated as ``on-request``."""
        value = self.get("approval_policy")
        if isinstance(value, dict):
            with one_import_at_a_time:
                from protocol.settings import GranularPolicy  # not needed to start
            return GranularPolicy.from_wire(value)
        return cast("ApprovalPolicy", "on-request" if value == "on-failure" else value)

    @property
    def sandbox_mode(self) -> SandboxMode:
        """What commands may touch."""
        return cast("SandboxMode", self.get("sandbox_mode"))

    def sandbox_policy(self, mode: SandboxMode | None = None) -> SandboxPolicy:
        """The sandbox of a mode (of ``sandbox_mode`` when None) with the settings of its table."""
        with one_import_at_a_time:
            from protocol.settings import DangerFullAccess, ReadOnly, WorkspaceWrite  # not needed to start
        match mode or self.sandbox_mode:
            case "danger-full-access":
                return DangerFullAccess()
            case "workspace-write":
                return WorkspaceWrite(
                    writable_roots=list(self.get("sandbox_workspace_write.writable_roots")),
                    network_access=self.get("sandbox_workspace_write.network_access"),
                    exclude_tmpdir_env_var=self.get("sandbox_workspace_write.exclude_tmpdir_env_var"),
                    exclude_slash_tmp=self.get("sandbox_workspace_write.exclude_slash_tmp"),
                )
            case _:
                return ReadOnly()

    @cached_property
    def base_instructions(self) -> str | None:
        """The system text that replaces the built-in one, or None. May read a small file, once.

        Raises:
            ConfigError: ``model_instructions_file`` cannot be read or is empty.
        """
        key = "model_instructions_file"
        name = self.get(key)
        if name is None:
            return cast("str | None", self.get("instructions"))
        file = self._file_of(key)
        path = Path(name).expanduser()
        if file is not None:
            path = file.parent / path
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "invalid UTF-8"
            raise ConfigError(f"{path} cannot be read: {why}", key=key, file=file) from None
        if not text:
            raise ConfigError(f"{path} is empty", key=key, file=file)
        return text

    @property
    def developer_instructions(self) -> str | None:
        """Instructions added after the base instructions, or None."""
        return cast("str | None", self.get("developer_instructions"))

    @property
    def thread_unload_delay_secs(self) -> float:
        """Seconds that an idle thread without subscribers stays loaded."""
        return float(self.get("thread_unload_delay_secs"))

    @property
    def queue_on_interrupt(self) -> Literal["drain", "pause"]:
        """Whether queued turns run on after an interrupted one, or wait until they are told to."""
        chosen: Literal["drain", "pause"] = self.get("queue.on_interrupt")
        return chosen

    def provider(self, name: str) -> Table:
        """The table of a model provider, a fresh dict; for a built-in one, what the settings change of it.

        Raises:
            ConfigError: there is none of that name, or it has no ``base_url``.
        """
        table = self.model_providers.get(name)
        if table is None:
            raise ConfigError(f"Model provider `{name}` not found")
        if name not in _BUILT_IN_PROVIDERS and "base_url" not in table:
            raise ConfigError("missing field `base_url`", key=f"model_providers.{name}")
        return dict(table)

    @cached_property
    def model_providers(self) -> dict[str, Table]:
        """All providers by id: those of the settings, ``openai`` and ``offline``."""
        tables = merge(_BUILT_IN_PROVIDERS, {})
        base_url = self.get("openai_base_url")
        if base_url is not None:
            tables[OPENAI] = {"base_url": base_url}
        return merge(tables, self.values.get("model_providers", {}))

    @cached_property
    def limits(self) -> Limits:
        """The daemon's own bounds."""
        return Limits(
            outbox_bytes=self.get("spoold.outbox_bytes"),
            mailbox_length=self.get("spoold.mailbox_length"),
            requests_in_flight=self.get("spoold.requests_in_flight"),
            runtime_idle_secs=float(self.get("spoold.runtime_idle_secs")),
            max_resident_runtimes=self.get("spoold.max_resident_runtimes"),
            shutdown_grace_secs=float(self.get("spoold.shutdown_grace_secs")),
        )

    @property
    def unattended(self) -> Unattended:
        """What happens to questions of a turn while nobody is attached."""
        wait = float(self.get("server_requests.unattended_secs"))
        return Unattended(wait or math.inf, self.get("server_requests.unattended"))

    @property
    def warnings(self) -> list[str]:
        """What a person should know about the settings; one sentence each."""
        return [f"Ignoring the unknown configuration key `{key}`." for key in self.unread]

    def effective(self) -> dict[str, Any]:
        """``config`` of ``config/read``: every well-known key, null where unset; secrets are masked."""
        return effective(self.values, frozenset(key for key in self.unread if "." not in key))

    def origins(self) -> dict[str, Any]:
        """``origins`` of ``config/read``: dotted key to ``ConfigLayerMetadata``."""
        return origins(self.layers)

    def layer_list(self) -> list[dict[str, Any]]:
        """``layers`` of ``config/read``: highest precedence first; secrets are masked."""
        return [
            {**layer.metadata, "config": redact(layer.values), "disabledReason": None}
            for layer in reversed(self.layers)
        ]


def _without_nulls(table: Table) -> Table:
    """A client's null means "not set": TOML has no null, so no key could hold one."""
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in table.items()
        if value is not None
    }
