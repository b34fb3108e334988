"""The items of the running turn that have begun and are not done, with their text so far.

A snapshot for a client that attaches in the middle of a turn holds them, so that what it gets afterwards,
appended, is the final text. They are kept beside the state, not in it: a delta must cost next to nothing, and
nothing here is ever durable.
"""

from __future__ import annotations

from agent.events import ItemDelta, ReasoningPart
from protocol.items import AgentMessageItem, CommandExecutionItem, ReasoningItem, ThreadItem


class _Growing:
    """One item and the pieces of text it grew by, by index."""

    __slots__ = ("item", "texts")

    def __init__(self, item: ThreadItem) -> None:
        self.item = item
        self.texts: dict[tuple[str, int], list[str]] = {}

    def joined(self, kind: str) -> list[str]:
        indexes = [index for key, index in self.texts if key == kind]
        size = max(indexes) + 1 if indexes else 0
        return ["".join(self.texts.get((kind, index), ())) for index in range(size)]

    def shown(self) -> ThreadItem:
        item = self.item
        match item:
            case AgentMessageItem():
                return item.model_copy(update={"text": "".join(self.joined("agentMessage"))})
            case ReasoningItem():
                update = {"summary": self.joined("reasoningSummary"), "content": self.joined("reasoningText")}
                return item.model_copy(update=update)
            case CommandExecutionItem():
                return item.model_copy(
                    update={"aggregated_output": "".join(self.joined("commandOutput")) or None}
                )
            case _:
                return item


class LiveItems:
    """What the running turn has begun. Empty while no turn runs."""

    def __init__(self) -> None:
        self._items: dict[str, _Growing] = {}

    def started(self, item: ThreadItem) -> None:
        """An item began."""
        self._items[item.id] = _Growing(item)

    def grew(self, delta: ItemDelta) -> None:
        """An item grew; one that never began is not shown."""
        growing = self._items.get(delta.item_id)
        if growing is not None:
            growing.texts.setdefault((delta.kind, delta.index), []).append(delta.delta)

    def part_added(self, part: ReasoningPart) -> None:
        """A reasoning item has one more summary part, empty so far."""
        growing = self._items.get(part.item_id)
        if growing is not None:
            growing.texts.setdefault(("reasoningSummary", part.index), [])

    def completed(self, item_id: str) -> None:
        """An item is done: history has it now."""
        self._items.pop(item_id, None)

    def abandon_stream(self) -> None:
        """The model's stream was cut (steered, or tried again): what it had begun will never be done."""
        self._items = {
            key: growing
            for key, growing in self._items.items()
            if not isinstance(growing.item, AgentMessageItem | ReasoningItem)
        }

    def clear(self) -> None:
        """The turn is over."""
        self._items.clear()

    def shown(self) -> list[ThreadItem]:
        """The items as a snapshot shows them, oldest first."""
        return [growing.shown() for growing in self._items.values()]
