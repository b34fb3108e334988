"""The command line: ``spoold serve``, ``spoold app-server``, ``spoold queue``, ``spoold schema``.

``app-server`` takes the flags of the program whose protocol spoold speaks, so that a client which starts
its server by itself can start spoold instead. Flags for what spoold does not offer are accepted with a
warning when leaving them out is harmless.

Start-up time is a feature: this module imports click and nothing of the daemon; a command imports what it
runs. Whatever goes wrong before the daemon listens is one line on stderr, and the exit code says whose
fault it was: 2 for the command line, 1 for the machine (a port, a file, a folder).
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from spoold.version import __version__

if TYPE_CHECKING:
    from spoold.options import DaemonOptions

EXIT_START = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_Command = TypeVar("_Command", bound=Callable[..., Any])

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# Flags of the reference that select something spoold has not: leaving them out changes no conversation.
_IGNORED_SWITCHES = ("--analytics-default-enabled", "--startup-sign-out")
_IGNORED_VALUES = ("--session-source", "--startup-client-info", "--cloud-skills-snapshot", "--code-mode-host")


def _settings(command: _Command) -> _Command:
    """The options that set configuration values; they also stand before the subcommand."""
    for option in (
        click.option(
            "-c",
            "--config",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set a configuration value for this run: a dotted key and a TOML value.",
        ),
        click.option("--enable", multiple=True, metavar="FEATURE", help="Same as -c features.FEATURE=true."),
        click.option(
            "--disable", multiple=True, metavar="FEATURE", help="Same as -c features.FEATURE=false."
        ),
        click.option("--home", metavar="DIR", help="Home folder [SPOOLD_HOME, CODEX_HOME, ~/.spoold]."),
    ):
        command = option(command)
    return command


def _listening(command: _Command) -> _Command:
    """The options of a command that runs the daemon."""
    for option in (
        click.option(
            "--listen",
            "listens",
            multiple=True,
            metavar="URL",
            help="stdio:// (default), ws://IP:PORT, unix://, unix://PATH or off. May be repeated.",
        ),
        click.option("--stdio", is_flag=True, help="Same as --listen stdio://."),
        click.option("--strict-config", is_flag=True, help="Refuse configuration keys that are not known."),
        click.option(
            "--ws-auth",
            type=click.Choice(["capability-token", "signed-bearer-token"]),
            help="How websocket clients prove who they are.",
        ),
        click.option("--ws-token-file", metavar="PATH", help="File with the capability token (absolute)."),
        click.option("--ws-token-sha256", metavar="HEX", help="SHA-256 of the capability token."),
        click.option(
            "--ws-shared-secret-file", metavar="PATH", help="File with the secret of signed tokens."
        ),
        click.option("--ws-issuer", metavar="ISSUER", help="Issuer a signed token must name."),
        click.option("--ws-audience", metavar="AUDIENCE", help="Audience a signed token must name."),
        click.option(
            "--ws-max-clock-skew-seconds",
            type=click.IntRange(0),
            metavar="SECONDS",
            help="Clock difference allowed in signed tokens.",
        ),
    ):
        command = option(command)
    return command


def _ignored(command: _Command) -> _Command:
    """Hidden options that are accepted and only warned about."""
    for name in _IGNORED_SWITCHES:
        command = click.option(name, is_flag=True, hidden=True)(command)
    for name in _IGNORED_VALUES:
        command = click.option(name, hidden=True)(command)
    return command


class _Commands(click.Group):
    """The commands; one that only talks to a daemon is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted((*super().list_commands(ctx), "queue"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "queue":
            return super().get_command(ctx, cmd_name)
        from spoold.queue_command import queue

        return queue


@click.group(cls=_Commands, context_settings=_CONTEXT, invoke_without_command=True)
@click.version_option(__version__, message="spoold %(version)s")
@_settings
@click.pass_context
def spoold(context: click.Context, /, **options: Any) -> None:
    """A daemon that holds agent conversations for many clients at once."""
    context.obj = _Settings().over(options)
    if context.invoked_subcommand is None:
        raise click.UsageError("no command; try `spoold serve`, or `spoold --help`")


@spoold.command(context_settings=_CONTEXT)
@_settings
@_listening
@click.pass_obj
def serve(settings: _Settings, /, **options: Any) -> int:
    """Run the daemon."""
    return _run(settings.over(options), options)


@spoold.group("app-server", context_settings=_CONTEXT, invoke_without_command=True)
@_settings
@_listening
@_ignored
@click.pass_context
def app_server(context: click.Context, /, **options: Any) -> int:
    """Run the daemon, started as its clients start the Codex app-server."""
    settings: _Settings = context.obj.over(options)
    context.obj = settings
    if context.invoked_subcommand is not None:
        return 0
    for name in (*_IGNORED_SWITCHES, *_IGNORED_VALUES):
        if options[name.lstrip("-").replace("-", "_")]:
            click.echo(f"Warning: {name} is ignored: spoold does not offer it", err=True)
    return _run(settings, options)


@app_server.command("generate-json-schema", context_settings=_CONTEXT)
@_settings
@click.option("-o", "--out", required=True, metavar="DIR", help="Folder to write into; made when missing.")
@click.option("--experimental", is_flag=True, help="Include experimental methods and fields.")
def generate_json_schema(out: str, *, experimental: bool, **_settings_without_effect: Any) -> None:
    """Write the JSON Schema of the protocol."""
    _write_schema(Path(out), experimental=experimental)


@spoold.command(context_settings=_CONTEXT)
@click.option("-o", "--out", required=True, metavar="DIR", help="Folder to write into; made when missing.")
@click.option("--experimental/--stable", default=True, help="With or without what is experimental.")
def schema(out: str, *, experimental: bool) -> None:
    """Write the JSON Schema of the protocol."""
    _write_schema(Path(out), experimental=experimental)


class _Settings:
    """What ``-c``, ``--enable``, ``--disable`` and ``--home`` say; a subcommand's stand over the group's."""

    def __init__(self, overrides: tuple[str, ...] = (), home: str | None = None) -> None:
        self.overrides = overrides
        self.home = home

    def over(self, options: dict[str, Any]) -> _Settings:
        """These settings with a command's own options over them."""
        features: Iterable[str] = (
            *(f"features.{name}=true" for name in options["enable"]),
            *(f"features.{name}=false" for name in options["disable"]),
        )
        return _Settings(
            (*self.overrides, *options["overrides"], *features),
            options["home"] if options["home"] is not None else self.home,
        )


def _run(settings: _Settings, options: dict[str, Any]) -> int:
    """Run the daemon until it ends; its exit code."""
    details = [name for name, value in options.items() if name.startswith("ws_") and value is not None]
    if details and options["ws_auth"] is None:
        # Otherwise the listener would be open to everyone, against what was asked for.
        name = details[0].replace("_", "-")
        raise click.UsageError(f"--{name} needs --ws-auth capability-token or --ws-auth signed-bearer-token")

    # What is imported now stays; the collector would look through it again and again. See spoold.reception.
    gc.disable()
    from persistence.home import resolve_home
    from spoold.logs import log_to_stderr
    from spoold.options import DaemonOptions, WebSocketAuthOptions

    log_to_stderr(os.environ)
    listens: tuple[str, ...] = options["listens"]
    if options["stdio"] and "stdio://" not in listens:
        listens = ("stdio://", *listens)
    daemon = DaemonOptions(
        home=resolve_home(settings.home, os.environ),
        overrides=settings.overrides,
        # A URL given twice is one listener: dict keeps the order and drops the repetition.
        listens=tuple(dict.fromkeys(listens)) or ("stdio://",),
        ws_auth=WebSocketAuthOptions(
            mode=options["ws_auth"],
            token_file=options["ws_token_file"],
            token_sha256=options["ws_token_sha256"],
            shared_secret_file=options["ws_shared_secret_file"],
            issuer=options["ws_issuer"],
            audience=options["ws_audience"],
            max_clock_skew_seconds=options["ws_max_clock_skew_seconds"],
        ),
    )
    if options["strict_config"]:
        _refuse_unknown_keys(daemon)

    from spoold.ownership import run_on_home

    return run_on_home(daemon)


def _refuse_unknown_keys(options: DaemonOptions) -> None:
    from persistence.config import Config, ConfigError
    from persistence.home import Home

    config = Config.load(Home.open(options.home), options.overrides)
    if config.unread:
        raise ConfigError("unknown configuration key", key=config.unread[0])


def _write_schema(folder: Path, *, experimental: bool) -> None:
    from protocol.schema import write_bundle
    from spoold.options import StartError
    from transport.methods import METHODS

    try:
        written = write_bundle(folder, METHODS.values(), experimental=experimental)
    except OSError as error:
        raise StartError(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    click.echo(str(written))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line. Every expected failure is one line on stderr and an exit code."""
    try:
        result = spoold.main(args=list(arguments), prog_name="spoold", standalone_mode=False)
    except click.UsageError as error:
        return _fail(error.format_message(), EXIT_USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), EXIT_START)
    except click.Abort:
        return EXIT_INTERRUPTED
    except Exception as error:
        line, code = _expected(error)
        if line is None:
            raise
        return _fail(line, code)
    return result if isinstance(result, int) else 0


def _expected(error: Exception) -> tuple[str | None, int]:
    """The line and the exit code of a failure that is not a bug; the line is None for a bug."""
    from persistence.config_layers import ConfigError
    from persistence.home import HomeError
    from spoold.options import OptionError, StartError

    # What is raised inside a nursery arrives in a group.
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    match error:
        case OptionError():
            return str(error), EXIT_USAGE
        case StartError() | HomeError():
            return str(error), EXIT_START
        case ConfigError():
            return error.line, EXIT_START
    if _is_refusal_of_transport(error):
        return str(error), EXIT_START
    return None, EXIT_START


def _is_refusal_of_transport(error: Exception) -> bool:
    # Its own step: these imports cost more than printing one of the errors above.
    from transport.auth import AuthError
    from transport.listen import ListenError

    return isinstance(error, AuthError | ListenError)


def _fail(message: str, code: int) -> int:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    return code
