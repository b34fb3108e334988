"""What is imported late, because start-up time is a feature, is imported by one thread at a time.

Two threads that import at once may each hold the lock of a module that the other waits for; Python then
breaks one of the imports with ``_DeadlockError``. Who imports a large module inside a function, in a thread
or while threads may be running, does it with this lock held::

    with one_import_at_a_time:
        import httpx2

What libraries import on their own account, whenever they please, cannot be held back like this: the
composition root imports it before it starts the first thread.
"""

from __future__ import annotations

import threading

one_import_at_a_time = threading.RLock()
"""Held for as long as an import takes: some milliseconds, in a thread of the loop's own making."""
