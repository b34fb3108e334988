"""Server requests: a turn asks, every subscriber sees it under one id, the first answer wins.

A question is ``pending`` until it is answered (this page) or its turn ends (``actors.turns``). Both
remove it from the state in the step that settles it, so an answer that comes later finds nothing and is
ignored. Who disconnects takes nothing with him; who attaches gets what is pending (``actors.attach``).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from pydantic import ValidationError

from actors.effects import Decision, FillSlot, ForgetRequest, SendRequest
from actors.messages import Answered, TurnAsked
from actors.state import PendingRequest, ThreadState
from actors.step import StepContext
from agent.events import ApprovalAnswer, ApprovalFailed, CommandApproval, TurnSettings
from protocol.notifications import ItemStartedNote, RequestResolved
from protocol.server_requests import AcceptWithAmendment, CommandApprovalParams, CommandApprovalResult

log = logging.getLogger(__name__)

COMMAND_APPROVAL = "item/commandExecution/requestApproval"


def asked(state: ThreadState, message: TurnAsked, step: StepContext) -> Decision:
    """Show the item as started and the thread as waiting, and ask every subscriber."""
    turn, question = state.turn, message.question
    if turn is None or turn.id != message.turn_id:
        return Decision(state, effects=[FillSlot(message.slot, ApprovalFailed("the turn ended"))])
    thread_id, item = state.record.id, question.item
    started = item.started_at_ms or step.now_ms
    params = CommandApprovalParams(
        thread_id=thread_id,
        turn_id=turn.id,
        item_id=item.id,
        started_at_ms=started,
        reason=question.reason,
        command=item.command,
        cwd=item.cwd,
        command_actions=item.command_actions,
        proposed_execpolicy_amendment=question.amendment,
        available_decisions=[
            "accept",
            {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": question.amendment}},
            "cancel",
        ],
    )
    pending = PendingRequest(
        step.next_request_id(),
        turn.id,
        COMMAND_APPROVAL,
        params,
        question,
        message.slot,
        asked=frozenset(state.subscribers),
    )
    decision = Decision(replace(state, pending=(*state.pending, pending)))
    decision.show_status()
    decision.notify(
        "item/started",
        ItemStartedNote(item=item, thread_id=thread_id, turn_id=turn.id, started_at_ms=started),
    )
    decision.effects.append(SendRequest(pending.request_id, pending.method, params))
    return decision


def answered(state: ThreadState, message: Answered) -> Decision:
    """A client answered. A late, second or foreign answer changes nothing.

    Who was asked may answer, even if it has unsubscribed since. Who was never asked is mistaken about the id,
    and must not decide about a command that it has not seen.
    """
    found = next((entry for entry in state.pending if entry.request_id == message.request_id), None)
    if found is None:
        return Decision(state)
    if message.peer_id not in found.asked:
        log.warning(
            "thread %s: an answer to request %d of a client that was not asked is ignored",
            state.record.id,
            found.request_id,
        )
        return Decision(state)
    answer = _read_answer(message)
    after = replace(state, pending=tuple(entry for entry in state.pending if entry is not found))
    after = replace(after, settings=replace(after.settings, turn=_remember(after, found.question, answer)))
    decision = Decision(after)
    decision.effects.append(ForgetRequest(found.request_id))
    decision.notify(
        "serverRequest/resolved",
        RequestResolved(thread_id=state.record.id, request_id=found.request_id),
    )
    decision.show_status()
    decision.effects.append(FillSlot(found.slot, answer))
    return decision


def _read_answer(message: Answered) -> ApprovalAnswer:
    if message.failed:
        return ApprovalFailed("the client answered with an error")
    try:
        return CommandApprovalResult.from_wire(message.result).decision
    except ValidationError:
        return ApprovalFailed("the client's answer could not be read")


def _remember(state: ThreadState, question: CommandApproval, answer: ApprovalAnswer) -> TurnSettings:
    turn = state.settings.turn
    if answer == "acceptForSession":
        return replace(turn, approved_commands=turn.approved_commands | {question.argv})
    if isinstance(answer, AcceptWithAmendment):
        prefix = tuple(answer.accept_with_execpolicy_amendment.execpolicy_amendment)
        return replace(turn, approved_prefixes=(*turn.approved_prefixes, prefix)) if prefix else turn
    return turn
