"""Whether a command runs, in the sandbox or without, asks the user first, or is refused.

One table. "Sandboxed" and "plain" are ways to run; where the sandbox policy wants no sandbox
(``dangerFullAccess``, ``externalSandbox``) every way is plain and there is nothing to escalate from.

    approval policy            as it is        sandbox wanted, cannot work    escalated (out of a sandbox)
    untrusted                  ask, sandboxed  ask, plain                     ask, plain
    on-request                 sandboxed       ask, plain                     ask, plain
    granular, sandbox_approval sandboxed       ask, plain                     ask, plain
    granular, otherwise        sandboxed       refuse                         refuse
    never                      sandboxed       refuse                         refuse

There is no list of trusted commands: under ``untrusted`` even ``ls`` asks. A question that the user has
answered for the session is not asked again: an exact command, and only for the way to run it that the
question was about; or a prefix, a rule of its own ("commands that begin like this") that covers
escalation too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.tools.command_text import plain_argv
from agent.tools.sandbox import SandboxSettings, SandboxStatus, wants_sandbox
from protocol.server_requests import AcceptWithAmendment, Decision
from protocol.settings import ApprovalPolicy, GranularPolicy

_ESCALATED = "require_escalated"

NEVER_ESCALATE = (
    "approval policy is Never; reject command \u2014 "
    "you cannot ask for escalated permissions if the approval policy is Never"
)
NO_ESCALATION = (
    "escalated permissions are not available: the user's approval policy does not allow asking for them"
)


@dataclass(frozen=True, slots=True)
class Run:
    """Run it, without a question."""

    sandboxed: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask; once accepted, run it this way. ``reason`` is ours, where the model gave none."""

    sandboxed: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not run it; the model is told why. ``shown`` when the user should see it too."""

    message: str
    shown: bool = False


Verdict = Run | Ask | Refuse


@dataclass(slots=True)
class Grants:
    """What need not be asked again: exact commands (see ``command_key``) and accepted prefixes."""

    commands: set[tuple[str, ...]] = field(default_factory=set)
    prefixes: list[tuple[str, ...]] = field(default_factory=list)

    def cover(self, cmd: str, argv: Sequence[str], *, escalated: bool) -> bool:
        """Whether the user has already accepted this one."""
        if command_key(argv, escalated=escalated) in self.commands:
            return True
        words = amendment(cmd, argv)
        return any(prefix and tuple(words[: len(prefix)]) == prefix for prefix in self.prefixes)

    def learn(self, answer: Decision, key: tuple[str, ...]) -> None:
        """Remember an answer for the rest of the turn."""
        if answer == "acceptForSession":
            self.commands.add(key)
        elif isinstance(answer, AcceptWithAmendment):
            self.prefixes.append(tuple(answer.accept_with_execpolicy_amendment.execpolicy_amendment))


def command_key(argv: Sequence[str], *, escalated: bool) -> tuple[str, ...]:
    """What ``acceptForSession`` remembers. Accepted in the sandbox is not accepted outside of it."""
    return (_ESCALATED, *argv) if escalated else tuple(argv)


def amendment(cmd: str, argv: Sequence[str]) -> list[str]:
    """The prefix that is proposed for ``cmd``: its words if it is one plain command, else all of ``argv``."""
    return plain_argv(cmd) or list(argv)


def judge(
    approval: ApprovalPolicy,
    sandbox: SandboxSettings,
    status: SandboxStatus,
    *,
    escalated: bool,
    granted: bool,
) -> Verdict:
    """The table above.

    Args:
        approval: the thread's approval policy.
        sandbox: the thread's sandbox policy.
        status: whether the sandbox works here; not looked at where none is wanted.
        escalated: the model asked to run without the sandbox.
        granted: the user has accepted it before (``Grants.cover``).
    """
    wanted = wants_sandbox(sandbox)
    broken = wanted and not status.works
    verdict: Verdict = Run(sandboxed=wanted)
    if wanted and (escalated or broken):
        reason = None if escalated else f"The sandbox does not work here: {status.problem}"
        if _may_ask(approval):
            verdict = Ask(sandboxed=False, reason=reason)
        elif escalated:
            verdict = Refuse(NEVER_ESCALATE if approval == "never" else NO_ESCALATION)
        else:
            verdict = Refuse(
                f"the command was not run, the sandbox does not work here: {status.problem}", True
            )
    elif approval == "untrusted":
        verdict = Ask(sandboxed=wanted)
    if isinstance(verdict, Ask) and granted:
        return Run(verdict.sandboxed)
    return verdict


def _may_ask(approval: ApprovalPolicy) -> bool:
    """Whether the user may be asked to let a command out of the sandbox."""
    if isinstance(approval, GranularPolicy):
        return approval.granular.sandbox_approval
    return approval != "never"
