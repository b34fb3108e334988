"""The index of one thread as a function of its rollout, computed line by line.

The same code is fed by the live writer with what it has just appended and by the rebuild with what it
reads, so the index never depends on who wrote the file or when. Its state is exactly one row of the
``rollouts`` table: small, and loaded from there when a thread is written to again. What a line adds to
the other tables comes out as SQL operations, in order. The index holds offsets and names, never content.

Two forms of history exist. In a ``paginated`` file ``item_completed`` lines are the items and lines carry
their ordinal. In a ``legacy`` file a handful of events are the items; they have no ids of their own, so
they are numbered over the thread (``item-1``...), a run of reasoning events is one item, and the ordinal
is the line's number. Very old ones have no turn markers either: there a user message begins a turn.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field, fields
from typing import Any

from persistence.database import Operation
from persistence.item_codec import KNOWN_ITEM_TYPES
from persistence.rollout_files import parse_object
from persistence.rollout_lines import parse_timestamp
from persistence.search_index import add_text, forget_texts, message_text, number_thread

_LONGEST_GAP = 1_000_000  # a larger jump of ordinals is damage, not numbering
_INTEGER_LIMIT = 2**62

_LEGACY_KINDS = {
    "user_message": "userMessage",
    "agent_message": "agentMessage",
    "agent_reasoning": "reasoning",
    "context_compacted": "contextCompaction",
}

_TYPES = frozenset(
    ("session_meta", "turn_context", "response_item", "event_msg", "compacted", "world_state")
)  # lines that make a file recognisable as a rollout

# Most bytes of a rollout are in lines of which the index needs no more than the head.
_HEAD = re.compile(
    rb'\{"timestamp": ?"([^"\\]{10,40})", ?(?:"ordinal": ?(\d{1,15}), ?)?'
    rb'"type": ?"(response_item|world_state|token_usage_record)", ?"payload": ?\{'
)


@dataclass(frozen=True, slots=True)
class Line:
    """What the index looks at in one line."""

    timestamp_ms: int | None
    ordinal: int | None
    type: str
    payload: dict[str, Any]


def parse_line(raw: bytes) -> Line | None:
    """Read one line; None where it is no rollout line."""
    if (head := _HEAD.match(raw)) and raw.endswith(b"}}"):
        timestamp, ordinal, kind = head.groups()
        number = None if ordinal is None else int(ordinal)
        return Line(parse_timestamp(timestamp.decode("latin-1")), number, kind.decode(), {})
    body = parse_object(raw)
    if body is None:
        return None
    kind, payload, ordinal = body.get("type"), body.get("payload"), body.get("ordinal")
    if not isinstance(kind, str) or not isinstance(payload, dict):
        return None
    return Line(parse_timestamp(body.get("timestamp")), _integer(ordinal), kind, payload)


@dataclass(slots=True)
class RolloutState:
    """One row of ``rollouts``: how far a file is indexed, and what the next line needs to know.

    ``path`` is relative to the home. ``listed`` is set once there is a preview, ``turn_derived`` while the
    turn in hand has no marker of its own. ``file_size`` and ``file_mtime_ns`` are the file's when it was
    indexed: when they differ the index is stale. ``unflushed`` is set while the file's end may not be on the
    disk itself: a power cut can then change it under the same size and time.
    """

    thread_id: str
    path: str
    archived: int
    listed: int = 0
    recognised: int = 0
    created_at_ms: int = 0
    updated_at_ms: int = 0
    recency_at_ms: int = 0
    indexed_bytes: int = 0
    next_ordinal: int = 0
    item_count: int = 0
    history_mode: str | None = None
    current_turn: str | None = None
    turn_derived: int = 0
    reasoning_ordinal: int | None = None
    has_meta: int = 0
    has_cwd: int = 0
    meta_offset: int | None = None
    compacted_offset: int | None = None
    turn_context_offset: int | None = None
    token_count_offset: int | None = None
    file_size: int = -1
    file_mtime_ns: int = -1
    unflushed: int = 0

    @property
    def partial(self) -> bool:
        """Whether more of the file is being indexed, or what is known of it is not believed any more."""
        return self.file_size < 0


COLUMNS = tuple(each.name for each in fields(RolloutState))

_RESET_METADATA = (
    "INSERT INTO threads (thread_id) VALUES (?) ON CONFLICT (thread_id) DO UPDATE SET "
    "preview='', model_provider='', model=NULL, reasoning_effort=NULL, cwd='', source='\"unknown\"', "
    "source_kind='unknown', thread_source=NULL, originator=NULL, cli_version='', git_sha=NULL, "
    "git_branch=NULL, git_origin_url=NULL, forked_from_id=NULL, parent_thread_id=NULL"
)
# A fact may say that the thread was updated later than its last line.
_UPDATED = "max(?, coalesce((SELECT updated_at_ms FROM thread_facts WHERE thread_id=?), 0))"
_SAVE = (
    f"INSERT INTO rollouts ({', '.join(COLUMNS)}) VALUES ("  # noqa: S608
    f"{', '.join(_UPDATED if name == 'updated_at_ms' else '?' for name in COLUMNS)}) "
    f"ON CONFLICT (thread_id) DO UPDATE SET {', '.join(f'{name}=excluded.{name}' for name in COLUMNS[1:])}"
)
_BEGIN_TURN = (
    "INSERT INTO turns (thread_id, turn_id, ordinal, start_offset, status, started_at) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (thread_id, turn_id) DO NOTHING"
)
_END_TURN = (
    "UPDATE turns SET status=?, end_offset=?, error=?, started_at=coalesce(?, started_at), completed_at=?, "
    "duration_ms=? WHERE thread_id=? AND turn_id=?"
)
_ADD_ITEM = (
    "INSERT INTO items (thread_id, ordinal, turn_id, item_id, kind, start_offset, length, started_at_ms, "
    "completed_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (thread_id, ordinal) DO NOTHING"
)
_EXTEND_ITEM = "UPDATE items SET length=?-start_offset WHERE thread_id=? AND ordinal=?"


def forget(thread_id: str) -> list[Operation]:
    """Take a thread out of the index. Its name is kept: it is not in the rollout."""
    return [
        *forget_texts(thread_id),
        ("DELETE FROM items WHERE thread_id=?", (thread_id,)),
        ("DELETE FROM turns WHERE thread_id=?", (thread_id,)),
        ("DELETE FROM rollouts WHERE thread_id=?", (thread_id,)),
    ]


def distrust_unflushed() -> Operation:
    """Make every row stale whose file a power cut may have changed since, unseen: for the start of a process.

    The database is flushed with every commit, a rollout at the end of a turn, so the index can know lines
    that are gone, with space in their place that was never filled.
    """
    return "UPDATE rollouts SET file_size=-1, unflushed=0 WHERE unflushed=1", ()


def begin(state: RolloutState) -> list[Operation]:
    """Start a thread's index from nothing."""
    return [*forget(state.thread_id), (_RESET_METADATA, (state.thread_id,)), number_thread(state.thread_id)]


def save(state: RolloutState) -> Operation:
    """Store how far the index has come; always the last operation of a step."""
    values: list[Any] = []
    for name in COLUMNS:
        values.append(getattr(state, name))
        if name == "updated_at_ms":
            values.append(state.thread_id)
    return _SAVE, tuple(values)


@dataclass(slots=True)
class Indexer:
    """Feeds lines into one thread's index. ``operations`` collects what to write to the database."""

    state: RolloutState
    operations: list[Operation] = field(default_factory=list)

    def feed(self, offset: int, length: int, line: Line | None) -> None:
        """Take in the complete line at ``offset``; None stands for one that could not be read."""
        state = self.state
        state.indexed_bytes = offset + length
        if line is None:
            if state.history_mode == "legacy":
                state.next_ordinal += 1
            return
        if state.history_mode is None:
            self._recognise(line)
        ordinal = state.next_ordinal
        named = line.ordinal if state.history_mode != "legacy" else None
        if named is not None and ordinal < named <= ordinal + _LONGEST_GAP:
            ordinal = named
        state.next_ordinal = ordinal + 1
        if line.timestamp_ms is not None:
            state.updated_at_ms = max(state.updated_at_ms, line.timestamp_ms)
            if state.created_at_ms == 0:
                state.created_at_ms = state.recency_at_ms = line.timestamp_ms
        payload = line.payload
        match line.type:
            case "event_msg":
                self._event(offset, length, ordinal, line)
            case "session_meta":
                self._session_meta(offset, payload)
            case "turn_context":
                state.turn_context_offset = offset
                model = payload.get("model")
                self._describe(model=_text(model), reasoning_effort=_text(payload.get("effort")))
                if not state.has_cwd:
                    self._describe_cwd(payload.get("cwd"))
            case "compacted":
                if isinstance(payload.get("replacement_history"), list):
                    state.compacted_offset = offset

    def _recognise(self, line: Line) -> None:
        if line.type not in _TYPES:
            return
        self.state.recognised = 1
        # Only a guess, until the file's own first line says it.
        self.state.history_mode = "legacy" if line.ordinal is None else "paginated"

    def _session_meta(self, offset: int, payload: dict[str, Any]) -> None:
        state = self.state
        # A fork's file may hold the source's first line as well: only its own counts.
        if state.has_meta or payload.get("id") not in (state.thread_id, None):
            return
        state.has_meta = 1
        state.meta_offset = offset
        state.history_mode = "paginated" if payload.get("history_mode") == "paginated" else "legacy"
        created = parse_timestamp(payload.get("timestamp"))
        if created is not None:
            if state.recency_at_ms == state.created_at_ms:
                state.recency_at_ms = created
            state.created_at_ms = created
        source = payload.get("source", "unknown")
        kind, parent = source_kind(source), payload.get("parent_thread_id")
        if parent is None and isinstance(source, dict):
            parent = _spawned_by(source)
        git = payload.get("git")
        git = git if isinstance(git, dict) else {}
        self._describe(
            model_provider=_text(payload.get("model_provider")) or "",
            source=json.dumps(source),
            source_kind=kind,
            thread_source=_text(payload.get("thread_source")),
            originator=_text(payload.get("originator")),
            cli_version=_text(payload.get("cli_version")) or "",
            git_sha=_text(git.get("commit_hash")),
            git_branch=_text(git.get("branch")),
            git_origin_url=_text(git.get("repository_url")),
            forked_from_id=_text(payload.get("forked_from_id")),
            parent_thread_id=_text(parent),
        )
        self._describe_cwd(payload.get("cwd"))

    def _event(self, offset: int, length: int, ordinal: int, line: Line) -> None:
        state, payload = self.state, line.payload
        match payload.get("type"):
            case "task_started" | "turn_started":
                turn_id = _text(payload.get("turn_id"))
                if turn_id is None:
                    return
                started = _integer(payload.get("started_at"))
                if started is None and line.timestamp_ms is not None:
                    started = line.timestamp_ms // 1000
                self._begin_turn(turn_id, ordinal, offset, "open", started)
                if line.timestamp_ms is not None:
                    # A fork holds turns that are older than itself.
                    state.recency_at_ms = max(line.timestamp_ms, state.created_at_ms)
            case "task_complete" | "turn_complete":
                failed = isinstance(payload.get("error"), dict)
                self._end_turn("failed" if failed else "completed", offset + length, line)
            case "turn_aborted":
                self._end_turn("interrupted", offset + length, line)
            case "item_completed" if state.history_mode == "paginated":
                self._item(offset, length, ordinal, payload)
            case "token_count":
                if isinstance(payload.get("info"), dict):
                    state.token_count_offset = offset
            case "thread_settings_applied":
                settings = payload.get("thread_settings")
                if isinstance(settings, dict) and _text(settings.get("model")) is not None:
                    self._describe(
                        model=settings["model"], reasoning_effort=_text(settings.get("reasoning_effort"))
                    )
                    if provider := _text(settings.get("model_provider_id")):
                        self._describe(model_provider=provider)
            case str(kind) if state.history_mode == "legacy" and kind in _LEGACY_KINDS:
                self._legacy_item(offset, length, ordinal, line)

    def _begin_turn(
        self, turn_id: str, ordinal: int, offset: int, status: str, started_at: int | None
    ) -> None:
        state = self.state
        state.current_turn = turn_id
        state.turn_derived = 0
        state.reasoning_ordinal = None
        self.operations.append((_BEGIN_TURN, (state.thread_id, turn_id, ordinal, offset, status, started_at)))

    def _end_turn(self, status: str, end: int, line: Line) -> None:
        state, payload = self.state, line.payload
        turn_id = _text(payload.get("turn_id")) or state.current_turn
        if turn_id is None:
            return
        error = payload.get("error")
        completed = _integer(payload.get("completed_at"))
        if completed is None and line.timestamp_ms is not None:
            completed = line.timestamp_ms // 1000
        values = (
            status,
            end,
            json.dumps(error) if isinstance(error, dict) else None,
            _integer(payload.get("started_at")),
            completed,
            _integer(payload.get("duration_ms")),
        )
        self.operations.append((_END_TURN, (*values, state.thread_id, turn_id)))
        if turn_id == state.current_turn:
            state.current_turn = None
            state.reasoning_ordinal = None

    def _item(self, offset: int, length: int, ordinal: int, payload: dict[str, Any]) -> None:
        state, item = self.state, payload.get("item")
        if not isinstance(item, dict):
            return
        kind, item_id = _text(item.get("type")), _text(item.get("id"))
        turn_id = _text(payload.get("turn_id")) or state.current_turn
        if kind is None or kind not in KNOWN_ITEM_TYPES or item_id is None or turn_id is None:
            return
        name = kind[0].lower() + kind[1:]
        if name == "agentMessage" and item.get("phase") == "commentary":
            name = "commentary"
        if turn_id != state.current_turn:
            # An item without a turn of its own (a review): the turn is as long as its items.
            row = (state.thread_id, turn_id, ordinal, offset, "completed", None)
            self.operations.append((_BEGIN_TURN, row))
        started, completed = _integer(payload.get("started_at_ms")), _integer(payload.get("completed_at_ms"))
        row_values = (ordinal, turn_id, item_id, name, offset, length, started, completed)
        self.operations.append((_ADD_ITEM, (state.thread_id, *row_values)))
        if text := message_text(name, item.get("content")):
            self.operations.append(add_text(state.thread_id, ordinal, text))
        if name == "userMessage" and not state.listed:
            self._preview(text)

    def _legacy_item(self, offset: int, length: int, ordinal: int, line: Line) -> None:
        state, kind = self.state, _LEGACY_KINDS[line.payload["type"]]
        if state.current_turn is None or (kind == "userMessage" and state.turn_derived):
            # No turn marker: the message itself begins a turn, whose id can only be derived.
            derived = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{state.thread_id}/{ordinal}"))
            self._begin_turn(derived, ordinal, offset, "completed", None)
            state.turn_derived = 1
            if line.timestamp_ms is not None:
                state.recency_at_ms = line.timestamp_ms
        turn_id = state.current_turn
        assert turn_id is not None
        if kind == "reasoning" and state.reasoning_ordinal is not None:
            extended = (offset + length, state.thread_id, state.reasoning_ordinal)
            self.operations.append((_EXTEND_ITEM, extended))
            return
        state.reasoning_ordinal = ordinal if kind == "reasoning" else None
        if kind == "agentMessage" and line.payload.get("phase") == "commentary":
            kind = "commentary"
        state.item_count += 1
        row = (ordinal, turn_id, f"item-{state.item_count}", kind, offset, length, None, None)
        self.operations.append((_ADD_ITEM, (state.thread_id, *row)))
        text = _text(line.payload.get("message")) or ""
        if text and kind in ("userMessage", "agentMessage", "commentary"):
            self.operations.append(add_text(state.thread_id, ordinal, text))
        if kind == "userMessage" and not state.listed:
            self._preview(text)

    def _preview(self, text: str) -> None:
        if text:
            self.state.listed = 1
            self._describe(preview=text)

    def _describe_cwd(self, cwd: object) -> None:
        if isinstance(cwd, str) and cwd:
            self.state.has_cwd = 1
            self._describe(cwd=cwd)

    def _describe(self, **columns: str | None) -> None:
        names = ", ".join(f"{name}=?" for name in columns)
        statement = f"UPDATE threads SET {names} WHERE thread_id=?"  # noqa: S608
        self.operations.append((statement, (*columns.values(), self.state.thread_id)))


def source_kind(source: object) -> str:
    """The name under which ``sourceKinds`` filters threads of this source."""
    if isinstance(source, str):
        return {"mcp": "appServer"}.get(source, source)
    if not isinstance(source, dict):
        return "unknown"
    if "custom" in source:
        return "custom"
    agent = source.get("subagent")
    if isinstance(agent, str):
        return f"subAgent{agent.capitalize()}"
    if isinstance(agent, dict):
        return "subAgentThreadSpawn" if "thread_spawn" in agent else "subAgentOther"
    return "unknown"


def _spawned_by(source: dict[str, Any]) -> object:
    agent = source.get("subagent")
    spawn = agent.get("thread_spawn") if isinstance(agent, dict) else None
    return spawn.get("parent_thread_id") if isinstance(spawn, dict) else None


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    # SQLite stores UTF-8, which has no lone surrogates.
    return value.encode("utf-8", "replace").decode()


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -_INTEGER_LIMIT < value < _INTEGER_LIMIT else None
