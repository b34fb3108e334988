"""Methods of the protocol that spoold knows and does not offer.

Their names are here so that a client gets the gate's answer and then a clear "not supported yet", and not
"unknown method". A method that becomes real moves from here to the table in ``transport/methods.py``.
"""

from __future__ import annotations

from typing import Any

from protocol.errors import NotSupported
from protocol.thread_methods import Empty, ThreadIdParams
from transport.method import Call, Method, Stability

STABLE_OF_A_THREAD = (
    "thread/attachment/add",
    "thread/attachment/list",
    "thread/attachment/remove",
    "thread/section/move",
    "thread/compact/start",
    "thread/shellCommand",
    "thread/approveGuardianDeniedAction",
    "review/start",
    "mcpServer/tool/call",
)
"""Stable methods that need a ``threadId``."""

STABLE = (
    "thread/attachmentOwner/list",
    "threadSection/list",
    "threadSection/create",
    "threadSection/update",
    "threadSection/delete",
    "skills/extraRoots/set",
    "marketplace/add",
    "marketplace/remove",
    "marketplace/upgrade",
    "plugin/list",
    "plugin/reconcile",
    "plugin/read",
    "plugin/skill/read",
    "plugin/share/save",
    "plugin/share/updateTargets",
    "plugin/share/list",
    "plugin/share/checkout",
    "plugin/share/delete",
    "app/read",
    "app/list",
    "app/installed",
    "fs/readFile",
    "fs/writeFile",
    "fs/createDirectory",
    "fs/getMetadata",
    "fs/readDirectory",
    "fs/remove",
    "fs/copy",
    "fs/watch",
    "fs/unwatch",
    "skills/config/write",
    "plugin/install",
    "plugin/uninstall",
    "account/gatewayOAuth/login",
    "account/gatewayOAuth/cancel",
    "modelProvider/list",
    "modelProvider/config/write",
    "modelProvider/capabilities/read",
    "experimentalFeature/enablement/set",
    "mcpServer/oauth/login",
    "config/mcpServer/reload",
    "mcpServer/resource/read",
    "windowsSandbox/setupStart",
    "windowsSandbox/readiness",
    "account/login/start",
    "account/login/cancel",
    "account/logout",
    "account/securitySetup/read",
    "account/rateLimitResetCredit/consume",
    "account/usage/read",
    "account/workspaceMessages/read",
    "account/sendAddCreditsNudgeEmail",
    "feedback/upload",
    "feedback/save",
    "command/exec",
    "command/exec/write",
    "command/exec/terminate",
    "command/exec/resize",
    "externalAgentConfig/detect",
    "externalAgentConfig/import",
    "externalAgentConfig/import/recordHistory",
    "externalAgentConfig/import/readHistories",
    "config/value/write",
    "config/batchWrite",
    "fuzzyFileSearch",
)
"""Other stable methods."""

EXPERIMENTAL_OF_A_THREAD = (
    "thread/sample",
    "thread/increment_elicitation",
    "thread/decrement_elicitation",
    "thread/prediction/request",
    "thread/memoryMode/set",
    "thread/memory/read",
    "thread/searchOccurrences",
    "thread/items/read",
    "thread/guardianReview",
    "thread/prepareApprovedPlan",
    "turn/settings/update",
    "thread/realtime/start",
    "thread/realtime/appendAudio",
    "thread/realtime/appendText",
    "thread/realtime/appendSpeech",
    "thread/realtime/stop",
    "thread/timeline/list",
    "mcpServer/event/stream/start",
)
"""Methods behind ``experimentalApi`` that need a ``threadId``."""

EXPERIMENTAL = (
    "server/diagnostics",
    "userVerification/status",
    "userVerification/enroll",
    "userVerification/delete",
    "userVerification/verify",
    "userVerification/cancel",
    "thread/sample/cancel",
    "memory/status",
    "memory/reset",
    "rollout/compress",
    "project/list",
    "project/read",
    "project/create",
    "project/import",
    "project/update",
    "project/move",
    "project/delete",
    "plugin/search",
    "thread/realtime/listVoices",
    "remoteControl/enable",
    "remoteControl/disable",
    "remoteControl/status/read",
    "remoteControl/pairing/start",
    "remoteControl/pairing/status",
    "remoteControl/client/list",
    "remoteControl/client/revoke",
    "mock/experimentalMethod",
    "environment/add",
    "environment/info",
    "environment/status",
    "mcpServer/event/stream/stop",
    "account/bedrock/discover",
    "account/bedrock/setup",
    "account/gcp/setup",
    "accountSession/list",
    "accountSession/switch",
    "process/spawn",
    "process/writeStdin",
    "process/kill",
    "process/resizePty",
    "fuzzyFileSearch/sessionStart",
    "fuzzyFileSearch/sessionUpdate",
    "fuzzyFileSearch/sessionStop",
)
"""Other methods behind ``experimentalApi``."""


def refuse(call: Call) -> Any:
    """The handler of every method that is not offered."""
    raise NotSupported(f"{call.method} is not supported yet")


def _row(name: str, *, of_a_thread: bool, stability: Stability) -> Method:
    return Method(
        name=name,
        params=ThreadIdParams if of_a_thread else Empty,
        result=Empty,
        scope="thread" if of_a_thread else "daemon",
        stability=stability,
        kind="inline",
        handler=refuse,
        offered=False,
    )


NOT_OFFERED: tuple[Method, ...] = (
    *(_row(name, of_a_thread=True, stability="stable") for name in STABLE_OF_A_THREAD),
    *(_row(name, of_a_thread=False, stability="stable") for name in STABLE),
    *(_row(name, of_a_thread=True, stability="experimental") for name in EXPERIMENTAL_OF_A_THREAD),
    *(_row(name, of_a_thread=False, stability="experimental") for name in EXPERIMENTAL),
)
"""Their rows."""
