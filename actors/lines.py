"""Which rollout lines a step writes. Each function adds them to a decision; an ephemeral thread writes none.

A rollout begins at the first turn (or name, or injected item): until then a thread touches no disk. The
order inside a turn is the reference's: task_started, turn_context, settings, then what happens, one terminal
line at the end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.effects import Decision
from actors.state import RunningTurn, Settings, ThreadState
from actors.views import thread_settings
from agent.events import ItemCompleted
from agent.model.events import ResponseItem
from agent.tools.dynamic_tools import recorded
from persistence import rollout_lines as make
from persistence.store import ReadState
from protocol.threads import TokenUsage, TurnError, TurnStatus


def materialise(decision: Decision, now: int, revision: str) -> None:
    """Begin the rollout if there is none yet; ``revision`` names the read state that begins with it."""
    state = decision.state
    if state.ephemeral or state.materialised:
        return
    record = state.record
    decision.create = record.path
    decision.read_state = ReadState(None, revision)
    decision.state = replace(state, materialised=True, read_state=decision.read_state)
    decision.lines.append(
        make.session_meta(
            now,
            record.id,
            created_at_ms=record.created_at_ms,
            cwd=record.cwd,
            originator=record.originator or "",
            cli_version=record.cli_version,
            model_provider=record.model_provider,
            source=record.source,
            thread_source=record.thread_source,
            base_instructions=state.settings.turn.base_instructions,
            git=record.git,
            forked_from_id=record.forked_from_id,
            dynamic_tools=recorded(state.dynamic_tools),
        )
    )


def turn_began(decision: Decision, before: ThreadState, now: int, revision: str) -> None:
    """The head of the turn in ``decision.state``, and of the file if this is the first."""
    turn = decision.state.turn
    if before.ephemeral or turn is None:
        return
    materialise(decision, now, revision)
    settings, lines = decision.state.settings, decision.lines
    lines.append(
        make.task_started(
            now,
            turn.id,
            started_at_s=turn.started_at_ms // 1000,
            model_context_window=settings.context_window,
        )
    )
    lines.append(_turn_context(settings, turn.id, now))
    if not before.materialised or settings != before.settings:
        lines.append(make.thread_settings_applied(now, before.record.id, thread_settings(settings)))


def settings_changed(decision: Decision, now: int) -> None:
    """New settings outside of a turn: a resume must find them."""
    state = decision.state
    if state.materialised:
        decision.lines.append(_turn_context(state.settings, "", now))
        shown = thread_settings(state.settings)
        decision.lines.append(make.thread_settings_applied(now, state.record.id, shown))


def _turn_context(settings: Settings, turn_id: str, now: int) -> make.RolloutLine:
    return make.turn_context(
        now,
        turn_id,
        cwd=settings.cwd,
        approval_policy=settings.turn.approval_policy,
        sandbox_policy=settings.turn.sandbox_policy,
        model=settings.model,
        effort=settings.turn.effort,
        summary=settings.turn.summary,
        developer_instructions=settings.turn.developer_instructions,
        service_tier=settings.service_tier,
    )


def recorded_settings(settings: Settings) -> dict[str, Any]:
    """The settings as a rollout would give them back; of a thread that has none."""
    return {**_turn_context(settings, "", 0).payload, "model_provider": settings.model_provider}


def context_grew(decision: Decision, state: ThreadState, items: tuple[ResponseItem, ...], now: int) -> None:
    """Raw items of the model context."""
    if not state.ephemeral:
        decision.lines.extend(make.response_item(now, item) for item in items)


def item_completed(
    decision: Decision, state: ThreadState, turn_id: str, event: ItemCompleted, now: int
) -> None:
    """An item, and the raw items that belong to it, in the order the event asks for."""
    if state.ephemeral:
        return
    if event.context_first:
        context_grew(decision, state, event.context, now)
    if event.persist:
        decision.lines.append(
            make.item_completed(
                now,
                thread_id=state.record.id,
                turn_id=turn_id,
                item=event.item,
                started_at_ms=event.item.started_at_ms,
                completed_at_ms=event.item.completed_at_ms,
            )
        )
    if not event.context_first:
        context_grew(decision, state, event.context, now)


def usage_counted(
    decision: Decision,
    state: ThreadState,
    turn_id: str,
    usage: TokenUsage,
    response_id: str | None,
    now: int,
) -> None:
    """The counters after a model response; without a response id there was none (a full window)."""
    if state.ephemeral:
        return
    if response_id is not None:
        decision.lines.append(
            make.token_usage_record(
                now, thread_id=state.record.id, turn_id=turn_id, response_id=response_id, usage=usage.last
            )
        )
    decision.lines.append(make.token_count(now, usage))


def turn_ended(
    decision: Decision,
    state: ThreadState,
    turn: RunningTurn,
    status: TurnStatus,
    error: TurnError | None,
    now: int,
) -> None:
    """The one terminal line of a turn."""
    if state.ephemeral:
        return
    started, completed = turn.started_at_ms // 1000, now // 1000
    duration = max(0, now - turn.started_at_ms)
    if status == "interrupted":
        line = make.turn_aborted(
            now, turn.id, started_at=started, completed_at=completed, duration_ms=duration
        )
    else:
        final = turn.last_message if status == "completed" else None
        line = make.task_complete(
            now,
            turn.id,
            last_agent_message=None if final is None else final.text,
            error=error,
            started_at=started,
            completed_at=completed,
            duration_ms=duration,
        )
    decision.lines.append(line)
