"""The proof itself: it fails when it must, sees what tests do, and README says what it saw."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mounts import needs_mounts, private_mounts
from proof import report, running
from proof.__main__ import DESELECTED, Proof, main
from proof.judgement import (
    Count,
    Deselected,
    Outcome,
    Run,
    Verdict,
    counted,
    judge,
    judge_distributed,
    outcomes,
    parse_deselected,
    stale,
)
from proof.reachable import closed_paths, make_reachable
from proof.running import ROOT, Job, Result, distributed_count, run_all
from proof.suites import OURS, STOCK, SUITES, Reactor, Route, Suite
from support import PROC

# --- Judgement ------------------------------------------------------------------------------------

SUITE = Suite("a suite", Route.GLOBAL, ("m",), 1)
REASON = "a reason"


def run(**kinds: str) -> Run:
    return Run(
        {f"m.{name}": Outcome(kind.replace("_", " "), "why") for name, kind in kinds.items()}
    )


def judged(
    stock: Run, ours: Run, left_out: Run | None = None, deselected: Sequence[str] = ()
) -> Verdict:
    entries = [Deselected(f"m.{name}", REASON) for name in deselected]
    return judge(SUITE, stock, ours, left_out or Run(), entries)


def failing(verdict: Verdict) -> list[str]:
    return [test for test, _ in verdict.failures]


def test_the_same_on_both_is_right() -> None:
    same = run(a="passed", b="skipped", c="expected_failure")
    assert judged(same, same) == Verdict([], [])


@pytest.mark.parametrize(
    ("stock", "ours", "right"),
    [
        ("passed", "skipped", False),
        ("passed", "failed", False),
        ("passed", "error", False),
        ("passed", "expected_failure", False),
        ("skipped", "passed", True),
        ("skipped", "failed", False),
        ("expected_failure", "passed", True),
        ("expected_failure", "unexpected_success", True),
        ("expected_failure", "failed", False),
        ("expected_failure", "skipped", False),
    ],
)
def test_ours_must_do_what_stock_does(stock: str, ours: str, right: bool) -> None:
    verdict = judged(run(a="passed", b=stock), run(a="passed", b=ours))
    assert failing(verdict) == ([] if right else ["m.b"])
    assert all("why" in text for _, text in verdict.failures)


def test_a_test_that_was_not_run_on_ours_fails() -> None:
    assert failing(judged(run(a="passed", b="passed"), run(a="passed"))) == ["m.b"]


def test_a_test_that_only_ours_has_must_not_fail() -> None:
    verdict = judged(run(a="passed"), run(a="passed", b="failed", c="passed"))
    assert failing(verdict) == ["m.b"]


@pytest.mark.parametrize("stock", ["failed", "error", "unexpected_success"])
@pytest.mark.parametrize("ours", ["failed", "passed"])
def test_what_fails_on_stock_is_not_judged_but_told(stock: str, ours: str) -> None:
    verdict = judged(run(a="passed", b=stock), run(a="passed", b=ours))
    assert not verdict.failures
    (note,) = verdict.notes
    assert "m.b fails on stock as well" in note
    assert ours in note


def test_a_deselected_test_is_not_required() -> None:
    stock, left_out = run(a="passed", b="passed"), run(b="failed")
    assert judged(stock, run(a="passed"), left_out, ["b"]) == Verdict([], [])


@pytest.mark.parametrize("kind", ["passed", "skipped", "expected_failure", "unexpected_success"])
def test_a_deselected_test_must_not_pass(kind: str) -> None:
    stock, left_out = run(a="passed", b="passed"), run(b=kind)
    assert failing(judged(stock, run(a="passed"), left_out, ["b"])) == ["m.b"]


def test_an_entry_without_a_test_fails() -> None:
    same = run(a="passed")
    assert failing(judged(same, same, Run(), ["gone"])) == ["m.gone"]


def test_an_entry_of_no_suite_fails() -> None:
    entries = [Deselected("m.b", REASON), Deselected("mm.c", REASON), Deselected("m", REASON)]
    assert [test for test, _ in stale([SUITE], entries)] == ["mm.c", "m"]


def test_a_run_that_ended_early_fails_on_either_reactor() -> None:
    whole, cut = run(a="passed"), Run(run(a="passed").outcomes, complete=False, output="it died")
    assert failing(judged(cut, whole)) == ["the run on stock"]
    assert failing(judged(whole, cut)) == ["the run on ours"]
    verdict = judged(whole, whole, Run(complete=False, output="it died"))
    assert failing(verdict) == ["the run on ours, deselected"]
    assert "it died" in verdict.failures[0][1]


def test_an_empty_collection_fails() -> None:
    assert failing(judged(Run(), Run())) == ["the suite"]
    assert failing(judged(run(a="skipped"), run(a="skipped"))) == ["the suite"]


def test_what_only_root_can_run_counts_where_stock_passed_it() -> None:
    suite = Suite("", Route.BUILDER, ("m",), 2, identity=("test_uid",))
    for kind in ("skipped", "failed"):
        seen = run(**{"X.test_a": "passed", "X.test_uid": kind})
        assert not judge(suite, seen, seen, Run(), []).failures
    both = run(**{"X.test_a": "passed", "X.test_uid": "passed"})
    lacking = run(**{"X.test_a": "passed"})
    assert failing(judge(suite, both, both, Run(), [])) == []
    assert failing(judge(suite, both, lacking, Run(), [])) == ["m.X.test_uid", "the suite"]


def test_the_worst_that_was_told_of_a_test_counts() -> None:
    told = [
        ("a", "started", ""),
        ("a", "failed", "one"),
        ("a", "passed", ""),
        ("a", "error", "two"),
        ("b", "started", ""),
        ("d", "error", "three"),
        ("d", "passed", ""),
        ("", "done", ""),
        ("c_StockTests.x", "passed", ""),
    ]
    assert outcomes(told, ("_StockTests", "_OursTests")) == {
        "a": Outcome("error", "one\ntwo"),
        "b": Outcome("error", "did not come to its end"),
        "d": Outcome("error", "three"),
        "c_OursTests.x": Outcome("passed"),
    }


def test_each_test_is_counted_once() -> None:
    kinds = ["passed", "skipped", "expected_failure", "unexpected_success", "failed", "error"]
    seen = run(**{f"t{number}": kind for number, kind in enumerate(kinds)})
    assert counted(seen) == Count(passed=2, failed=3, skipped=1, seconds=0.0)


def test_of_a_distributed_run_the_figures_are_judged() -> None:
    suite = Suite("", Route.DISTRIBUTED, ("m",), 5)

    def verdict(stock: tuple[int, int], ours: tuple[int, int]) -> Verdict:
        return judge_distributed(suite, Count(*stock, 0, 0), Count(*ours, 0, 0))

    assert verdict((6, 0), (6, 0)) == Verdict([], [])
    assert verdict((6, 0), (7, 0)) == Verdict([], [])
    assert verdict((6, 0), (5, 0)).failures
    assert verdict((6, 0), (6, 1)).failures
    assert verdict((4, 0), (4, 0)).failures
    assert verdict((6, 1), (7, 0)).notes


def test_an_entry_has_a_reason_and_is_there_once() -> None:
    assert parse_deselected("# words\n\nm.a  why so\n") == [Deselected("m.a", "why so")]
    with pytest.raises(ValueError, match=r"line 2: m\.b has no reason"):
        parse_deselected("m.a why\nm.b\n")
    with pytest.raises(ValueError, match=r"line 2: m\.a is there twice"):
        parse_deselected("m.a why\nm.a why\n")


def test_the_list_has_reasons_and_names_tests_of_the_suites() -> None:
    entries = parse_deselected(DESELECTED.read_text(encoding="utf-8"))
    assert entries
    assert stale(SUITES, entries) == []


# --- What the program says ------------------------------------------------------------------------


def said(
    capsys: pytest.CaptureFixture[str], suite: Suite, stock: Result, ours: Result
) -> tuple[int, str]:
    """How much is wrong, and what is printed of it."""
    proof = Proof([])
    proof.add(Job(suite, STOCK), stock)
    proof.add(Job(suite, OURS), ours)
    proof.judge(suite)
    return proof.failures, capsys.readouterr().out


def test_a_failure_is_told_with_its_text_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    right, wrong = Result(run(a="passed", b="passed")), Result(run(a="passed", b="failed"))
    assert said(capsys, SUITE, right, right)[0] == 0
    number, text = said(capsys, SUITE, right, wrong)
    assert number == 1
    assert "FAILED a suite: m.b: passed on stock, failed on ours\nwhy" in text


def test_what_is_not_judged_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    both = Result(run(a="passed", b="failed"))
    number, text = said(capsys, SUITE, both, both)
    assert number == 0
    assert "not judged here: m.b fails on stock as well" in text


def test_a_run_that_proves_nothing_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    right, wrong = Result(run(a="passed")), Result(run(a="passed"), problem="another reactor")
    number, text = said(capsys, SUITE, right, wrong)
    assert number == 1
    assert "another reactor" in text


def test_figures_of_a_distributed_run_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    suite = Suite("far", Route.DISTRIBUTED, ("m",), 5)
    right = Result(Run(), Count(5, 0, 0, 0.0))
    wrong = Result(Run(output="a traceback"), Count(4, 1, 0, 0.0))
    assert said(capsys, suite, right, right)[0] == 0
    number, text = said(capsys, suite, right, wrong)
    assert number == 2
    assert "a traceback" in text


def test_an_unreachable_interpreter_is_told_where_it_matters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = Result(run(a="passed"), unreachable="no right to mount")
    assert "no right to mount" not in said(capsys, SUITE, one, one)[1]
    suite = Suite("", Route.GLOBAL, ("m",), 1, identity=("test_uid",))
    number, text = said(capsys, suite, one, one)
    assert number == 0
    assert "no right to mount" in text


def test_no_suite_is_no_proof(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "no such suite"]) == 2
    assert "no such suite" in capsys.readouterr().err


# --- Running --------------------------------------------------------------------------------------

MADE_UP = """
    import os, signal, sys
    from twisted.internet import reactor
    from twisted.internet.test.reactormixins import ReactorBuilder
    from twisted.internet.defer import Deferred
    from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

    class Tests(TestCase):
        def test_passes(self): pass
        def test_skips(self): raise SkipTest("not here")
        def test_fails(self): self.fail("I failed")
        def test_errs(self): raise KeyError("I erred")
        def test_todo(self): self.fail("as expected")
        test_todo.todo = "some day"
        def test_done(self): pass
        test_done.todo = "some day"
        def test_passes_and_errs_later(self): self.addCleanup(lambda: 1 / 0)

    class Named(TestCase):
        def test_reactor(self): self.assertEqual(type(reactor).__name__, "ProcreactorReactor")

    class Surroundings(TestCase):
        def test_no_input(self): self.assertEqual(os.read(0, 1), b"")
        def test_interrupt(self):
            self.assertIs(signal.getsignal(signal.SIGINT), signal.default_int_handler)
        def test_path(self): self.assertNotIn("reachable.py", sum(map(entries, sys.path), []))

    def entries(path):
        return os.listdir(path) if os.path.isdir(path) else []

    class Waits(TestCase):
        def test_for_ever(self): return Deferred()

    class Dies(TestCase):
        def test_a_passes(self): pass
        def test_b_dies(self):
            print("last words", flush=True)
            os._exit(0)

    class Hangs(TestCase):
        def test_hangs(self):
            if not os.fork():
                while True: os.read(os.pipe()[0], 1)
            os.read(os.pipe()[0], 1)

    class Built(ReactorBuilder):
        def test_name(self):
            name = type(self.buildReactor()).__name__
            self.assertEqual(name, "ProcreactorReactor")

    class NotBuilt(SynchronousTestCase):
        def test_of_no_reactor(self): pass

    globals().update(Built.makeTestCaseClasses())
"""


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    (tmp_path / "made_up.py").write_text(textwrap.dedent(MADE_UP))
    return tmp_path


def see(directory: Path, reactor: Reactor, *names: str, **options: Any) -> Result:
    suite_options = {"timeout_s": 60.0, "route": Route.GLOBAL, **options}
    job_options = {
        name: suite_options.pop(name)
        for name in ("deselected", "only_deselected")
        if name in suite_options
    }
    route = suite_options.pop("route")
    suite = Suite("", route, names, 1, sdist=True, **suite_options)
    plug_in_path = str(ROOT / "procreactor" / "hosts" / "twisted" / "plugin_path")
    ((_, result),) = run_all([Job(suite, reactor, **job_options)], 1, plug_in_path, directory)
    return result


def kinds(result: Result) -> dict[str, str]:
    return {test.rsplit(".", 1)[1]: one.kind for test, one in result.run.outcomes.items()}


def test_each_outcome_is_recorded(made_up: Path) -> None:
    result = see(made_up, STOCK, "made_up.Tests")
    assert kinds(result) == {
        "test_passes": "passed",
        "test_skips": "skipped",
        "test_fails": "failed",
        "test_errs": "error",
        "test_todo": "expected failure",
        "test_done": "unexpected success",
        "test_passes_and_errs_later": "error",
    }
    seen = result.run.outcomes
    assert "I failed" in seen["made_up.Tests.test_fails"].text
    assert "I erred" in seen["made_up.Tests.test_errs"].text
    assert seen["made_up.Tests.test_skips"].text == "not here"
    assert (result.run.complete, result.problem) == (True, "")


def test_the_global_reactor_is_the_one_that_was_asked_for(made_up: Path) -> None:
    assert kinds(see(made_up, OURS, "made_up.Named")) == {"test_reactor": "passed"}
    assert kinds(see(made_up, STOCK, "made_up.Named")) == {"test_reactor": "failed"}


def test_a_run_on_another_reactor_proves_nothing(made_up: Path) -> None:
    claims = Reactor("ours", "epoll", OURS.path)
    assert "EPollReactor" in see(made_up, claims, "made_up.Tests").problem


def test_a_builder_knows_one_reactor_and_other_tests_do_not_count(made_up: Path) -> None:
    result = see(made_up, OURS, "made_up", route=Route.BUILDER)
    test = "made_up.Built_ProcreactorReactorTests.test_name"
    assert result.run.outcomes == {test: Outcome("passed")}
    stock = see(made_up, STOCK, "made_up", route=Route.BUILDER)
    assert {name: one.kind for name, one in stock.run.outcomes.items()} == {test: "failed"}


def test_tests_find_nothing_of_ours_around_them(made_up: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"input")
    was_input, handler = os.dup(0), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.dup2(reading, 0)
        result = see(made_up, OURS, "made_up.Surroundings")
    finally:
        signal.signal(signal.SIGINT, handler)
        os.dup2(was_input, 0)
        for fd in (reading, writing, was_input):
            os.close(fd)
    assert set(kinds(result).values()) == {"passed"}


@pytest.mark.parametrize("route", [Route.GLOBAL, Route.BUILDER])
def test_a_module_that_cannot_be_imported_is_an_error(tmp_path: Path, route: Route) -> None:
    (tmp_path / "broken.py").write_text("import not_to_be_had\n")
    result = see(tmp_path, STOCK, "broken", route=route)
    (one,) = result.run.outcomes.values()
    assert one.kind == "error"
    assert "not_to_be_had" in one.text


def test_the_deselected_are_run_by_themselves(made_up: Path) -> None:
    chosen = ("made_up.Tests.test_fails", "made_up.Tests.test_errs", "made_up.Tests.gone")
    others = see(made_up, OURS, "made_up.Tests", deselected=chosen)
    assert "test_passes" in kinds(others)
    assert not {"test_fails", "test_errs"} & set(kinds(others))
    alone = see(made_up, OURS, "made_up.Tests", deselected=chosen, only_deselected=True)
    assert kinds(alone) == {"test_fails": "failed", "test_errs": "error"}


def test_a_deselected_test_has_a_few_seconds(made_up: Path) -> None:
    test = "made_up.Waits.test_for_ever"
    options = {"deselected": (test,), "only_deselected": True, "timeout_s": 60.0}
    result = see(made_up, OURS, "made_up.Waits", **options)
    assert kinds(result) == {"test_for_ever": "error"}
    assert "5.0 secs" in result.run.outcomes[test].text


def test_without_a_reachable_interpreter_the_tests_for_it_do_not_wait(
    made_up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_closed", lambda directory: ["/no-such-place"])
    result = see(made_up, OURS, "made_up.Waits", identity=("test_for_ever",))
    assert "/no-such-place" in result.unreachable
    assert "5.0 secs" in result.run.outcomes["made_up.Waits.test_for_ever"].text


def test_a_process_that_dies_leaves_what_it_saw(made_up: Path) -> None:
    result = see(made_up, OURS, "made_up.Dies")
    assert kinds(result) == {"test_a_passes": "passed", "test_b_dies": "error"}
    assert not result.run.complete
    assert "last words" in result.run.output


def test_a_process_that_hangs_is_killed_with_its_children(made_up: Path) -> None:
    result = see(made_up, OURS, "made_up.Hangs", timeout_s=5.0)
    assert kinds(result) == {"test_hangs": "error"}
    assert not result.run.complete
    assert "killed after" in result.run.output
    assert not left_in(made_up)


def test_who_stops_earlier_leaves_nothing(made_up: Path) -> None:
    suites = [
        Suite("", Route.GLOBAL, (f"made_up.{name}",), 1, sdist=True) for name in ("Hangs", "Tests")
    ]
    runs = run_all([Job(suite, STOCK) for suite in suites], 2, "", made_up)
    job, _ = next(runs)
    assert job.suite.names == ("made_up.Tests",)
    runs.close()
    assert not left_in(made_up)


def left_in(directory: Path) -> list[int]:
    """The processes with *directory* in their environment, when there is time to end."""
    deadline = time.monotonic() + 20
    while (left := _with_in_environment(str(directory))) and time.monotonic() < deadline:
        os.sched_yield()
    return left


def _with_in_environment(word: str) -> list[int]:
    found = []
    for entry in Path(PROC).glob("[0-9]*"):
        try:
            if word.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def test_the_figures_of_a_distributed_run_are_read() -> None:
    text = "Ran 12 tests in 2.8s\n\n{} (skips=2, expectedFailures=1, {}successes=8)\n"
    assert distributed_count(text.format("PASSED", ""), 3.0) == Count(9, 1, 2, 3.0)
    text = text.replace("successes=8", "successes=5")
    assert distributed_count(text.format("FAILED", "failures=4, "), 3.0) == Count(6, 4, 2, 3.0)
    for cut in ("Running 12 tests.\n", "Ran 12 tests in 2.8s\n", "PASSED (successes=3)\n"):
        assert distributed_count(cut, 3.0) is None


@pytest.mark.needs("threads")
def test_workers_of_trial_run_on_the_reactor(made_up: Path) -> None:
    result = see(made_up, OURS, "made_up.Named", "made_up.NotBuilt", route=Route.DISTRIBUTED)
    assert result.problem == ""
    assert result.count is not None
    assert (result.count.passed, result.count.failed) == (2, 0)
    stock = see(made_up, STOCK, "made_up.Named", route=Route.DISTRIBUTED)
    assert stock.problem == ""
    assert stock.count is not None
    assert (stock.count.passed, stock.count.failed) == (0, 1)


def test_a_distributed_run_that_does_not_come_about_proves_nothing(made_up: Path) -> None:
    nowhere = Reactor("ours", "no-such-reactor", OURS.path)
    result = see(made_up, nowhere, "made_up.Named", route=Route.DISTRIBUTED)
    assert "no-such-reactor" in result.problem


# --- An interpreter that all can reach ------------------------------------------------------------


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that all can reach; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name).resolve()
        if any(not one.stat().st_mode & stat.S_IXOTH for one in directory.parents):
            pytest.skip(f"{directory.parent} cannot be reached by all")
        directory.chmod(0o755)
        yield directory


def closed_below(directory: Path) -> tuple[Path, Path]:
    """A closed directory, and one inside of it that is not, with another closed one between."""
    closed = directory / "closed"
    inner = closed / "on the way" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("read me")
    (inner / "file").chmod(0o644)
    (closed / "secret").write_text("do not")
    inner.chmod(0o755)
    for one in (closed, inner.parent):
        one.chmod(0o700)
    return closed, inner


def test_closed_paths_are_those_below_a_closed_directory(passable: Path) -> None:
    _, inner = closed_below(passable)
    deeper, link = inner / "deeper", passable / "link"
    deeper.mkdir()
    link.symlink_to(inner)
    paths = [str(path) for path in (inner, deeper, link, passable / "not there", passable)]
    assert closed_paths([*paths[:-1], "/usr"]) == [str(inner)]
    assert closed_paths([str(link)]) == [str(inner)]
    assert closed_paths(["/usr", paths[-1]]) == []


def exit_code_of(function: Callable[[], bool]) -> int:
    """What a child that answers with *function* ends with: 0 is yes."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if function() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_mounts
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_makes_a_path_reachable_for_itself_alone(passable: Path) -> None:
    closed, inner = closed_below(passable)

    def another_user_sees_it() -> bool:
        os.umask(0o077)
        make_reachable(closed_paths([str(inner)]))
        os.setgroups([])
        os.setgid(1)
        os.setuid(1)
        seen = (inner / "file").read_text(), os.listdir(closed)
        return seen == ("read me", ["on the way"])

    def nobody_else_is_concerned() -> bool:
        # As on most machines: what is mounted here is mounted in the copies too, and back.
        private_mounts()
        shared = 1 << 14 | 1 << 20
        assert ctypes.CDLL(None).mount(b"none", b"/", None, ctypes.c_ulong(shared), None) == 0
        assert exit_code_of(another_user_sees_it) == 0
        return sorted(os.listdir(closed)) == ["on the way", "secret"]

    assert exit_code_of(nobody_else_is_concerned) == 0
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_path_that_is_closed_itself_is_refused(passable: Path) -> None:
    closed, _ = closed_below(passable)
    with pytest.raises(OSError, match="itself is closed"):
        make_reachable([str(closed)])


# --- README ---------------------------------------------------------------------------------------

KEPT = {
    "twisted": "1.2",
    "buildbot-worker": "3.4",
    "suites": [
        report.entry(SUITES[0], Count(5, 0, 2, 1.0), Count(3, 0, 2, 1.0), 2),
        report.entry(SUITES[-1], Count(5, 1, 0, 1.0), Count(6, 0, 0, 1.0), 0),
    ],
}


def test_the_table_has_the_figures() -> None:
    rows = report.table(KEPT).splitlines()
    assert f"| {SUITES[0].title} | Twisted 1.2 | 5 passed, 2 skipped " in rows[3]
    assert rows[3].endswith("| 3 passed, 2 skipped, 2 deselected |")
    assert rows[4].endswith("| buildbot-worker 3.4 | 5 passed, 1 failed | 6 passed |")


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.replaced(text, "new") == text.replace("old", "new")
    for wrong in ("no marks\n", f"{report.END}\n{report.BEGIN}\n", text + text):
        with pytest.raises(ValueError, match="must be there"):
            report.replaced(wrong, "new")


def test_the_kept_result_has_all_suites_and_nothing_failed_on_ours() -> None:
    kept = report.load(report.KEPT)
    assert [one["suite"] for one in kept["suites"]] == [suite.title for suite in SUITES]
    for suite, one in zip(SUITES, kept["suites"], strict=True):
        assert one["ours"]["failed"] == 0
        assert one["ours"]["passed"] >= suite.passes
    entries = parse_deselected(DESELECTED.read_text(encoding="utf-8"))
    assert sum(one["ours"]["deselected"] for one in kept["suites"]) == len(entries)


def test_the_table_of_the_readme_is_that_of_the_kept_result() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.replaced(text, report.table(report.load(report.KEPT))) == text
