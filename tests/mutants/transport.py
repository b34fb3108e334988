"""Breaks between the wire and the actors: outboxes, gates, bounds, and who may come in."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

OUTBOX, CONNECTION, ROUTER = "transport/outbox.py", "transport/connection.py", "transport/router.py"
AUTH, FRONT, WEBSOCKET = "transport/auth.py", "transport/http_front.py", "transport/websocket.py"
SLOW = "rule 7: an actor never waits for a slow client, and an outbox is bounded"
MERGING = "rule 7: consecutive deltas of the same item may be merged"
ORDER = "rule 3: one order"
BOUNDED = "rule 12: bounded everywhere"
WHO = "docs/operation.md: who may come in"
OUTBOX_TESTS, ROUTER_TESTS = "tests/transport/test_outbox.py", "tests/transport/test_router.py"
SLOW_TESTS = "tests/transport/test_slow_clients.py"

MUTANTS = [
    Mutant(
        "an outbox takes whatever comes",
        SLOW,
        CONNECTION,
        "        if outbox.flooded and",
        "        if False and",
        [f"{SLOW_TESTS}::test_twice_the_limit_ends_the_connection_at_once"],
    ),
    Mutant(
        "a client that reads is closed for an answer that is longer than its outbox may be",
        SLOW,
        "transport/outbox.py",
        "        return self.backlog - self._long > 2 * self.limit\n",
        "        return self.backlog > 2 * self.limit\n",
        [f"{SLOW_TESTS}::test_what_follows_a_long_answer_at_once_is_no_reason_to_close"],
    ),
    Mutant(
        "a client that does not read is waited for, for ever",
        SLOW,
        CONNECTION,
        "            if grace.cancelled_caught:\n",
        "            if False:\n",
        [
            f"{SLOW_TESTS}::"
            "test_a_client_over_the_limit_for_the_grace_period_is_closed_with_4008_and_named_in_the_log"
        ],
    ),
    Mutant(
        "a client that catches up in time is closed all the same",
        SLOW,
        CONNECTION,
        "            if grace.cancelled_caught:\n",
        "            if True:\n",
        [f"{SLOW_TESTS}::test_a_client_that_catches_up_within_the_grace_period_stays"],
    ),
    Mutant(
        "a client that does not read is told another code than 4008",
        "docs/operation.md: the close code of a client that does not read is 4008",
        CONNECTION,
        "CLOSE_TOO_SLOW = 4008\n",
        "CLOSE_TOO_SLOW = 4009\n",
        [
            f"{SLOW_TESTS}::"
            "test_a_client_over_the_limit_for_the_grace_period_is_closed_with_4008_and_named_in_the_log"
        ],
    ),
    Mutant(
        "the end of the daemon looks like that of a client",
        "docs/operation.md: clients are told 1001",
        CONNECTION,
        "CLOSE_GOING_AWAY = 1001\n",
        "CLOSE_GOING_AWAY = 1000\n",
        ["tests/transport/test_websocket.py::test_the_end_of_the_daemon_is_a_close_frame_1001"],
    ),
    Mutant(
        "a stdio client that does not read is read from all the same",
        SLOW,
        CONNECTION,
        "            if channel.waits_for_reader and outbox.over_limit:\n",
        "            if False:\n",
        [f"{SLOW_TESTS}::test_a_stdio_client_that_does_not_read_is_waited_for"],
    ),
    Mutant(
        "deltas of different items are merged",
        MERGING,
        OUTBOX,
        "            if last.delta is None or last.delta.key != delta.key:\n",
        "            if last.delta is None:\n",
        [f"{OUTBOX_TESTS}::test_only_neighbours_of_the_same_item_merge"],
    ),
    Mutant(
        "a delta of another item joins those that were merged already",
        MERGING,
        OUTBOX,
        "        elif last.last.key != delta.key or last.size > BATCH_BYTES:\n",
        "        elif last.size > BATCH_BYTES:\n",
        [f"{OUTBOX_TESTS}::test_what_was_merged_takes_no_delta_of_another_item"],
    ),
    Mutant(
        "a merged delta bears the number of its first part",
        MERGING,
        OUTBOX,
        "        last.last = delta\n",
        "",
        [f"{OUTBOX_TESTS}::test_deltas_of_one_item_merge_while_much_waits"],
    ),
    Mutant(
        "a merged delta grows without end",
        MERGING,
        OUTBOX,
        "        elif last.last.key != delta.key or last.size > BATCH_BYTES:\n",
        "        elif last.last.key != delta.key:\n",
        [f"{OUTBOX_TESTS}::test_a_merged_message_does_not_grow_without_end"],
    ),
    Mutant(
        "messages overtake each other in the outbox",
        ORDER,
        OUTBOX,
        "        self._waiting.append(message)\n        self.backlog += len(message.data)\n",
        "        self._waiting.appendleft(message)\n        self.backlog += len(message.data)\n",
        [f"{OUTBOX_TESTS}::test_messages_leave_in_the_order_they_came"],
    ),
    Mutant(
        "what was merged counts for nothing in the backlog",
        SLOW,
        OUTBOX,
        "        self.backlog += len(delta.text)\n",
        "",
        [f"{OUTBOX_TESTS}::test_deltas_of_one_item_merge_while_much_waits"],
    ),
    Mutant(
        "a client gets the notifications that it has opted out of",
        "initialize: optOutNotificationMethods",
        CONNECTION,
        "        if not self.initialised or message.method in self.opted_out:\n",
        "        if not self.initialised:\n",
        [f"{ROUTER_TESTS}::test_opted_out_notifications_are_not_delivered_and_server_requests_are"],
    ),
    Mutant(
        "a client gets notifications before its handshake",
        "initialize: nothing before the handshake",
        CONNECTION,
        "        if not self.initialised or message.method in self.opted_out:\n",
        "        if message.method in self.opted_out:\n",
        [f"{ROUTER_TESTS}::test_a_client_gets_no_notification_before_its_handshake"],
    ),
    Mutant(
        "a client is served before its handshake",
        "initialize: nothing before the handshake",
        ROUTER,
        "    if not connection.initialised and request.method != HANDSHAKE.name:\n",
        "    if False:\n",
        [f"{ROUTER_TESTS}::test_nothing_is_served_before_initialize"],
    ),
    Mutant(
        "a client's answers count before its handshake",
        "initialize: nothing before the handshake",
        ROUTER,
        "            if connection.initialised:\n                connection.gateway.daemon.answer(",
        "            if True:\n                connection.gateway.daemon.answer(",
        [f"{ROUTER_TESTS}::test_an_answer_before_the_handshake_reaches_nobody"],
    ),
    Mutant(
        "the gate of experimental fields is open to everybody",
        "§2: gating is derived from the method table",
        ROUTER,
        "    if not connection.experimental:\n",
        "    if False:\n",
        [f"{ROUTER_TESTS}::test_experimental_methods_and_fields_need_the_capability"],
    ),
    Mutant(
        "requests in flight are not bounded",
        BOUNDED,
        ROUTER,
        "    if connection.in_flight > gateway.limits.in_flight:\n",
        "    if False:\n",
        [f"{ROUTER_TESTS}::test_requests_in_flight_are_bounded"],
    ),
    Mutant(
        "an answered request still counts as in flight",
        BOUNDED,
        CONNECTION,
        "        self.in_flight -= 1\n",
        "",
        [f"{ROUTER_TESTS}::test_requests_in_flight_are_bounded"],
    ),
    Mutant(
        "requests begin in any order",
        ORDER,
        CONNECTION,
        "            if started is not None:\n                await started.wait()\n",
        "",
        [f"{ROUTER_TESTS}::test_requests_begin_in_the_order_they_came"],
    ),
    Mutant(
        "a request may be answered twice",
        "one request, one answer",
        "transport/reply.py",
        """            raise RuntimeError(f"request {self._request_id!r} is answered twice")\n""",
        "            return\n",
        [ROUTER_TESTS],
    ),
    Mutant(
        "a bug is told to the client with its words",
        "§5: an internal error never leaks",
        ROUTER,
        'told = InternalError("internal error")',
        "told = InternalError(repr(error))",
        [f"{ROUTER_TESTS}::test_a_bug_is_logged_with_its_traceback_and_told_without"],
    ),
    Mutant(
        "the daemon is not told that a client has gone",
        "docs/attach.md: who leaves takes its subscriptions along",
        CONNECTION,
        "        connection.gateway.daemon.peer_gone(connection)\n",
        "        pass\n",
        [f"{ROUTER_TESTS}::test_the_daemon_learns_once_that_a_client_is_gone_and_its_tasks_are_cancelled"],
    ),
    Mutant(
        "a client takes part before its handshake is answered",
        ORDER,
        "transport/handshake.py",
        "    call.reply.result(\n        {  # an InitializeResult",
        "    peer.initialised = True\n    call.daemon.peer_ready(peer)\n"
        "    call.reply.result(\n        {  # an InitializeResult",
        [ROUTER_TESTS, "tests/actors/test_queue_on_a_bad_disk.py"],
    ),
    Mutant(
        "a web page may reach the daemon",
        WHO,
        FRONT,
        """    if any(name == b"origin" for name, _ in headers):\n""",
        "    if False:\n",
        ["tests/transport/test_websocket.py::test_any_request_with_an_origin_is_forbidden"],
    ),
    Mutant(
        "any token will do",
        WHO,
        AUTH,
        "return None if hmac.compare_digest(given, self.sha256) else INVALID_TOKEN",
        "return None if len(given) == len(self.sha256) else INVALID_TOKEN",
        ["tests/transport/test_listen.py::test_a_token_is_asked_for_the_upgrade_and_not_for_probes"],
    ),
    Mutant(
        "an expired token is let in",
        WHO,
        AUTH,
        "        if now > expires + self.max_clock_skew:\n",
        "        if False:\n",
        ["tests/transport/test_auth.py::test_the_times_of_a_jwt_are_compared_with_our_clock_and_some_skew"],
    ),
    Mutant(
        "a token with another signature is let in",
        WHO,
        AUTH,
        '                    "verify_exp": False,\n',
        '                    "verify_signature": False,\n                    "verify_exp": False,\n',
        ["tests/transport/test_auth.py::test_other_signatures_are_refused"],
    ),
    Mutant(
        "a frame may declare any length",
        BOUNDED,
        "transport/replay_stream.py",
        "            if length >= self._limit:\n",
        "            if False:\n",
        ["tests/transport/test_websocket.py::test_a_frame_that_declares_too_much_ends_that_connection_only"],
    ),
    Mutant(
        "a client that vanished is never found out",
        "a half-open connection is dropped",
        WEBSOCKET,
        "            if waiting.cancelled_caught and stream.progress <= before + 1:\n",
        "            if False:\n",
        ["tests/transport/test_half_open.py::test_a_client_that_does_not_answer_pings_is_dropped"],
    ),
]
