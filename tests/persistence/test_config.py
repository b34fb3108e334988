"""Settings: where they come from, what they may hold, what is refused and how that reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persistence.config import DEFAULT_MODEL, Config, ConfigError
from persistence.home import Home
from protocol.settings import DangerFullAccess, GranularPolicy, ReadOnly, WorkspaceWrite


def load(folder: Path, text: str = "", *overrides: str) -> Config:
    (folder / "config.toml").write_text(text)
    return Config.load(Home(folder), overrides)


def test_without_a_file_every_setting_has_its_default(tmp_path: Path) -> None:
    config = Config.load(Home(tmp_path))
    assert (config.model, config.model_provider) == (DEFAULT_MODEL, "openai")
    assert (config.approval_policy, config.sandbox_policy()) == ("on-request", ReadOnly())
    assert config.thread_unload_delay_secs == 1800
    assert config.base_instructions is None
    assert config.limits.requests_in_flight == 256
    assert config.warnings == []


def test_the_offline_provider_needs_no_settings_and_brings_its_model(tmp_path: Path) -> None:
    config = load(tmp_path, 'model_provider = "offline"')
    assert config.model == "offline"
    assert config.provider("offline") == {}


def test_flags_win_over_the_file_and_a_thread_wins_over_flags(tmp_path: Path) -> None:
    config = load(tmp_path, 'model = "file"\nmodel_reasoning_effort = "low"', 'model="flag"')
    assert config.model == "flag"
    assert config.model_reasoning_effort == "low"
    threads_own = config.with_overrides({"model": "thread"})
    assert (threads_own.model, config.model) == ("thread", "flag")


@pytest.mark.parametrize(
    ("flag", "key", "expected"),
    [
        ("model=o3", "model", "o3"),
        ('model="o3"', "model", "o3"),
        ("model='o3", "model", "o3"),
        ("model=a=b", "model", "a=b"),
        ("thread_unload_delay_secs=5", "thread_unload_delay_secs", 5),
        ("sandbox_workspace_write.network_access=true", "sandbox_workspace_write.network_access", True),
        ('sandbox_workspace_write.writable_roots=["/a"]', "sandbox_workspace_write.writable_roots", ["/a"]),
        ("sandbox_workspace_write={network_access=true}", "sandbox_workspace_write.network_access", True),
        ("model=1\nmodel_provider=2", "model", "1\nmodel_provider=2"),
    ],
)
def test_a_flag_is_a_dotted_key_and_a_TOML_value_or_plain_text(
    tmp_path: Path, flag: str, key: str, expected: Any
) -> None:
    assert load(tmp_path, "", flag).get(key) == expected


def test_a_quoted_name_in_a_flag_keeps_its_dots(tmp_path: Path) -> None:
    config = load(tmp_path, "", 'model_providers."my.own".base_url="http://h/v1"')
    assert config.provider("my.own")["base_url"] == "http://h/v1"


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("model", "Invalid override (missing '='): model"),
        ("=x", "Empty key in override: =x"),
        ("a..b=1", "Empty key in override: a..b"),
        ('"a=1', 'Invalid key in override: "a'),
        ("x" + ".x" * 5000 + "=1", "nested too deeply"),
    ],
)
def test_a_malformed_flag_is_refused_in_one_line(tmp_path: Path, flag: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "", flag)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('sandbox_mode = "zz"', "unknown variant `zz`, expected one of `read-only`, `workspace-write`, "
         "`danger-full-access`\nin `sandbox_mode`\n"),
        ("model = 5", "invalid type: integer `5`, expected a string\nin `model`\n"),
        ('model = ""', "value must not be empty\nin `model`\n"),
        ("[model]\nx = 1", "invalid type: map, expected a string\nin `model`\n"),
        ('model_context_window = "zz"',
         'invalid type: string "zz", expected i64\nin `model_context_window`\n'),
        ("model_context_window = true",
         "invalid type: boolean `true`, expected i64\nin `model_context_window`\n"),
        ("thread_unload_delay_secs = -1", "invalid value: integer `-1`, expected 0 or more seconds\n"
         "in `thread_unload_delay_secs`\n"),
        ("thread_unload_delay_secs = nan", "invalid value: floating point `nan`, expected 0 or more seconds\n"
         "in `thread_unload_delay_secs`\n"),
        ("[sandbox_workspace_write]\nnetwork_access = 5",
         "invalid type: integer `5`, expected a boolean\nin `sandbox_workspace_write.network_access`\n"),
        ("sandbox_workspace_write = 1",
         "invalid type: integer `1`, expected a map\nin `sandbox_workspace_write`\n"),
        ("[sandbox_workspace_write]\nwritable_roots = [1]",
         "invalid type: integer `1`, expected a string\nin `sandbox_workspace_write.writable_roots`\n"),
        ("approval_policy = { granular = { rules = true } }",
         "missing field `granular.sandbox_approval`\nin `approval_policy`\n"),
        ('approval_policy = "sometimes"', "unknown variant `sometimes`, expected one of `untrusted`, "
         "`on-failure`, `on-request`, `never`\nin `approval_policy`\n"),
        ("[model_providers.x]\nwire_api = 'soap'",
         "unknown variant `soap`, expected one of `responses`, `chat`\nin `model_providers.x.wire_api`\n"),
        ("[model_providers.x.http_headers]\nA = 1",
         "invalid type: integer `1`, expected a string\nin `model_providers.x.http_headers`\n"),
        ("[spoold]\nmailbox_length = 0",
         "invalid value: integer `0`, expected 1 to 1000000\nin `spoold.mailbox_length`\n"),
        ('model_provider = "nope"', "Model provider `nope` not found"),
        ("[model_providers.offline]\nname = 'x'",
         "the name of a built-in provider\nin `model_providers.offline`\n"),
        ("model_provider = 'x'\n[model_providers.x]\nname = 'x'",
         "missing field `base_url`\nin `model_providers.x`\n"),
    ],
)  # fmt: skip
def test_a_bad_value_names_the_reason_and_the_key(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'config.toml'}: {expected}"
    assert "\n" not in caught.value.line


def test_a_bad_value_in_the_file_is_reported_with_the_file_and_one_from_a_flag_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "model = 5")
    file = tmp_path / "config.toml"
    assert caught.value.line == f"{file}: invalid type: integer `5`, expected a string in `model`"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, 'model = "x"', "model=5")
    assert caught.value.line == "invalid type: integer `5`, expected a string in `model`"


@pytest.mark.parametrize(
    ("content", "position"),
    [
        (b'model = "x', "end of file: Unterminated string"),
        (b"a = 1\n= 2\n", "line 2, column 1"),
        (b"a = 1\nb = '\xff'\n", "line 2: invalid UTF-8"),
        (b"a = " + b"[" * 10_000, "nested too deeply"),
        (b"a" + b".a" * 5_000 + b" = 1", "nested too deeply"),
    ],
)
def test_a_file_that_is_no_TOML_is_refused_in_one_line_with_the_place(
    tmp_path: Path, content: bytes, position: str
) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Config.load(Home(tmp_path))
    assert position in caught.value.line
    assert str(tmp_path / "config.toml") in caught.value.line
    assert "\n" not in caught.value.line


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Config.load(Home(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"sandbox_mode": 5}, "invalid type: integer `5`, expected a string\nin `sandbox_mode`\n"),
        ({"model_provider": "nope"}, "Model provider `nope` not found"),
    ],
)
def test_a_thread_is_told_the_reason_without_the_servers_file(
    tmp_path: Path, overrides: dict[str, Any], expected: str
) -> None:
    config = load(tmp_path, 'sandbox_mode = "read-only"\nmodel_provider = "openai"')
    with pytest.raises(ConfigError) as caught:
        config.with_overrides(overrides)
    assert str(caught.value) == expected
    with pytest.raises(ConfigError) as caught:
        config.provider("nope")
    assert str(caught.value) == "Model provider `nope` not found"


def test_a_refused_thread_override_leaves_the_daemons_settings_alone(tmp_path: Path) -> None:
    config = load(tmp_path, 'model = "m"')
    for bad in ({"sandbox_mode": "zz"}, {"model_provider": "nope"}, {"a": _nested(100_000)}, {"": 1}):
        with pytest.raises(ConfigError):
            config.with_overrides(bad)
    assert config.model == "m"


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_thread_overrides_may_be_dotted_or_nested_and_null_means_not_set(tmp_path: Path) -> None:
    config = load(tmp_path, 'sandbox_mode = "workspace-write"')
    dotted = config.with_overrides({"sandbox_workspace_write.network_access": True})
    nested = config.with_overrides({"sandbox_workspace_write": {"network_access": True}, "model": None})
    assert dotted.sandbox_policy() == nested.sandbox_policy() == WorkspaceWrite(network_access=True)
    assert config.with_overrides({}) is config
    assert config.with_overrides(None) is config


def test_the_sandbox_policy_carries_the_settings_of_its_table_in_every_mode(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[sandbox_workspace_write]\nwritable_roots = ["/a"]\nexclude_slash_tmp = true\n'
        "exclude_tmpdir_env_var = true",
    )
    assert config.sandbox_policy() == ReadOnly()
    assert config.sandbox_policy("danger-full-access") == DangerFullAccess()
    assert config.sandbox_policy("workspace-write") == WorkspaceWrite(
        writable_roots=["/a"], exclude_slash_tmp=True, exclude_tmpdir_env_var=True
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("untrusted", "untrusted"),
        ("on-failure", "on-request"),
        ("on-request", "on-request"),
        ("never", "never"),
    ],
)
def test_every_approval_policy_of_older_files_is_accepted(tmp_path: Path, written: str, meant: str) -> None:
    assert load(tmp_path, f'approval_policy = "{written}"').approval_policy == meant


def test_a_granular_policy_becomes_the_protocols_own(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "[approval_policy.granular]\nsandbox_approval = true\nrules = false\nmcp_elicitations = true",
    )
    policy = config.approval_policy
    assert isinstance(policy, GranularPolicy)
    assert (policy.granular.sandbox_approval, policy.granular.rules) == (True, False)


def test_a_file_may_add_providers_and_adjust_the_built_in_ones(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        'openai_base_url = "http://proxy/v1"\n[model_providers.local]\nbase_url = "http://h/v1"\n'
        'wire_api = "chat"\n[model_providers.openai]\nstream_max_retries = 2',
    )
    assert config.provider("local") == {"base_url": "http://h/v1", "wire_api": "chat"}
    assert config.provider("openai") == {"base_url": "http://proxy/v1", "stream_max_retries": 2}
    with pytest.raises(ConfigError, match=r"^Model provider `nope` not found$"):
        config.provider("nope")


def test_base_instructions_come_from_a_file_beside_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "base.md").write_text("Be brief.\n")
    config = load(tmp_path, 'instructions = "other"\nmodel_instructions_file = "base.md"')
    assert config.base_instructions == "Be brief."
    assert load(tmp_path, 'instructions = "other"').base_instructions == "other"


def test_an_instructions_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path, 'model_instructions_file = "missing.md"')
    (tmp_path / "empty.md").write_text(" \n")
    with pytest.raises(ConfigError, match="is empty"):
        load(tmp_path, 'model_instructions_file = "empty.md"')


def test_unknown_keys_are_accepted_with_one_warning_each(tmp_path: Path) -> None:
    config = load(
        tmp_path, "foo = 1\n[spoold]\nbar = 2\n[model_providers.x]\nbaz = 3\n[features]\napps = true"
    )
    assert config.unread == ("foo", "spoold.bar", "model_providers.x.baz")
    assert config.warnings[0] == "Ignoring the unknown configuration key `foo`."
    assert config.with_overrides({"features.goals": False}).unread == config.unread
