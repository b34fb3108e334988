"""From the ``--ws-*`` options to the authenticator of the TCP listeners."""

from __future__ import annotations

from pathlib import Path

from protocol.runtime import Runtime
from spoold.options import OptionError, StartError, WebSocketAuthOptions
from transport.auth import AuthError, CapabilityToken, SignedBearerToken


def authenticator_from(
    options: WebSocketAuthOptions, runtime: Runtime
) -> CapabilityToken | SignedBearerToken | None:
    """The authenticator that the options ask for; None where they ask for none.

    Raises:
        OptionError: an option is missing, or two exclude each other.
        StartError: a secret cannot be read or is too weak.
    """
    try:
        match options.mode:
            case None:
                return None
            case "capability-token":
                return _capability(options)
            case "signed-bearer-token":
                if options.shared_secret_file is None:
                    raise OptionError("--ws-auth signed-bearer-token needs --ws-shared-secret-file")
                return SignedBearerToken.from_file(
                    Path(options.shared_secret_file),
                    runtime,
                    issuer=options.issuer,
                    audience=options.audience,
                    **_skew(options),
                )
            case other:
                raise OptionError(f"--ws-auth: unknown mode `{other}`")
    except AuthError as error:
        raise StartError(str(error)) from None


def _capability(options: WebSocketAuthOptions) -> CapabilityToken:
    if options.token_file is not None and options.token_sha256 is not None:
        raise OptionError("--ws-token-file cannot be combined with --ws-token-sha256")
    if options.token_file is not None:
        return CapabilityToken.from_file(Path(options.token_file))
    if options.token_sha256 is not None:
        return CapabilityToken.from_sha256(options.token_sha256)
    raise OptionError("--ws-auth capability-token needs --ws-token-file or --ws-token-sha256")


def _skew(options: WebSocketAuthOptions) -> dict[str, int]:
    skew = options.max_clock_skew_seconds
    return {} if skew is None else {"max_clock_skew": skew}
