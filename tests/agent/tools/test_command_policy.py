"""When a command runs, asks, or is refused."""

from __future__ import annotations

import pytest

from agent.tools.command_policy import (
    NEVER_ESCALATE,
    NO_ESCALATION,
    Ask,
    Grants,
    Refuse,
    Run,
    Verdict,
    amendment,
    command_key,
    judge,
)
from agent.tools.sandbox import SandboxSettings, SandboxStatus
from protocol.server_requests import AcceptWithAmendment, ExecpolicyAmendment
from protocol.settings import (
    ApprovalPolicy,
    DangerFullAccess,
    ExternalSandbox,
    GranularApproval,
    GranularPolicy,
    ReadOnly,
    WorkspaceWrite,
)

WORKS = SandboxStatus(works=True)
BROKEN = SandboxStatus(works=False, problem="no namespaces")
WHY = "The sandbox does not work here: no namespaces"
REFUSED = Refuse("the command was not run, the sandbox does not work here: no namespaces", shown=True)


def granular(sandbox_approval: bool) -> GranularPolicy:
    return GranularPolicy(
        granular=GranularApproval(sandbox_approval=sandbox_approval, rules=True, mcp_elicitations=True)
    )


@pytest.mark.parametrize("sandbox", [ReadOnly(), WorkspaceWrite()])
@pytest.mark.parametrize(
    ("approval", "as_it_is", "broken", "escalated"),
    [
        ("untrusted", Ask(True), Ask(False, WHY), Ask(False)),
        ("on-request", Run(True), Ask(False, WHY), Ask(False)),
        (granular(True), Run(True), Ask(False, WHY), Ask(False)),
        (granular(False), Run(True), REFUSED, Refuse(NO_ESCALATION)),
        ("never", Run(True), REFUSED, Refuse(NEVER_ESCALATE)),
    ],
)
def test_the_table(
    approval: ApprovalPolicy, sandbox: SandboxSettings, as_it_is: Verdict, broken: Verdict, escalated: Verdict
) -> None:
    def verdict(status: SandboxStatus, asked: bool) -> Verdict:
        return judge(approval, sandbox, status, escalated=asked, granted=False)

    assert verdict(WORKS, False) == as_it_is
    assert verdict(BROKEN, False) == broken
    assert verdict(WORKS, True) == escalated
    assert verdict(BROKEN, True) == escalated


@pytest.mark.parametrize("sandbox", [DangerFullAccess(), ExternalSandbox()])
@pytest.mark.parametrize("escalated", [False, True])
@pytest.mark.parametrize("approval", ["untrusted", "on-request", "never", granular(True), granular(False)])
def test_without_a_sandbox_only_untrusted_asks(
    approval: ApprovalPolicy, sandbox: SandboxSettings, escalated: bool
) -> None:
    expected = Ask(False) if approval == "untrusted" else Run(False)
    assert judge(approval, sandbox, WORKS, escalated=escalated, granted=False) == expected


def test_what_was_accepted_runs_without_a_question_but_never_around_a_refusal() -> None:
    assert judge("untrusted", ReadOnly(), WORKS, escalated=False, granted=True) == Run(True)
    assert judge("on-request", ReadOnly(), WORKS, escalated=True, granted=True) == Run(False)
    assert judge("never", ReadOnly(), WORKS, escalated=True, granted=True) == Refuse(NEVER_ESCALATE)
    assert judge("never", ReadOnly(), BROKEN, escalated=False, granted=True) == REFUSED


ARGV = ["/bin/bash", "-lc", "git push origin"]


def accept_prefix(*words: str) -> AcceptWithAmendment:
    return AcceptWithAmendment(
        accept_with_execpolicy_amendment=ExecpolicyAmendment(execpolicy_amendment=list(words))
    )


def test_a_command_accepted_in_the_sandbox_is_not_accepted_outside_of_it() -> None:
    grants = Grants()
    grants.learn("acceptForSession", command_key(ARGV, escalated=False))
    assert grants.cover(ARGV[2], ARGV, escalated=False)
    assert not grants.cover(ARGV[2], ARGV, escalated=True)
    assert not grants.cover("git push", ["/bin/bash", "-lc", "git push"], escalated=False)


def test_a_plain_accept_is_for_one_time() -> None:
    grants = Grants()
    grants.learn("accept", command_key(ARGV, escalated=False))
    assert grants == Grants()


def test_an_accepted_prefix_covers_commands_that_begin_like_it() -> None:
    grants = Grants()
    grants.learn(accept_prefix("git", "push"), command_key(ARGV, escalated=True))
    for escalated in (False, True):
        assert grants.cover(ARGV[2], ARGV, escalated=escalated)
        for other in ("git pull", "git", "git push; rm -rf /", "git push $(rm x)", "gitk push"):
            assert not grants.cover(other, ["/bin/bash", "-lc", other], escalated=escalated), other


def test_an_empty_prefix_covers_nothing() -> None:
    grants = Grants()
    grants.learn(accept_prefix(), ())
    assert not grants.cover("ls", ["/bin/bash", "-lc", "ls"], escalated=False)


def test_the_proposed_amendment_is_the_inner_command_where_that_is_plain() -> None:
    assert amendment("python3 -c 'print(42)'", ARGV) == ["python3", "-c", "print(42)"]
    piped = ["/bin/bash", "-lc", "a | b"]
    assert amendment("a | b", piped) == piped
