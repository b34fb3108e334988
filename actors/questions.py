"""Server requests: a turn asks, every subscriber sees it under one id, the first answer wins.

A question is ``pending`` until it is answered (this page) or its turn ends (``actors.turns``). Both
remove it from the state in the step that settles it, so an answer that comes later finds nothing and is
ignored. Who disconnects takes nothing with him; who attaches gets what is pending (``actors.attach``).

``KINDS`` is the whole difference between the kinds of question. What the user is asked about is shown as an
item where the kind has one; what the turn is told is what the kind reads from the answer, or that there was
none. With nobody attached a question waits, for ever or until the policy of the configuration answers it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from actors.effects import Decision, FillSlot, ForgetRequest, SendRequest
from actors.messages import Answered, TurnAsked
from actors.state import PendingRequest, RunningTurn, ThreadState
from actors.step import StepContext
from agent.events import ApprovalFailed, ClientToolCall, CommandApproval, TurnSettings, UserQuestions
from persistence.config import Unattended
from protocol.base import Wire
from protocol.dynamic_tools import DynamicToolCallParams
from protocol.items import ThreadItem
from protocol.notifications import ItemStartedNote, RequestResolved, WarningNote
from protocol.server_requests import (
    SERVER_REQUESTS,
    AcceptWithAmendment,
    CommandApprovalParams,
    UserInputParams,
)
from protocol.threads import ActiveFlag

log = logging.getLogger(__name__)

NOBODY = ApprovalFailed("nobody was there to answer")
NOBODY_ENDS_TURN = ApprovalFailed("nobody was there to answer", ends_turn=True)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of question.

    Attributes:
        method: of the server request; its row in SERVER_REQUESTS has the models.
        params: the request, from (question, thread id, turn, now).
        flag: what the thread waits on meanwhile, or None: it just works.
        item: what is shown as started together with the question.
        read: from a well-formed answer to what the turn is told.
        learn: what the thread remembers of an answer.
        decline, cancel: what the turn is told when the policy answers.
    """

    method: str
    params: Callable[[Any, str, RunningTurn, int], Wire]
    flag: ActiveFlag | None
    item: Callable[[Any], ThreadItem | None]
    read: Callable[[Any], Any]
    learn: Callable[[TurnSettings, Any, Any], TurnSettings] = lambda settings, question, answer: settings
    decline: Any = NOBODY
    cancel: Any = NOBODY_ENDS_TURN


def _approval_params(question: CommandApproval, thread_id: str, turn: RunningTurn, now: int) -> Wire:
    item = question.item
    return CommandApprovalParams(
        thread_id=thread_id,
        turn_id=turn.id,
        item_id=item.id,
        started_at_ms=item.started_at_ms or now,
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


def _learn_approval(turn: TurnSettings, question: CommandApproval, answer: Any) -> TurnSettings:
    if answer == "acceptForSession":
        return replace(turn, approved_commands=turn.approved_commands | {question.argv})
    if isinstance(answer, AcceptWithAmendment):
        prefix = tuple(answer.accept_with_execpolicy_amendment.execpolicy_amendment)
        return replace(turn, approved_prefixes=(*turn.approved_prefixes, prefix)) if prefix else turn
    return turn


def _input_params(question: UserQuestions, thread_id: str, turn: RunningTurn, now: int) -> Wire:
    return UserInputParams(
        thread_id=thread_id, turn_id=turn.id, item_id=question.call_id, questions=question.questions
    )


def _tool_params(question: ClientToolCall, thread_id: str, turn: RunningTurn, now: int) -> Wire:
    item = question.item
    return DynamicToolCallParams(
        thread_id=thread_id,
        turn_id=turn.id,
        call_id=item.id,
        namespace=item.namespace,
        tool=item.tool,
        arguments=item.arguments,
    )


KINDS: dict[type, Kind] = {
    CommandApproval: Kind(
        "item/commandExecution/requestApproval",
        _approval_params,
        "waitingOnApproval",
        item=lambda question: question.item,
        read=lambda answer: answer.decision,
        learn=_learn_approval,
        decline="decline",
        cancel="cancel",
    ),
    UserQuestions: Kind(
        "item/tool/requestUserInput",
        _input_params,
        "waitingOnUserInput",
        item=lambda question: None,
        read=lambda answer: answer,
    ),
    ClientToolCall: Kind(
        "item/tool/call",
        _tool_params,
        None,
        item=lambda question: question.item,
        read=lambda answer: answer,
    ),
}


def asked(state: ThreadState, message: TurnAsked, step: StepContext) -> Decision:
    """Show the item as started and the thread as waiting, and ask every subscriber."""
    turn, question = state.turn, message.question
    if turn is None or turn.id != message.turn_id:
        return Decision(state, effects=[FillSlot(message.slot, ApprovalFailed("the turn ended"))])
    kind, thread_id, now = KINDS[type(question)], state.record.id, step.now_ms
    params = kind.params(question, thread_id, turn, now)
    pending = PendingRequest(
        step.next_request_id(),
        turn.id,
        kind.method,
        params,
        question,
        message.slot,
        kind.flag,
        asked=frozenset(state.subscribers),
    )
    decision = Decision(replace(state, pending=(*state.pending, pending)))
    decision.show_status()
    item = kind.item(question)
    if item is not None:
        decision.notify(
            "item/started",
            ItemStartedNote(
                item=item, thread_id=thread_id, turn_id=turn.id, started_at_ms=item.started_at_ms or now
            ),
        )
    decision.effects.append(SendRequest(pending.request_id, pending.method, params))
    return decision


def answered(state: ThreadState, message: Answered) -> Decision:
    """A client answered. A late, second or foreign answer changes nothing.

    Who was asked may answer, even if it has unsubscribed since. Who was never asked is mistaken about the id,
    and must not decide about a command that it has not seen.
    """
    found = next((entry for entry in state.pending if entry.request_id == message.request_id), None)
    decision = Decision(state)
    if found is None:
        return decision
    if message.peer_id not in found.asked:
        log.warning(
            "thread %s: an answer to request %d of a client that was not asked is ignored",
            state.record.id,
            found.request_id,
        )
        return decision
    _settle(decision, found, _read_answer(KINDS[type(found.question)], message))
    return decision


def unattended(state: ThreadState, policy: Unattended) -> Decision:
    """Nobody has been there for as long as the configuration wants to wait: it answers itself."""
    decision = Decision(state)
    for entry in state.pending:
        kind = KINDS[type(entry.question)]
        cancels = policy.answer == "cancel"
        text = (
            f"Nobody was attached for {policy.seconds:g} s: {entry.method} was "
            f"{'cancelled' if cancels else 'declined'}, as server_requests.unattended wants it."
        )
        log.warning("thread %s: %s", state.record.id, text)
        decision.notify("warning", WarningNote(thread_id=state.record.id, message=text))
        _settle(decision, entry, kind.cancel if cancels else kind.decline)
    return decision


def _settle(decision: Decision, entry: PendingRequest, answer: Any) -> None:
    """The question is over: everybody is told, and the turn goes on with the answer."""
    state = decision.state
    learnt = KINDS[type(entry.question)].learn(state.settings.turn, entry.question, answer)
    decision.state = replace(
        state,
        pending=tuple(each for each in state.pending if each is not entry),
        settings=replace(state.settings, turn=learnt),
    )
    decision.effects.append(ForgetRequest(entry.request_id))
    decision.notify(
        "serverRequest/resolved",
        RequestResolved(thread_id=state.record.id, request_id=entry.request_id),
    )
    decision.show_status()
    decision.effects.append(FillSlot(entry.slot, answer))


def _read_answer(kind: Kind, message: Answered) -> Any:
    if message.failed:
        return ApprovalFailed("the client answered with an error")
    try:
        return kind.read(SERVER_REQUESTS[kind.method].result.from_wire(message.result))
    except ValidationError:
        return ApprovalFailed("the client's answer could not be read")
