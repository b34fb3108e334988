"""Who may open a websocket over TCP: bearer tokens.

Two schemes, both named by ``--ws-auth``: one secret token (``capability-token``), or tokens that somebody
else signs with a shared secret (``signed-bearer-token``, JWT with HS256). A refusal is one line of text:
the body of the 401.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from protocol.late_imports import one_import_at_a_time
from protocol.runtime import Runtime

MIN_SECRET_BYTES = 32
"""HS256 with a shorter secret can be guessed; such a secret is refused."""

MISSING = "missing websocket bearer token"
INVALID_TOKEN = "invalid websocket bearer token"  # noqa: S105 - a message, not a password
INVALID_HEADER = "invalid authorization header"
INVALID_JWT = "invalid websocket jwt"


class AuthError(Exception):
    """The authentication is not set up right. The text is one line for the user."""


def bearer_token(authorization: list[str]) -> tuple[str, str | None]:
    """The token in the ``Authorization`` headers, and what is wrong with them instead."""
    if not authorization:
        return "", MISSING
    scheme, _, token = authorization[0].strip().partition(" ")
    token = token.strip()
    if len(authorization) > 1 or scheme.lower() != "bearer" or not token:
        return "", INVALID_HEADER
    return token, None


@dataclass(frozen=True, slots=True)
class CapabilityToken:
    """Whoever knows the token may come in. Only its digest is kept.

    Attributes:
        sha256: SHA-256 of the token, 32 bytes.
    """

    sha256: bytes

    @classmethod
    def from_file(cls, path: Path) -> CapabilityToken:
        """Read the token from a file; white space around it does not count.

        Raises:
            AuthError: the path is relative, or the file is unreadable or empty.
        """
        token = _read_secret(path, "--ws-token-file").strip()
        if not token:
            raise AuthError(f"--ws-token-file {path} is empty")
        return cls(hashlib.sha256(token).digest())

    @classmethod
    def from_sha256(cls, digest: str) -> CapabilityToken:
        """Take the token's digest, 64 hexadecimal digits.

        Raises:
            AuthError: it is something else.
        """
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest.strip()):
            raise AuthError("--ws-token-sha256 must be 64 hexadecimal digits")
        return cls(bytes.fromhex(digest.strip()))

    def refusal(self, authorization: list[str]) -> str | None:
        """See ``transport.http_front.Authenticator``."""
        token, wrong = bearer_token(authorization)
        if wrong is not None:
            return wrong
        given = hashlib.sha256(token.encode("latin-1")).digest()
        return None if hmac.compare_digest(given, self.sha256) else INVALID_TOKEN


@dataclass(frozen=True, slots=True)
class SignedBearerToken:
    """Whoever has a valid JWT may come in.

    Attributes:
        secret: the shared secret.
        runtime: the clock that ``exp`` and ``nbf`` are compared with.
        issuer: what ``iss`` must be, or None for anything.
        audience: what ``aud`` must be or contain, or None for anything.
        max_clock_skew: seconds by which the signer's clock may differ from ours.
    """

    secret: bytes
    runtime: Runtime
    issuer: str | None = None
    audience: str | None = None
    max_clock_skew: int = 30

    @classmethod
    def from_file(
        cls,
        path: Path,
        runtime: Runtime,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        max_clock_skew: int = 30,
    ) -> SignedBearerToken:
        """Read the shared secret from a file; white space around it does not count.

        Raises:
            AuthError: the path is relative, the file is unreadable, or the secret is too short.
        """
        secret = _read_secret(path, "--ws-shared-secret-file").strip()
        if len(secret) < MIN_SECRET_BYTES:
            raise AuthError(f"--ws-shared-secret-file {path} must hold at least {MIN_SECRET_BYTES} bytes")
        if max_clock_skew < 0:
            raise AuthError("--ws-max-clock-skew-seconds must not be negative")
        return cls(secret, runtime, issuer, audience, max_clock_skew)

    def refusal(self, authorization: list[str]) -> str | None:
        """See ``transport.http_front.Authenticator``."""
        with one_import_at_a_time:
            import jwt  # heavy: only for who uses it

        token, wrong = bearer_token(authorization)
        if wrong is not None:
            return wrong
        try:
            # The library checks the signature; the claims are compared with our own clock below.
            claims = jwt.decode(
                token,
                self.secret,
                algorithms=["HS256"],
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                    "verify_iss": False,
                    "verify_sub": False,
                    "verify_jti": False,
                },
            )
        except jwt.PyJWTError:
            return INVALID_JWT
        return self._wrong_claim(claims)

    def _wrong_claim(self, claims: dict[str, Any]) -> str | None:
        now = self.runtime.now_ms() / 1000
        expires, not_before = claims.get("exp"), claims.get("nbf")
        if not _is_time(expires) or not (not_before is None or _is_time(not_before)):
            return INVALID_JWT
        if now > expires + self.max_clock_skew:
            return "expired websocket jwt"
        if not_before is not None and now < not_before - self.max_clock_skew:
            return "websocket jwt is not valid yet"
        if self.issuer is not None and claims.get("iss") != self.issuer:
            return "websocket jwt issuer mismatch"
        if self.audience is not None:
            audience = claims.get("aud")
            if self.audience not in (audience if isinstance(audience, list) else [audience]):
                return "websocket jwt audience mismatch"
        return None


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_secret(path: Path, flag: str) -> bytes:
    if not path.is_absolute():
        raise AuthError(f"{flag} must be an absolute path, not {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuthError(f"cannot read {flag} {path}: {error.strerror}") from error
