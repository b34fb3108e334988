from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.transport.fakes import FakeRuntime
from transport.auth import AuthError, CapabilityToken, SignedBearerToken

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_700_000_000


def signer(**options: Any) -> SignedBearerToken:
    return SignedBearerToken(SECRET, FakeRuntime(NOW * 1000), **options)


def header(claims: dict[str, Any], secret: bytes = SECRET, algorithm: str = "HS256") -> list[str]:
    return [f"Bearer {jwt.encode(claims, secret, algorithm)}"]


def test_a_token_may_be_given_as_its_digest() -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    auth = CapabilityToken.from_sha256(digest.upper())
    assert auth.refusal(["Bearer secret"]) is None
    assert auth.refusal(["bearer   secret  "]) is None
    assert auth.refusal(["Bearer secret2"]) == "invalid websocket bearer token"
    assert auth.refusal([]) == "missing websocket bearer token"
    assert auth.refusal(["secret"]) == "invalid authorization header"
    assert auth.refusal(["Bearer secret", "Bearer secret"]) == "invalid authorization header"


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, "a" * 63])
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    with pytest.raises(AuthError, match="64 hexadecimal digits"):
        CapabilityToken.from_sha256(digest)


def test_secret_files_must_be_absolute_readable_and_long_enough(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="must be an absolute path"):
        CapabilityToken.from_file(Path("token"))
    with pytest.raises(AuthError, match="No such file"):
        CapabilityToken.from_file(tmp_path / "missing")
    (tmp_path / "short").write_text(" \n")
    with pytest.raises(AuthError, match="is empty"):
        CapabilityToken.from_file(tmp_path / "short")
    (tmp_path / "short").write_bytes(SECRET[:31] + b"\n")
    with pytest.raises(AuthError, match="at least 32 bytes"):
        SignedBearerToken.from_file(tmp_path / "short", FakeRuntime())
    (tmp_path / "long").write_bytes(SECRET + b"\n")
    assert SignedBearerToken.from_file(tmp_path / "long", FakeRuntime()).secret == SECRET


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"exp": NOW + 10}, None),
        ({"exp": NOW - 29}, None),
        ({"exp": NOW - 31}, "expired websocket jwt"),
        ({}, "invalid websocket jwt"),
        ({"exp": "soon"}, "invalid websocket jwt"),
        ({"exp": True}, "invalid websocket jwt"),
        ({"exp": NOW + 10, "nbf": NOW + 29}, None),
        ({"exp": NOW + 100, "nbf": NOW + 31}, "websocket jwt is not valid yet"),
        ({"exp": NOW + 100, "iat": NOW + 50}, None),
    ],
)
def test_the_times_of_a_jwt_are_compared_with_our_clock_and_some_skew(
    claims: dict[str, Any], refusal: str | None
) -> None:
    assert signer().refusal(header(claims)) == refusal


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"iss": "me", "aud": "spool"}, None),
        ({"iss": "me", "aud": ["other", "spool"]}, None),
        ({"iss": "you", "aud": "spool"}, "websocket jwt issuer mismatch"),
        ({"aud": "spool"}, "websocket jwt issuer mismatch"),
        ({"iss": "me", "aud": ["other"]}, "websocket jwt audience mismatch"),
        ({"iss": "me"}, "websocket jwt audience mismatch"),
    ],
)
def test_issuer_and_audience_of_a_jwt_are_checked(claims: dict[str, Any], refusal: str | None) -> None:
    auth = signer(issuer="me", audience="spool")
    assert auth.refusal(header({"exp": NOW + 10, **claims})) == refusal


def test_other_signatures_are_refused() -> None:
    claims = {"exp": NOW + 10}
    assert signer().refusal(header(claims, secret=SECRET[::-1])) == "invalid websocket jwt"
    assert signer().refusal(["Bearer nonsense"]) == "invalid websocket jwt"
    assert signer().refusal(["Bearer " + "a." * 5000]) == "invalid websocket jwt"
    unsigned = jwt.encode(claims, "", algorithm="none")
    assert signer().refusal([f"Bearer {unsigned}"]) == "invalid websocket jwt"
    longer = header(claims, secret=SECRET * 2, algorithm="HS512")
    assert signer().refusal(longer) == "invalid websocket jwt"
