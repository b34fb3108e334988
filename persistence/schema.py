"""The tables of ``spoold.sqlite`` and how they came to be.

The tables of the first migration, ``search`` and ``search_threads`` are derived from the rollout files and
can be thrown away. ``thread_facts``, ``read_states``, ``goals`` and the queue's three tables hold what no
rollout says; they outlive a rebuild of the index. ``relocations`` holds what is being done to files now.

So none of these refers to ``threads`` with a foreign key. Rows of that table come and go with the index: the
row of a rollout that cannot be found at the moment (a disk that is not mounted, a file moved by hand) is
dropped, and comes back with the file. With a cascade, messages that are nowhere else would be gone by then.
What is kept by thread id goes with ``thread/delete``, in the transaction that forgets the thread (see
``persistence.relocation``), and with nothing else.

``rollouts`` changes with every commit and is therefore narrow; ``threads`` holds what a listed thread shows
and may hold a long preview.
Listing walks one partial index per (archived, sort key), so its cost depends on the page alone; a query
must repeat the index's WHERE literally for SQLite to use it.
"""

from __future__ import annotations

import sqlite3

from protocol.late_imports import one_import_at_a_time

MIGRATION_SET = "spoold"

_THREAD_INDEX = """
CREATE TABLE rollouts (
    thread_id TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    archived INTEGER NOT NULL,
    listed INTEGER NOT NULL,
    recognised INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    recency_at_ms INTEGER NOT NULL,
    indexed_bytes INTEGER NOT NULL,
    next_ordinal INTEGER NOT NULL,
    item_count INTEGER NOT NULL,
    history_mode TEXT,
    current_turn TEXT,
    turn_derived INTEGER NOT NULL,
    reasoning_ordinal INTEGER,
    has_meta INTEGER NOT NULL,
    has_cwd INTEGER NOT NULL,
    meta_offset INTEGER,
    compacted_offset INTEGER,
    turn_context_offset INTEGER,
    token_count_offset INTEGER,
    file_size INTEGER NOT NULL,
    file_mtime_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE threads (
    thread_id TEXT PRIMARY KEY,
    preview TEXT NOT NULL DEFAULT '',
    name TEXT,
    model_provider TEXT NOT NULL DEFAULT '',
    model TEXT,
    reasoning_effort TEXT,
    cwd TEXT NOT NULL DEFAULT '',
    source TEXT NOT NULL DEFAULT '"unknown"',
    source_kind TEXT NOT NULL DEFAULT 'unknown',
    thread_source TEXT,
    originator TEXT,
    cli_version TEXT NOT NULL DEFAULT '',
    git_sha TEXT,
    git_branch TEXT,
    git_origin_url TEXT,
    forked_from_id TEXT,
    parent_thread_id TEXT
) STRICT;
CREATE TABLE turns (
    thread_id TEXT NOT NULL,
    turn_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    start_offset INTEGER NOT NULL,
    end_offset INTEGER,
    status TEXT NOT NULL,
    error TEXT,
    started_at INTEGER,
    completed_at INTEGER,
    duration_ms INTEGER,
    PRIMARY KEY (thread_id, turn_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX turns_in_order ON turns (thread_id, ordinal);
CREATE TABLE items (
    thread_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    turn_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    start_offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    started_at_ms INTEGER,
    completed_at_ms INTEGER,
    PRIMARY KEY (thread_id, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX items_of_turn ON items (thread_id, turn_id, ordinal);
CREATE INDEX active_by_created ON rollouts (created_at_ms, thread_id) WHERE archived=0 AND listed=1;
CREATE INDEX active_by_updated ON rollouts (updated_at_ms, thread_id) WHERE archived=0 AND listed=1;
CREATE INDEX active_by_recency ON rollouts (recency_at_ms, thread_id) WHERE archived=0 AND listed=1;
CREATE INDEX archived_by_created ON rollouts (created_at_ms, thread_id) WHERE archived=1 AND recognised=1;
CREATE INDEX archived_by_updated ON rollouts (updated_at_ms, thread_id) WHERE archived=1 AND recognised=1;
CREATE INDEX archived_by_recency ON rollouts (recency_at_ms, thread_id) WHERE archived=1 AND recognised=1;
"""

# ``name_set`` is the moment (Unix ms) the name was given; ``git_set`` has a bit per column that is given.
# ``updated_at_ms`` is a lower bound for the thread's. All rows of an index from before have no search text:
# a size that no file has makes every file be indexed again.
_LIFECYCLE = """
CREATE TABLE thread_facts (
    thread_id TEXT PRIMARY KEY,
    name TEXT,
    name_set INTEGER NOT NULL DEFAULT 0,
    git_sha TEXT,
    git_branch TEXT,
    git_origin_url TEXT,
    git_set INTEGER NOT NULL DEFAULT 0,
    updated_at_ms INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE read_states (
    thread_id TEXT PRIMARY KEY,
    first_unread_turn_id TEXT,
    revision TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE goals (
    thread_id TEXT PRIMARY KEY,
    objective TEXT NOT NULL,
    status TEXT NOT NULL,
    token_budget INTEGER,
    tokens_used INTEGER NOT NULL,
    time_used_seconds INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE relocations (
    thread_id TEXT PRIMARY KEY,
    action TEXT NOT NULL,
    target TEXT,
    now_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE search_threads (
    number INTEGER PRIMARY KEY,
    thread_id TEXT NOT NULL UNIQUE
) STRICT;
CREATE VIRTUAL TABLE search USING fts5(text, tokenize='unicode61 remove_diacritics 2');
CREATE INDEX threads_by_parent ON threads (parent_thread_id) WHERE parent_thread_id IS NOT NULL;
UPDATE rollouts SET file_size=-1;
"""

# See ``persistence.queue``.
_QUEUE = """
CREATE TABLE thread_queued_turns (
    queued_turn_id TEXT PRIMARY KEY,
    thread_id TEXT NOT NULL,
    turn_start_params TEXT NOT NULL,
    client_user_message_id TEXT,
    queue_order INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'dispatching', 'failed')),
    dispatch_turn_id TEXT,
    dispatch_item_id TEXT,
    failure TEXT,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    UNIQUE (thread_id, queue_order),
    CHECK ((state = 'dispatching') = (dispatch_turn_id IS NOT NULL)),
    CHECK ((state = 'failed') = (failure IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE TABLE queued_turns_started (
    queued_turn_id TEXT PRIMARY KEY,
    thread_id TEXT NOT NULL,
    client_user_message_id TEXT,
    turn_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX queued_turns_started_by_client
    ON queued_turns_started (thread_id, client_user_message_id);
CREATE TABLE queue_pauses (thread_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID
"""

# Set while the end of the file may not be on the disk; see ``persistence.indexer.distrust_unflushed``.
_UNFLUSHED = "ALTER TABLE rollouts ADD COLUMN unflushed INTEGER NOT NULL DEFAULT 0"

_MIGRATIONS = {
    "thread_index": _THREAD_INDEX,
    "lifecycle": _LIFECYCLE,
    "queue": _QUEUE,
    "unflushed": _UNFLUSHED,
}
"""In order; one that has been in a release never changes."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the latest form.

    Raises:
        sqlite3.Error: the file is damaged or cannot be written.
    """
    if _is_latest(connection):
        return
    # Importing sqlite-utils costs more than everything else at start-up, and is needed once per home.
    with one_import_at_a_time:
        from sqlite_utils import Database, Migrations

    migrations = Migrations(MIGRATION_SET)

    def add(name: str, script: str) -> None:
        def run(database: Database) -> None:
            for statement in script.split(";"):
                database.execute(statement)

        migrations(name=name)(run)

    for name, script in _MIGRATIONS.items():
        add(name, script)
    migrations.apply(Database(connection))


def _is_latest(connection: sqlite3.Connection) -> bool:
    table = "SELECT 1 FROM sqlite_master WHERE name='_sqlite_migrations'"
    if connection.execute(table).fetchone() is None:
        return False
    applied = "SELECT 1 FROM _sqlite_migrations WHERE migration_set=? AND name=?"
    return connection.execute(applied, (MIGRATION_SET, list(_MIGRATIONS)[-1])).fetchone() is not None
