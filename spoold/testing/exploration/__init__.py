"""Random clients against the daemon in a simulated world, held against the rules: the program ``spoold-sim``.

* ``connection_model`` and ``thread_model``: the rules, as what any client may and may not see.
* ``scene``: what is there while a schedule runs; ``watched_client``: a client that checks all it hears;
  ``comparison``: what is checked when all is quiet.
* ``steps`` and the pages beside it: what can happen, one step each.
* ``schedules``: the schedule of a seed, run and made short; ``coverage``: what was reached.
* ``explorer``: many seeds, on several processors.
"""
