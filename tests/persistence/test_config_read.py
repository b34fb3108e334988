"""What clients are shown of the configuration: every well-known key, its origin, and no secret."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from persistence.config import Config
from persistence.config_keys import KEYS
from persistence.home import Home

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"

SECRETS = """
[model_providers.mp]
base_url = "http://user:SECRET0@host/v1"
env_key = "SHOWN_VARIABLE"
experimental_bearer_token = "SECRET1"
http_headers = { Authorization = "Bearer SECRET2", "X-Api-Key" = "SECRET3", "X-Shown" = "shown" }
env_http_headers = { Authorization = "SHOWN_HEADER_VARIABLE" }
query_params = { key = "SECRET4", api-version = "shown-version" }
[mcp_servers.s]
command = "shown-command"
env = { ANYTHING = "SECRET5" }
[shell_environment_policy.set]
MY_PASSWORD = "SECRET6"
"""


def load(folder: Path, text: str = "", *overrides: str) -> Config:
    (folder / "config.toml").write_text(text)
    return Config.load(Home(folder), overrides)


def test_an_empty_configuration_still_shows_every_well_known_key(tmp_path: Path) -> None:
    shown = load(tmp_path).effective()
    for key in (
        "model",
        "model_provider",
        "approval_policy",
        "sandbox_mode",
        "tools",
        "profile",
        "web_search",
    ):
        assert key in shown
        assert shown[key] is None
    for key in ("model_providers", "profiles", "mcp_servers", "features"):
        assert shown[key] == {}


def test_what_is_set_is_shown_completed_and_unknown_tables_are_left_out(tmp_path: Path) -> None:
    shown = load(
        tmp_path,
        'approval_policy = "on-failure"\nfoo = 1\n[sandbox_workspace_write]\nnetwork_access = true\n'
        '[model_providers.mp]\nbase_url = "http://h/v1"',
        "tools.web_search=true",
    ).effective()
    assert shown["approval_policy"] == "on-request"
    assert "foo" not in shown
    assert shown["sandbox_workspace_write"] == {
        "writable_roots": [],
        "network_access": True,
        "exclude_tmpdir_env_var": False,
        "exclude_slash_tmp": False,
    }
    assert shown["model_providers"]["mp"]["wire_api"] == "responses"
    assert shown["model_providers"]["mp"]["env_key"] is None
    assert shown["tools"] == {"web_search": None}


def test_no_secret_is_shown_in_the_configuration_or_its_layers(tmp_path: Path) -> None:
    config = load(tmp_path, SECRETS, "model_providers.mp.http_headers.Cookie=SECRET7")
    shown = json.dumps([config.effective(), config.layer_list(), config.origins()])
    assert "SECRET" not in shown
    for visible in ("SHOWN_VARIABLE", "SHOWN_HEADER_VARIABLE", '"shown"', "shown-version", "shown-command"):
        assert visible in shown
    assert config.provider("mp")["experimental_bearer_token"] == "SECRET1"


def test_origins_name_the_layer_that_won_for_every_value(tmp_path: Path) -> None:
    config = load(tmp_path, 'model = "m"\nmodel_reasoning_effort = "low"\nnotify = ["a", "b"]', "model=flag")
    origins = config.origins()
    assert set(origins) == {"model", "model_reasoning_effort", "notify.0", "notify.1"}
    assert origins["model"]["name"] == {"type": "sessionFlags"}
    assert origins["notify.1"]["name"] == {
        "type": "user",
        "file": str(tmp_path / "config.toml"),
        "profile": None,
    }


def test_layers_are_listed_highest_first_with_a_fingerprint_of_their_content(tmp_path: Path) -> None:
    layers = load(tmp_path, "", "model=flag").layer_list()
    assert [layer["name"]["type"] for layer in layers] == ["sessionFlags", "user"]
    assert layers[0]["config"] == {"model": "flag"}
    assert layers[1]["version"] == "sha256:" + hashlib.sha256(b"{}").hexdigest()
    again: list[Any] = load(tmp_path, "", "model=other").layer_list()
    assert again[0]["version"] != layers[0]["version"]
    assert again[1]["version"] == layers[1]["version"]


def test_the_configuration_page_documents_every_key_that_is_read_and_no_other() -> None:
    documented = re.findall(r"^\| `([a-z][^`]*)` \|", DOCS.read_text(encoding="utf-8"), re.M)
    expected = [key.name.replace("*", "<id>") for key in KEYS]
    assert [key for key in documented if not key.startswith("-")] == expected
