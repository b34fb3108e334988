"""The method table: the one place that knows which methods there are.

Adding a method is one row here and one handler in ``transport/handlers/``. The order of the rows is the
order in which an unknown method's error lists the names.
"""

from __future__ import annotations

from protocol.daemon_methods import (
    AccountReadParams,
    AccountReadResult,
    ConfigReadParams,
    ConfigReadResult,
    ModelListParams,
    ModelListResult,
)
from protocol.goal_methods import (
    GoalClearParams,
    GoalClearResult,
    GoalGetParams,
    GoalGetResult,
    GoalSetParams,
    GoalSetResult,
)
from protocol.lifecycle_methods import (
    InjectItemsParams,
    MetadataUpdateParams,
    MetadataUpdateResult,
    NameSetParams,
    ReadStateUpdateParams,
    ReadStateUpdateResult,
    RevertParams,
    RevertResult,
    RollbackParams,
    RollbackResult,
    SearchParams,
    SearchResult,
    SettingsUpdateParams,
    ThreadForkParams,
    UnarchiveResult,
)
from protocol.surroundings import (
    BackgroundTerminalsResult,
    ByFolderParams,
    CollaborationModeListResult,
    ConfigRequirementsResult,
    EmptyPage,
    GatewayOAuthParams,
    GatewayOAuthResult,
    GovCloudResult,
    HooksListResult,
    McpServersParams,
    PageParams,
    PluginInstalledParams,
    PluginInstalledResult,
    SkillsListResult,
    TerminateParams,
    TerminateResult,
    ThreadPageParams,
)
from protocol.thread_methods import (
    Empty,
    ItemsListParams,
    ItemsPage,
    LoadedListParams,
    LoadedListResult,
    ThreadIdParams,
    ThreadListParams,
    ThreadListResult,
    ThreadReadParams,
    ThreadReadResult,
    ThreadResumeParams,
    ThreadResumeResult,
    ThreadStartParams,
    ThreadStartResult,
    TurnsListParams,
    TurnsPage,
    UnsubscribeResult,
)
from protocol.turn_methods import (
    TurnInterruptParams,
    TurnStartParams,
    TurnStartResult,
    TurnSteerParams,
    TurnSteerResult,
)
from transport.handlers import daemon, goals, lifecycle, surroundings, threads, turns
from transport.handshake import HANDSHAKE
from transport.method import Method, MethodTable
from transport.not_offered import NOT_OFFERED

_THREAD_START_GATED = (
    "allowProviderModelFallback",
    "daybreakEnabled",
    "dynamicTools",
    "environments",
    "experimentalRawEvents",
    "historyMode",
    "mockExperimentalField",
    "multiAgentMode",
    "permissions",
    "projectId",
    "runtimeWorkspaceRoots",
    "selectedCapabilityRoots",
)
_THREAD_RESUME_GATED = ("history", "initialTurnsPage", "path", "permissions", "runtimeWorkspaceRoots")
_THREAD_LIST_GATED = (
    "ancestorThreadId",
    "attachedToThreadId",
    "includeAttachedThreads",
    "parentThreadId",
    "projectId",
)
_THREAD_FORK_GATED = (
    "attachToSource",
    "beforeTurnId",
    "deferGoalContinuation",
    "path",
    "permissions",
    "runtimeWorkspaceRoots",
)
_TURN_STEER_GATED = ("additionalContext", "responsesapiClientMetadata", "responsesapiClientMetadataPatch")
_TURN_START_GATED = (
    *_TURN_STEER_GATED,
    "collaborationMode",
    "cyberAccessProgram",
    "environments",
    "multiAgentMode",
    "permissions",
    "runtimeWorkspaceRoots",
)

# fmt: off
_ROWS = (
    HANDSHAKE,
    Method("thread/start", ThreadStartParams, ThreadStartResult, "daemon", "stable", "thread",
           threads.start, _THREAD_START_GATED),
    Method("thread/resume", ThreadResumeParams, ThreadResumeResult, "thread", "stable", "thread",
           threads.resume, _THREAD_RESUME_GATED),
    Method("thread/read", ThreadReadParams, ThreadReadResult, "thread", "stable", "task", threads.read),
    Method("thread/list", ThreadListParams, ThreadListResult, "daemon", "stable", "task",
           threads.list_threads, _THREAD_LIST_GATED),
    Method("thread/loaded/list", LoadedListParams, LoadedListResult, "daemon", "stable", "inline",
           threads.loaded_list),
    Method("thread/unsubscribe", ThreadIdParams, UnsubscribeResult, "thread", "stable", "thread",
           threads.unsubscribe),
    Method("thread/turns/list", TurnsListParams, TurnsPage, "thread", "stable", "task", threads.turns_list),
    Method("thread/items/list", ItemsListParams, ItemsPage, "thread", "stable", "task", threads.items_list),
    Method("turn/start", TurnStartParams, TurnStartResult, "thread", "stable", "thread",
           turns.start, _TURN_START_GATED),
    Method("turn/steer", TurnSteerParams, TurnSteerResult, "thread", "stable", "thread",
           turns.steer, _TURN_STEER_GATED),
    Method("turn/interrupt", TurnInterruptParams, Empty, "thread", "stable", "thread", turns.interrupt),
    Method("thread/fork", ThreadForkParams, ThreadStartResult, "thread", "stable", "thread",
           lifecycle.fork, _THREAD_FORK_GATED),
    Method("thread/archive", ThreadIdParams, Empty, "thread", "stable", "thread", lifecycle.archive),
    Method("thread/unarchive", ThreadIdParams, UnarchiveResult, "thread", "stable", "thread",
           lifecycle.unarchive),
    Method("thread/delete", ThreadIdParams, Empty, "thread", "stable", "thread", lifecycle.delete),
    Method("thread/name/set", NameSetParams, Empty, "thread", "stable", "thread", lifecycle.name_set),
    Method("thread/metadata/update", MetadataUpdateParams, MetadataUpdateResult, "thread", "stable", "thread",
           lifecycle.metadata_update, ("daybreakEnabled", "projectId")),
    Method("thread/settings/update", SettingsUpdateParams, Empty, "thread", "experimental", "thread",
           lifecycle.settings_update),
    Method("thread/inject_items", InjectItemsParams, Empty, "thread", "stable", "thread",
           lifecycle.inject_items),
    Method("thread/revert", RevertParams, RevertResult, "thread", "stable", "thread", lifecycle.revert),
    Method("thread/rollback", RollbackParams, RollbackResult, "thread", "stable", "thread",
           lifecycle.rollback),
    Method("thread/goal/set", GoalSetParams, GoalSetResult, "thread", "stable", "thread", goals.goal_set),
    Method("thread/goal/get", GoalGetParams, GoalGetResult, "thread", "stable", "thread", goals.goal_get),
    Method("thread/goal/clear", GoalClearParams, GoalClearResult, "thread", "stable", "thread",
           goals.goal_clear),
    Method("thread/search", SearchParams, SearchResult, "daemon", "experimental", "task", lifecycle.search),
    Method("thread/readState/update", ReadStateUpdateParams, ReadStateUpdateResult, "thread", "experimental",
           "thread", lifecycle.read_state_update),
    Method("thread/backgroundTerminals/list", ThreadPageParams, BackgroundTerminalsResult, "thread",
           "experimental", "inline", surroundings.background_terminals),
    Method("thread/backgroundTerminals/terminate", TerminateParams, TerminateResult, "thread", "experimental",
           "inline", surroundings.terminate_background_terminal),
    Method("thread/backgroundTerminals/clean", ThreadIdParams, Empty, "thread", "experimental", "inline",
           surroundings.clean_background_terminals),
    Method("hooks/list", ByFolderParams, HooksListResult, "daemon", "stable", "inline",
           surroundings.hooks_list),
    Method("skills/list", ByFolderParams, SkillsListResult, "daemon", "stable", "inline",
           surroundings.skills_list),
    Method("collaborationMode/list", Empty, CollaborationModeListResult, "daemon", "experimental", "inline",
           surroundings.collaboration_modes),
    Method("configRequirements/read", Empty, ConfigRequirementsResult, "daemon", "stable", "inline",
           surroundings.config_requirements),
    Method("account/bedrock/checkGovCloudRequirements", Empty, GovCloudResult, "daemon", "experimental",
           "inline", surroundings.gov_cloud),
    Method("account/gatewayOAuth/read", GatewayOAuthParams, GatewayOAuthResult, "daemon", "stable", "inline",
           surroundings.gateway_oauth),
    Method("account/rateLimits/read", Empty, Empty, "daemon", "stable", "inline", surroundings.rate_limits),
    Method("plugin/installed", PluginInstalledParams, PluginInstalledResult, "daemon", "stable", "inline",
           surroundings.plugins_installed),
    Method("permissionProfile/list", PageParams, EmptyPage, "daemon", "stable", "inline",
           surroundings.empty_page),
    Method("mcpServerStatus/list", McpServersParams, EmptyPage, "daemon", "stable", "inline",
           surroundings.empty_page),
    Method("experimentalFeature/list", PageParams, EmptyPage, "daemon", "stable", "inline",
           surroundings.empty_page),
    Method("model/list", ModelListParams, ModelListResult, "daemon", "stable", "inline", daemon.model_list),
    Method("config/read", ConfigReadParams, ConfigReadResult, "daemon", "stable", "inline",
           daemon.config_read),
    Method("account/read", AccountReadParams, AccountReadResult, "daemon", "stable", "inline",
           daemon.account_read),
)
# fmt: on

METHODS: MethodTable = {row.name: row for row in (*_ROWS, *NOT_OFFERED)}
"""Every method by its name on the wire."""
