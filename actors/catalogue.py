"""Reading threads: the list, one thread, pages of its history.

What concerns a loaded thread is read inside its actor's step, so that it agrees with the status and the
turn that runs; what is only on disk is read here. A row of a list carries the live status of a loaded
thread.
"""

from __future__ import annotations

from actors.messages import Read, ReadHistory
from actors.peer import Reply
from actors.supervisor import Supervisor
from actors.views import loaded_thread, read_state_view, stored_thread
from persistence.errors import StoreError
from persistence.store import Store, ThreadQuery, ThreadRecord
from protocol.errors import InternalError, InvalidParams, InvalidRequest, NotSupported
from protocol.ids import parse_uuid
from protocol.ids import thread_id as parse_thread_id
from protocol.lifecycle_methods import SearchHit, SearchParams, SearchResult
from protocol.thread_methods import (
    ItemsListParams,
    ItemsPage,
    LoadedListParams,
    LoadedListResult,
    ThreadListParams,
    ThreadListResult,
    ThreadReadParams,
    ThreadReadResult,
    TurnsListParams,
    TurnsPage,
)
from protocol.threads import Thread

MAX_EXCLUDED = 100


class Catalogue:
    """Reads of one daemon's threads."""

    def __init__(self, store: Store, supervisor: Supervisor) -> None:
        self._store = store
        self._supervisor = supervisor

    async def list_threads(self, params: ThreadListParams) -> ThreadListResult:
        """thread/list.

        Raises:
            InvalidRequest: a wrong cursor, or members that exclude each other.
            InvalidParams: a wrong excluded id, too many of them, or a filter we do not have.
        """
        _check_list(params)
        query = ThreadQuery(
            cursor=params.cursor,
            limit=params.limit,
            sort_key=params.sort_key or "created_at",
            direction=params.sort_direction or "desc",
            model_providers=params.model_providers or None,
            source_kinds=params.source_kinds or None,
            archived=bool(params.archived),
            cwds=[params.cwd] if isinstance(params.cwd, str) else params.cwd,
            search_term=params.search_term or None,
            excluded_ids=params.excluded_thread_ids or None,
            parent_id=params.parent_thread_id,
            ancestor_id=params.ancestor_thread_id,
        )
        if params.section_id is not None or params.project_id is not None:
            return ThreadListResult(data=[])
        try:
            page = await self._store.threads_page(query)
            known = await self._store.read_states([record.id for record in page.records])
        except StoreError as error:
            raise InternalError(str(error)) from error
        return ThreadListResult(
            data=[self._row(record) for record in page.records],
            read_states={thread_id: read_state_view(state) for thread_id, state in known.items()},
            next_cursor=page.next_cursor,
            backwards_cursor=page.backwards_cursor,
        )

    def _row(self, record: ThreadRecord) -> Thread:
        state = self._supervisor.live_state(record.id)
        return stored_thread(record) if state is None else loaded_thread(state, listed=True)

    def loaded_list(self, params: LoadedListParams) -> LoadedListResult:
        """thread/loaded/list: ids in ascending order, the cursor is the last id of a page.

        Raises:
            InvalidRequest: the cursor is no id.
        """
        ids = self._supervisor.loaded_ids()
        if params.cursor is not None:
            try:
                after = parse_uuid(params.cursor)
            except ValueError:
                raise InvalidRequest(f"invalid cursor: {params.cursor}") from None
            ids = [each for each in ids if each > after]
        if params.limit is None or len(ids) <= max(1, params.limit):
            return LoadedListResult(data=ids)
        page = ids[: max(1, params.limit)]
        return LoadedListResult(data=page, next_cursor=page[-1])

    async def read(self, params: ThreadReadParams, reply: Reply) -> ThreadReadResult | None:
        """thread/read. None: the thread is loaded and its actor answers through ``reply``.

        Raises:
            InvalidRequest: a wrong id, or a thread nobody knows.
        """
        thread_id = parse_thread_id(params.thread_id)
        if self._supervisor.live_state(thread_id) is not None:
            self._supervisor.post(thread_id, Read(reply, params))
            return None
        record = await self._stored(thread_id)
        thread = stored_thread(record)
        if params.include_turns:
            thread.turns = await self._store.all_turns(thread_id)
        known = await self._store.read_state(thread_id)
        return ThreadReadResult(thread=thread, read_state=None if known is None else read_state_view(known))

    async def turns_list(self, params: TurnsListParams, reply: Reply) -> TurnsPage | None:
        """thread/turns/list. None: the thread is loaded and its actor answers through ``reply``.

        Raises:
            InvalidRequest: a wrong id or cursor, or a thread nobody knows.
        """
        thread_id = parse_thread_id(params.thread_id)

        async def page(live: str | None) -> TurnsPage:
            return await self._store.turns_page(
                thread_id,
                cursor=params.cursor,
                limit=params.limit,
                direction=params.sort_direction or "desc",
                view=params.items_view or "summary",
                live_turn_id=live,
            )

        if self._supervisor.live_state(thread_id) is not None:
            message = ReadHistory(
                reply,
                page,
                unavailable="ephemeral threads do not support thread/turns/list",
                not_yet="list_turns is not supported yet",
                missing=_unknown(thread_id),
            )
            self._supervisor.post(thread_id, message)
            return None
        await self._stored(thread_id)
        return await page(None)

    async def items_list(self, params: ItemsListParams, reply: Reply) -> ItemsPage | None:
        """thread/items/list. None: the thread is loaded and its actor answers through ``reply``.

        Raises:
            InvalidRequest: a wrong id or cursor.
            NotSupported: the thread has no items to page through, or is unknown.
        """
        thread_id = parse_thread_id(params.thread_id)
        not_yet = "thread/items/list is not supported yet"

        async def page(live: str | None) -> ItemsPage:
            record = await self._store.thread(thread_id)
            if record is None or record.history_mode == "legacy":
                raise NotSupported(not_yet)
            return await self._store.items_page(
                thread_id,
                turn_id=params.turn_id,
                cursor=params.cursor,
                limit=params.limit,
                direction=params.sort_direction or "asc",
            )

        if self._supervisor.live_state(thread_id) is not None:
            missing = NotSupported(not_yet)
            message = ReadHistory(reply, page, unavailable=not_yet, not_yet=not_yet, missing=missing)
            self._supervisor.post(thread_id, message)
            return None
        return await page(None)

    async def search(self, params: SearchParams) -> SearchResult:
        """thread/search.

        Raises:
            InvalidRequest: an empty term or a wrong cursor.
        """
        if not params.search_term.strip():
            raise InvalidRequest("thread/search requires a non-empty searchTerm")
        try:
            page = await self._store.search(
                params.search_term,
                params.cursor,
                params.limit,
                archived=bool(params.archived),
                source_kinds=params.source_kinds or None,
                sort_key=params.sort_key or "recency_at",
                direction=params.sort_direction or "desc",
            )
        except StoreError as error:
            raise InternalError(str(error)) from error
        return SearchResult(
            data=[SearchHit(thread=self._row(record), snippet=snippet) for record, snippet in page.hits],
            next_cursor=page.next_cursor,
            backwards_cursor=page.backwards_cursor,
        )

    async def _stored(self, thread_id: str) -> ThreadRecord:
        record = await self._store.thread(thread_id)
        if record is None:
            raise _unknown(thread_id)
        return record


def _unknown(thread_id: str) -> InvalidRequest:
    return InvalidRequest(f"thread not loaded: {thread_id}")


def _check_list(params: ThreadListParams) -> None:
    if params.sort_key == "section_position" and params.section_id is None:
        raise InvalidRequest("section-position sorting requires a section filter")
    if params.parent_thread_id is not None and params.ancestor_thread_id is not None:
        raise InvalidRequest("parentThreadId and ancestorThreadId are mutually exclusive")
    if params.originators:
        raise InvalidParams("originator filtering is not supported by the local app-server")
    excluded = params.excluded_thread_ids or []
    if len(excluded) > MAX_EXCLUDED:
        raise InvalidParams(f"excludedThreadIds accepts at most {MAX_EXCLUDED} entries")
    for each in excluded:
        try:
            parse_uuid(each)
        except ValueError as error:
            raise InvalidParams(f"invalid excluded thread id: {error}") from None
