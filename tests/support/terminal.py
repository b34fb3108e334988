"""A program in a terminal that nobody looks at: tmux holds it, a test types and reads the screen.

    async with open_terminal([str(program)], environment, folder) as terminal:
        await terminal.shows("ready")
        await terminal.type("hello")
        await terminal.press("Enter")

Screens are compared as text with all runs of blanks made one, so that it does not matter where a line wraps
or how wide a column is. What a terminal shows is announced by nobody, so waiting is looking again and again,
for ``PATIENCE`` seconds at most; a failure shows the last screen. Each terminal has a tmux server of its own
on a socket of its own, which is killed at the end together with what runs in it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

PATIENCE = 20.0
"""Seconds until something that does not show is a failure; far above what any takes."""
_LOOK_EVERY = 0.03
_PRESS_AGAIN = 1.5
_COLUMNS, _ROWS = 160, 50


class Terminal:
    """One terminal with one program in it."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def type(self, text: str) -> None:
        """Type into the program and wait until it shows the text; then a key such as Enter is safe."""
        await self._tmux("send-keys", "-l", "--", text)
        await self.shows(text)

    async def press(self, *keys: str) -> None:
        """Press keys, named as tmux names them: Enter, Escape, Down, C-a, y."""
        await self._tmux("send-keys", *keys)

    async def answer(self, key: str, question: str) -> None:
        """Press a key until what it answers shows no more.

        A program may overlook what comes just when it asks, lest somebody answers who was typing something
        else; so one key press may not do.

        Args:
            key: see ``press``.
            question: a text that only this question has.
        """
        with trio.move_on_after(PATIENCE):
            while True:
                await self.press(key)
                with trio.move_on_after(_PRESS_AGAIN):
                    await self.hides(question)
                    return
        raise AssertionError(f"{key} did not answer {question!r}; it shows:\n{await self.picture()}")

    async def enter(self, text: str) -> None:
        """Type a line and press Enter."""
        await self.type(text)
        await self.press("Enter")

    async def screen(self) -> str:
        """What is on it now, with what has scrolled out above, in one line."""
        return " ".join((await self.picture()).split())

    async def picture(self) -> str:
        """The same as it looks."""
        shown = await self._tmux("capture-pane", "-p", "-J", "-S", "-200")
        return shown.decode("utf-8", "replace")

    async def shows(self, *texts: str) -> str:
        """Wait until the screen has all of the texts; the screen.

        Raises:
            AssertionError: it did not come to that.
        """
        return await self._until(f"it never showed {texts}", lambda screen: all(t in screen for t in texts))

    async def hides(self, *texts: str) -> str:
        """Wait until the screen has none of the texts; the screen.

        Raises:
            AssertionError: it did not come to that.
        """
        return await self._until(
            f"it never stopped showing {texts}", lambda screen: not any(t in screen for t in texts)
        )

    async def ended(self) -> int:
        """Wait until the program has ended; its exit code."""
        with trio.move_on_after(PATIENCE):
            while True:
                state = await self._tmux("display-message", "-p", "#{pane_dead} #{pane_dead_status}")
                dead, _, code = state.decode().strip().partition(" ")
                if dead == "1":
                    return int(code)
                await trio.sleep(_LOOK_EVERY)
        raise AssertionError(f"it did not end; it shows:\n{await self.picture()}")

    async def _until(self, complaint: str, condition: Callable[[str], bool]) -> str:
        with trio.move_on_after(PATIENCE):
            while not condition(screen := await self.screen()):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(_LOOK_EVERY)
            return screen
        raise AssertionError(f"{complaint}; it shows:\n{await self.picture()}")

    async def _tmux(self, *arguments: str) -> bytes:
        command = ["tmux", "-S", str(self._socket), *arguments]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        assert done.returncode == 0, f"{command} failed: {done.stderr.decode()}"
        return done.stdout


def has_tmux() -> bool:
    """Whether there is a tmux to run terminals in."""
    return shutil.which("tmux") is not None


@asynccontextmanager
async def open_terminal(
    command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> AsyncGenerator[Terminal, None]:
    """Run a command in a terminal until the context is left; then it is killed, if it has not ended.

    Args:
        command: the program and its arguments.
        environment: all of it; TERM is added.
        folder: its working directory.
    """
    # The path of a socket must be short; folders of tests are not.
    with tempfile.TemporaryDirectory(prefix="spoold-tmux-") as place:
        terminal = Terminal(Path(place) / "tmux")
        variables = [f"{name}={value}" for name, value in {**environment, "TERM": "xterm-256color"}.items()]
        size = ["-x", str(_COLUMNS), "-y", str(_ROWS), "-c", str(folder)]
        try:
            # One call, so that a program that ends at once leaves its last screen.
            await terminal._tmux(
                *("-f", "/dev/null", "start-server", ";", "set-option", "-g", "remain-on-exit", "on", ";"),
                *("new-session", "-d", *size, "env", "-i", *variables, *command),
            )
            yield terminal
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE):
                await trio.run_process(
                    ["tmux", "-S", str(terminal._socket), "kill-server"],
                    check=False,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
