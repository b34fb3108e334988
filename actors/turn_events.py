"""What a running turn reports, turned into rollout lines and notifications.

A text delta never comes here: the actor sends it straight on, since it changes nothing and is by far the
most frequent message (see ``ThreadActor``).
"""

from __future__ import annotations

from dataclasses import replace

from actors import goals
from actors import lines as rollout
from actors.effects import Decision, GrowContext
from actors.messages import TurnPosted
from actors.queue_claims import message_recorded
from actors.state import ThreadState, add_usage, change_record
from actors.step import StepContext
from agent.context import CALLS
from agent.events import (
    ContextAppended,
    ContextWindowFilled,
    ItemCompleted,
    ItemDelta,
    ItemStarted,
    ModelResponded,
    ReasoningPart,
    Retrying,
    TurnWarning,
    UsageKnown,
)
from agent.model.events import ResponseItem
from agent.tools.goal_tools import GOAL_TOOLS
from protocol.base import Wire
from protocol.items import AgentMessageItem, UserMessageItem
from protocol.notifications import (
    DeltaNote,
    ErrorNote,
    ItemCompletedNote,
    ItemStartedNote,
    ReasoningDelta,
    ReasoningPartAdded,
    ReasoningTextDelta,
    TokenUsageUpdated,
    WarningNote,
)
from protocol.threads import TokenCounts, TokenUsage
from protocol.user_input import joined_text


def posted(state: ThreadState, message: TurnPosted, step: StepContext) -> Decision:
    """One event of the running turn; an event of a turn that is over changes nothing."""
    turn, event = state.turn, message.event
    if turn is None or turn.id != message.turn_id:
        return Decision(state)
    thread_id = state.record.id
    decision = Decision(state)
    match event:
        case ItemStarted(item=item):
            decision.notify(
                "item/started",
                ItemStartedNote(
                    item=item,
                    thread_id=thread_id,
                    turn_id=turn.id,
                    started_at_ms=item.started_at_ms or step.now_ms,
                ),
            )
        case ItemCompleted():
            item_completed(decision, event, step)
        case ItemDelta():
            method, params = delta_note(thread_id, turn.id, event)
            decision.notify(method, params)
        case ReasoningPart(item_id=item_id, index=index):
            decision.notify(
                "item/reasoning/summaryPartAdded",
                ReasoningPartAdded(
                    thread_id=thread_id, turn_id=turn.id, item_id=item_id, summary_index=index
                ),
            )
        case ContextAppended(items=items):
            rollout.context_grew(decision, state, items, step.now_ms)
            if not turn.called_tool and any(is_work(item) for item in items):
                decision.state = replace(state, turn=replace(turn, called_tool=True))
            decision.effects.append(GrowContext(items))
        case UsageKnown():
            decision.state = replace(state, turn=replace(turn, uncounted=event))
        case ModelResponded(usage=usage):
            decision.state = replace(state, turn=replace(turn, uncounted=None))
            if usage is not None:
                count_usage(decision, usage, event.response_id, step)
        case ContextWindowFilled():
            window = state.settings.context_window
            full = TokenCounts(total_tokens=window)
            _show_usage(decision, TokenUsage(total=full, last=full, model_context_window=window), None, step)
        case Retrying(error=error):
            decision.notify(
                "error", ErrorNote(error=error, will_retry=True, thread_id=thread_id, turn_id=turn.id)
            )
        case TurnWarning(message=text):
            decision.notify("warning", WarningNote(thread_id=thread_id, message=text))
    return decision


def item_completed(decision: Decision, event: ItemCompleted, step: StepContext) -> None:
    """An item of the running turn is done: its lines, its notification, its place in the context."""
    state, item = decision.state, event.item
    turn = state.turn
    assert turn is not None
    now = step.now_ms
    after = state
    if isinstance(item, AgentMessageItem) and item.phase != "commentary":
        after = replace(after, turn=replace(turn, last_message=item))
    if isinstance(item, UserMessageItem):
        # They are taken in the order in which they were accepted.
        after = replace(after, turn=replace(turn, untaken=turn.untaken[1:]))
        if not state.record.preview:
            after = change_record(after, preview=joined_text(item.content))
    after = change_record(after, updated_at_ms=now)
    decision.state = after
    message_recorded(decision, item.id)
    rollout.item_completed(decision, state, turn.id, event, now)
    if event.context:
        decision.effects.append(GrowContext(event.context))
    decision.notify(
        "item/completed",
        ItemCompletedNote(
            item=item,
            thread_id=state.record.id,
            turn_id=turn.id,
            completed_at_ms=item.completed_at_ms or now,
        ),
    )


def count_usage(decision: Decision, usage: TokenCounts, response_id: str, step: StepContext) -> None:
    """Add what a model response cost to the thread's counters, and show them."""
    state = decision.state
    new = add_usage(state.usage, usage, state.settings.context_window)
    _show_usage(decision, new, response_id, step)
    goals.counted(decision, usage, step)


def _show_usage(decision: Decision, usage: TokenUsage, response_id: str | None, step: StepContext) -> None:
    state, turn = decision.state, decision.state.turn
    assert turn is not None
    decision.state = replace(state, usage=usage, usage_turn=turn.id)
    rollout.usage_counted(decision, state, turn.id, usage, response_id, step.now_ms)
    decision.notify(
        "thread/tokenUsage/updated",
        TokenUsageUpdated(thread_id=state.record.id, turn_id=turn.id, token_usage=usage),
    )


def is_work(item: ResponseItem) -> bool:
    """Whether the model does something with it: calls a tool, other than those about its goal."""
    return item.get("type") in CALLS and item.get("name") not in GOAL_TOOLS


def delta_note(thread_id: str, turn_id: str, event: ItemDelta) -> tuple[str, Wire]:
    """The notification of a text delta."""
    match event.kind:
        case "agentMessage":
            return "item/agentMessage/delta", DeltaNote(
                thread_id=thread_id, turn_id=turn_id, item_id=event.item_id, delta=event.delta
            )
        case "commandOutput":
            return "item/commandExecution/outputDelta", DeltaNote(
                thread_id=thread_id, turn_id=turn_id, item_id=event.item_id, delta=event.delta
            )
        case "reasoningSummary":
            return "item/reasoning/summaryTextDelta", ReasoningDelta(
                thread_id=thread_id,
                turn_id=turn_id,
                item_id=event.item_id,
                delta=event.delta,
                summary_index=event.index,
            )
        case "reasoningText":
            return "item/reasoning/textDelta", ReasoningTextDelta(
                thread_id=thread_id,
                turn_id=turn_id,
                item_id=event.item_id,
                delta=event.delta,
                content_index=event.index,
            )
