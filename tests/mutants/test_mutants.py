"""The list of mutants does not rot, its page is that of the list, and a trial says what has happened."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

from tests.mutants.confirming import confirmed
from tests.mutants.every import EVERY
from tests.mutants.mutant import DoesNotApply, Mutant
from tests.mutants.page import FILE, page
from tests.mutants.trial import Verdict, try_mutant

ROOT = Path(__file__).parents[2]
AT_LEAST = 45


def name_of(mutant: Mutant) -> str:
    return mutant.name


def of_small_tree(**fields: str) -> Mutant:
    given = {"name": "one is two", "file": "spoold/one.py", "old": "1", "new": "2", **fields}
    killers = [given.pop("killer", "tests/test_one.py::test_one_is_one")]
    return Mutant(breaks="one is one", killers=killers, **given)


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """A tree with one module and a test that looks at some of it."""
    tree = tmp_path / "tree"
    for folder in ("spoold", "tests"):
        (tree / folder).mkdir(parents=True)
        (tree / folder / "__init__.py").touch()
    module = """\
        def one():
            return 1


        def other():
            return 7
        """
    test = """\
        from spoold.one import one


        def test_one_is_one():
            assert one() == 1
        """
    (tree / "spoold" / "one.py").write_text(textwrap.dedent(module))
    (tree / "tests" / "test_one.py").write_text(textwrap.dedent(test))
    (tree / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tree


@pytest.mark.parametrize("mutant", EVERY, ids=name_of)
def test_a_mutant_still_applies_and_changes_what_the_code_does(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source))


@pytest.mark.parametrize("mutant", EVERY, ids=name_of)
def test_a_mutant_names_tests_that_exist(mutant: Mutant) -> None:
    assert mutant.killers or mutant.command
    for killer in mutant.killers:
        file, _, test = killer.partition("::")
        assert (ROOT / file).exists(), file
        if test:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), killer


def test_every_mutant_has_a_name_of_its_own_and_there_are_enough() -> None:
    assert len({mutant.name for mutant in EVERY}) == len(EVERY) >= AT_LEAST


def test_the_page_names_the_mutants_of_the_list_each_with_one_of_its_killers() -> None:
    written = re.findall(r"^\| ([^|]+?) \|.*\| `([^`|]+)`[^|`]*\| \d+ \|$", page_of_the_tree(), re.MULTILINE)
    assert [name for name, _ in written] == [mutant.name for mutant in EVERY], "run `make mutants`"
    for (name, by), mutant in zip(written, EVERY, strict=True):
        named = (*mutant.killers, " ".join(("python", *mutant.command)))
        assert any(each in by or by.startswith(each) for each in named), f"{name}: run `make mutants`"


def page_of_the_tree() -> str:
    return (ROOT / FILE).read_text(encoding="utf-8")


def test_the_page_says_who_has_noticed_what_and_who_was_not() -> None:
    first, second, third = (Mutant(name, "a rule", "a.py", "a", "b", ["t.py"]) for name in ("x", "y", "z"))
    verdicts = [
        Verdict(third, "survived", "t.py", 3.0),
        Verdict(second, "timed out", "tests/simulation/t.py::test_it", 90.4),
        Verdict(first, "killed", "t.py::test_it", 1.2),
    ]
    text = page({"A room": [first, second], "Another": [third]}, verdicts)
    assert "3 mutants, 2 killed, 1 of them by the simulated world" in text
    assert "| x | a rule | `a.py` | `t.py::test_it` | 1 |" in text
    assert "| y | a rule | `a.py` | `tests/simulation/t.py::test_it` (timed out) | 90 |" in text
    assert "| z | a rule | `a.py` | **nobody** | 3 |" in text


@pytest.mark.parametrize("old", ["nowhere", "return"])
def test_a_mutant_whose_place_is_not_there_once_says_so(old: str, small_tree: Path) -> None:
    with pytest.raises(DoesNotApply, match="'one is two'"):
        of_small_tree(old=old).apply(small_tree)


def test_a_mutant_that_a_test_notices_is_killed_by_it_and_the_tree_is_as_it_was(small_tree: Path) -> None:
    before = (small_tree / "spoold" / "one.py").read_text()
    verdict = try_mutant(small_tree, of_small_tree(), 60)
    assert (verdict.outcome, verdict.by) == ("killed", "tests/test_one.py::test_one_is_one")
    assert verdict.noticed
    assert (small_tree / "spoold" / "one.py").read_text() == before


def test_a_mutant_that_no_test_notices_has_survived(small_tree: Path) -> None:
    verdict = try_mutant(small_tree, of_small_tree(old="7", new="8"), 60)
    assert verdict.outcome == "survived"
    assert not verdict.noticed


def test_a_mutant_that_never_ends_is_noticed_and_called_what_it_is(small_tree: Path) -> None:
    verdict = try_mutant(small_tree, of_small_tree(old="return 1", new="while True: pass"), 5)
    assert (verdict.outcome, verdict.noticed) == ("timed out", True)


@pytest.mark.parametrize(
    "fields", [{"old": "return 1", "new": "return ("}, {"killer": "tests/test_one.py::test_nothing"}]
)
def test_tests_that_cannot_begin_prove_nothing(fields: dict[str, str], small_tree: Path) -> None:
    verdict = try_mutant(small_tree, of_small_tree(**fields), 60)
    assert verdict.outcome == "not tried"
    assert not verdict.noticed


@pytest.mark.parametrize(("code", "outcome"), [(0, "survived"), (1, "killed"), (3, "not tried")])
def test_a_command_may_look_for_a_mutant_instead_of_tests(code: int, outcome: str, small_tree: Path) -> None:
    command = ("-c", f"from spoold.one import one; raise SystemExit({code} if one() == 2 else 9)")
    mutant = Mutant("one is two", "one is one", "spoold/one.py", "1", "2", command=command)
    verdict = try_mutant(small_tree, mutant, 60)
    assert verdict.outcome == outcome
    assert verdict.by.startswith("exit code 3" if outcome == "not tried" else "python -c from spoold.one")


def test_what_fails_without_the_mutant_too_has_not_noticed_it(small_tree: Path) -> None:
    tests = small_tree / "tests" / "test_one.py"
    tests.write_text(tests.read_text() + "\n\ndef test_never():\n    assert False\n")
    always = ("-c", "raise SystemExit(1)")
    sometimes = ("-c", "from spoold.one import one; raise SystemExit(one() == 2)")
    mutants = [
        of_small_tree(),
        of_small_tree(killer="tests/test_one.py::test_never"),
        *(Mutant("one is two", "", "spoold/one.py", "1", "2", command=each) for each in (always, sometimes)),
    ]
    killed = [try_mutant(small_tree, mutant, 60) for mutant in mutants]
    assert {verdict.outcome for verdict in killed} == {"killed"}
    outcomes = [verdict.outcome for verdict in confirmed(small_tree, killed, 60, jobs=2)]
    assert outcomes == ["killed", "not tried", "not tried", "killed"]
