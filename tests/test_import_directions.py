"""The architecture as a test: who may import whom, which libraries live where, how files are named."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "spoold": {"transport", "actors", "agent", "persistence", "protocol"},
    "transport": {"actors", "protocol"},
    "actors": {"agent", "persistence", "protocol"},
    "agent": {"protocol"},
    "persistence": {"protocol"},
    "protocol": set[str](),
}
"""An arrow only ever points down. Every room may import itself."""

LIBRARIES = {
    "spoold": {"click", "h11", "pydantic", "pydantic_core", "pytest", "rich", "structlog", "trio",
               "trio_websocket", "uuid_utils", "wsproto"},
    "transport": {"h11", "jwt", "pydantic", "pydantic_core", "trio", "trio_websocket", "wsproto"},
    "actors": {"outcome", "pydantic", "pydantic_core", "trio"},
    "agent": {"h11", "httpx2", "httpcore2", "mcp", "pydantic", "pydantic_core", "trio"},
    "persistence": {"pydantic", "pydantic_core", "sqlite_utils", "trio"},
    "protocol": {"pydantic", "pydantic_core"},
}  # fmt: skip
"""Each library only where its room is."""

LONGEST_FILE = 500
NAMES_OF_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

CLOCKS_IDS_AND_CHANCE = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "localtime", "gmtime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "uuid": {"uuid1", "uuid4", "uuid6", "uuid7", "uuid8"},
    "uuid_utils": {"uuid1", "uuid4", "uuid6", "uuid7", "uuid8"},
    "os": {"urandom", "getrandom"},
}
"""Attributes that read a clock, make an id or draw a number: a Runtime is passed in for these."""
CHANCE_MODULES = {"random", "secrets"}
REAL_MACHINE = {
    "spoold/system_runtime.py",
    "spoold/demo.py",
    "spoold/client.py",
    "spoold/testing/runtime.py",
    "spoold/testing/exploration/explorer.py",
}
"""The Runtimes of the real machine and of a simulated world; demo, client and explorer run beside one."""

NEEDS_NO_LOCK = {("agent/model/http_stream.py", "httpx2")}
"""Imported again by functions that run only after one of the page has imported it with the lock held."""
BEFORE_THREADS = {
    *(
        f"spoold/{page}.py"
        for page in ("cli", "client", "demo", "logs", "ownership", "protocol_page", "queue_command")
    ),
    "spoold/testing/plugin.py",
}
"""What imports before a daemon has threads, or is no daemon."""

FILES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))
EVERY_FILE = sorted([*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(params=FILES, ids=name_of)
def product_file(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module, wherever in the file, with its line; those for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its direction"
            assert node.module is not None
            yield node.module, node.lineno


def test_imports_only_point_down_and_libraries_stay_in_their_rooms(product_file: Path) -> None:
    room = product_file.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[room] | LIBRARIES[room] | {room} | set(sys.stdlib_module_names)
    wrong = [
        f"line {line}: {module}"
        for module, line in imports(ast.parse(product_file.read_text(encoding="utf-8")))
        if module.partition(".")[0] not in allowed
    ]
    assert wrong == [], f"{room}/ may not import these"


def test_nothing_reads_the_clock_makes_an_id_or_draws_a_number_by_itself(product_file: Path) -> None:
    if name_of(product_file) in REAL_MACHINE:
        return
    tree = ast.parse(product_file.read_text(encoding="utf-8"))
    wrong = [f"line {line}: {module}" for module, line in imports(tree) if module in CHANCE_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if node.attr in CLOCKS_IDS_AND_CHANCE.get(owner, ()):
                wrong.append(f"line {node.lineno}: {owner}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in CLOCKS_IDS_AND_CHANCE:
            taken = {alias.name for alias in node.names} & CLOCKS_IDS_AND_CHANCE[node.module]
            wrong += [f"line {node.lineno}: from {node.module} import {name}" for name in sorted(taken)]
    assert wrong == [], "ask the Runtime instead"


def test_a_file_is_named_for_what_it_is_about(product_file: Path) -> None:
    names = {part.removesuffix(".py") for part in product_file.relative_to(ROOT).parts}
    words = {word for name in names for word in name.split("_")}
    assert not words & NAMES_OF_NOTHING


def late_imports_without_the_lock(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Imports of what is not the standard library's inside functions, outside ``one_import_at_a_time``."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        held = {
            inner
            for block in ast.walk(function)
            if isinstance(block, ast.With) and "one_import_at_a_time" in map(ast.unparse, block.items)
            for inner in ast.walk(block)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom) and node not in held:
                for name, line in imports(node):
                    if name.split(".")[0] not in sys.stdlib_module_names:
                        yield name, line


def test_who_imports_late_does_it_with_the_lock_held(product_file: Path) -> None:
    if name_of(product_file) in BEFORE_THREADS:
        return
    tree = ast.parse(product_file.read_text(encoding="utf-8"))
    wrong = [
        f"line {line}: {name}"
        for name, line in late_imports_without_the_lock(tree)
        if (name_of(product_file), name) not in NEEDS_NO_LOCK
    ]
    assert wrong == [], "two threads that import at once may break each other's: see protocol.late_imports"


def test_the_watch_on_late_imports_sees_one_without_the_lock() -> None:
    source = "def f():\n    with one_import_at_a_time:\n        import httpx2\n    import sqlite_utils"
    assert list(late_imports_without_the_lock(ast.parse(source))) == [("sqlite_utils", 4)]


@pytest.mark.parametrize("path", EVERY_FILE, ids=name_of)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize(
    "source",
    ["import time\ntime.time()", "from uuid import uuid4", "import random", "datetime.datetime.now()"],
)
def test_the_watch_on_clocks_and_chance_sees_every_way_to_them(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = new_file(tmp_path, "spoold", source)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="Runtime"):
        test_nothing_reads_the_clock_makes_an_id_or_draws_a_number_by_itself(file)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("agent", "from persistence.home import Home"),
        ("protocol", "import trio"),
        ("transport", "import agent"),
        ("persistence", "def f():\n    import agent.events"),
    ],
)
def test_the_watch_on_imports_sees_an_arrow_that_points_up(
    room: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = new_file(tmp_path, room, source)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="may not import"):
        test_imports_only_point_down_and_libraries_stay_in_their_rooms(file)


def new_file(root: Path, room: str, source: str) -> Path:
    file = root / room / "new.py"
    file.parent.mkdir()
    file.write_text(source)
    return file
