"""``spoold queue``: what waits for a thread, seen and changed through the daemon of the home.

A client as any other: it connects to the home's control socket and speaks the protocol. It never starts a
daemon and never makes a home.

What it prints may come from anybody's messages. Characters that a terminal would act on are shown as escapes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

    from spoold.client import Client, RpcFailed

    Question = Callable[[Client], Awaitable[dict[str, Any]]]

_Command = TypeVar("_Command", bound=Callable[..., Any])

ANSWER_TIMEOUT = 60.0
"""Seconds to wait for the daemon: longer than loading the longest thread takes."""
PAGE = 100
ATTEMPTS = 5
"""How often a list is read again that changes while it is read page by page."""
LONGEST_LINE = 200
"""Characters of a message in a line."""


def _common(command: _Command) -> _Command:
    command = click.option("--json", "as_json", is_flag=True, help="Print the result as it is on the wire.")(
        command
    )
    return click.option("--home", metavar="DIR", help="Home folder [SPOOLD_HOME, CODEX_HOME, ~/.spoold].")(
        command
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def queue() -> None:
    """See and change what waits for a thread, in the daemon that runs."""


@queue.command("list")
@click.argument("thread")
@_common
@click.pass_context
def list_rows(context: click.Context, /, thread: str, *, home: str | None, as_json: bool) -> None:
    """List the rows of THREAD, in the order in which they run."""
    _check_text(thread)

    async def ask(client: Client) -> dict[str, Any]:
        return await _all_rows(client, thread)

    _show_rows(_ask(context, home, thread, ask), as_json=as_json)


@queue.command()
@click.argument("thread")
@click.argument("text")
@click.option(
    "--when-busy",
    type=click.Choice(["enqueue", "steer", "interrupt", "reject"]),
    default="enqueue",
    show_default=True,
    help="What to do while a turn runs.",
)
@click.option("--client-id", metavar="ID", help="Your name for the message: added again, it is one row.")
@_common
@click.pass_context
def add(
    context: click.Context,
    /,
    thread: str,
    text: str,
    *,
    when_busy: str,
    client_id: str | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Queue TEXT as a turn of THREAD; "-" reads it from standard input."""
    if text == "-":
        text = _standard_input()
    _check_text(thread, text, client_id or "")
    if not text.strip():
        raise click.UsageError("TEXT is empty")
    turn: dict[str, Any] = {
        "threadId": thread,
        "input": [{"type": "text", "text": text, "text_elements": []}],
    }
    if client_id:
        turn["clientUserMessageId"] = client_id
    params = {"threadId": thread, "turnStartParams": turn, "whenBusy": when_busy}

    async def ask(client: Client) -> dict[str, Any]:
        result: dict[str, Any] = await client.call("thread/queue/add", params)
        return result

    result = _ask(context, home, thread, ask)
    if as_json:
        _print_json(result)
    else:
        click.echo(row_line(result["queuedTurn"]))


@queue.command()
@click.argument("thread")
@click.argument("row")
@_common
@click.pass_context
def delete(context: click.Context, /, thread: str, row: str, *, home: str | None, as_json: bool) -> None:
    """Take ROW out of the queue of THREAD."""
    _check_text(thread, row)

    async def ask(client: Client) -> dict[str, Any]:
        result: dict[str, Any] = await client.call(
            "thread/queue/delete", {"threadId": thread, "queuedTurnId": row}
        )
        return result

    result = _ask(context, home, thread, ask)
    if as_json:
        _print_json(result)
    if not result["deleted"]:
        said = f"no row {row} in the queue; `spoold queue list {thread}` shows the rows"
        if turn := result.get("turnId"):
            said = f"row {row} has become turn {turn} already; interrupt the turn to stop it"
        raise click.ClickException(visible(said))
    if not as_json:
        click.echo(visible(f"deleted {row}"))


@queue.command()
@click.argument("thread")
@click.argument("rows", metavar="ROW...", nargs=-1, required=True)
@_common
@click.pass_context
def reorder(
    context: click.Context, /, thread: str, rows: tuple[str, ...], *, home: str | None, as_json: bool
) -> None:
    """Put the rows of THREAD into this order; every row has to be named, each once."""
    _check_text(thread, *rows)

    async def ask(client: Client) -> dict[str, Any]:
        result: dict[str, Any] = await client.call(
            "thread/queue/reorder", {"threadId": thread, "queuedTurnIds": list(rows)}
        )
        return result

    result = _ask(context, home, thread, ask)
    if as_json:
        _print_json(result)
    else:
        _show_rows({"data": result["queuedTurns"]}, as_json=False)


def row_line(row: dict[str, Any]) -> str:
    """A row as a line for a terminal: id, status, first line of its text."""
    status = row["status"]
    match status["type"]:
        case "failed":
            said = f"failed ({status['error']})"
        case "started":
            said = f"started (turn {status['turnId']})"
        case other:
            said = str(other)
    return visible(f"{row['id']}  {said}  {_first_line(row)}")


def visible(text: str) -> str:
    """The text with whatever is not printable as an escape: control, format and direction characters."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _first_line(row: dict[str, Any]) -> str:
    parts = [
        str(part.get("text", "")) if part.get("type") == "text" else f"[{part.get('type')}]"
        for part in row["input"]
        # What a damaged disk has left is listed too, so that it can be deleted.
        if isinstance(part, dict)
    ]
    lines = " ".join(parts).strip().splitlines() or [""]
    line = lines[0]
    cut = len(lines) > 1 or len(line) > LONGEST_LINE
    return f"{line[:LONGEST_LINE]} [...]" if cut else line


def _show_rows(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json(result)
        return
    for row in result["data"]:
        click.echo(row_line(row))
    if not result["data"]:
        # Not on standard output: a program that reads the lines wants none.
        click.echo("the queue is empty", err=True)


def _print_json(result: dict[str, Any]) -> None:
    # ASCII: JSON leaves DEL and the C1 controls as they are, and a terminal may act on them.
    click.echo(json.dumps(result).replace("\x7f", "\\u007f"))


async def _all_rows(client: Client, thread: str) -> dict[str, Any]:
    """All pages as one result.

    The cursor counts rows, so a head that becomes a turn meanwhile makes the next page skip one: then the
    first page is another, and the list is read again.
    """
    rows: list[Any] = []
    for _ in range(ATTEMPTS):
        params: dict[str, Any] = {"threadId": thread, "limit": PAGE}
        page = await client.call("thread/queue/list", params)
        head, rows = page["data"], list(page["data"])
        if page["nextCursor"] is None:
            break
        while (cursor := page["nextCursor"]) is not None:
            page = await client.call("thread/queue/list", {**params, "cursor": cursor})
            rows += page["data"]
        again = await client.call("thread/queue/list", params)
        if [row["id"] for row in again["data"]] == [row["id"] for row in head]:
            break
    return {"data": rows, "nextCursor": None}


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise click.ClickException("standard input is no UTF-8 text") from None


def _check_text(*arguments: str) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError("an argument is no UTF-8 text") from None


def _ask(context: click.Context, home: str | None, thread: str, question: Question) -> dict[str, Any]:
    """The answer of the home's daemon.

    Raises:
        click.ClickException: there is none; its text says what to do.
    """
    import trio
    from trio_websocket import HandshakeError

    from persistence.home import Home, resolve_home
    from spoold.client import ConnectionLost, RpcFailed

    place = Home(resolve_home(home if home is not None else context.obj.home, os.environ))
    daemon = f"the daemon of home {place.root}"
    try:
        return trio.run(_converse, place.control_socket, question)
    except BaseException as raised:
        error = _sole(raised)
        match error:
            case RpcFailed():
                said = _refusal(error, thread)
            case FileNotFoundError() | NotADirectoryError() | ConnectionRefusedError():
                said = (
                    f"no daemon runs on home {place.root}; start one with `spoold serve`, "
                    "or name another home with --home"
                )
            case trio.TooSlowError():
                said = f"{daemon} did not answer within {ANSWER_TIMEOUT:.0f} s; try again"
            case ConnectionLost() | HandshakeError():
                said = f"{daemon} ended the connection; try again"
            case OSError():
                said = f"{daemon} cannot be reached on {place.control_socket}: {error.strerror or error}"
            case _:
                raise error from None
    raise click.ClickException(visible(said))


async def _converse(socket: Path, question: Question) -> dict[str, Any]:
    import trio

    from spoold.client import connect_websocket

    with trio.fail_after(ANSWER_TIMEOUT):
        async with connect_websocket(f"unix://{socket}") as client:
            await client.initialize("spoold-queue")
            return await question(client)


def _sole(error: BaseException) -> BaseException:
    """What is in the groups of the nurseries between, if it is alone there."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _refusal(error: RpcFailed, thread: str) -> str:
    said = error.message
    if "thread not found" in said or "invalid thread id" in said:
        return f"{said}; THREAD has to be the id of a thread in the home of this daemon (--home)"
    if "reorder must include" in said:
        return f"{said}; `spoold queue list {thread}` shows the rows"
    if isinstance(error.data, dict) and "turnId" in error.data:
        return f"{said}: {error.data['turnId']}; --when-busy enqueue lets the message wait for its end"
    return said
