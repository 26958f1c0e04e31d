"""The loop over requests: each is answered once, whatever fails and whenever it is stopped."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.eval.score import Ask, Counts, generation, scored
from mlops_llm.inference.cache import Answers, key
from mlops_llm.inference.concurrent import Lost, unless_lost
from mlops_llm.inference.engine import Class, Failure, Generation

KEYS = [key(text=f"question {place}") for place in range(6)]


def said(place: int, how: str = "") -> Generation:
    return Generation(f"answer {place}{how}", 3, 5, 0.25, place % 2 == 1)


class Asked:
    """Answers in the reverse order, and remembers what it was asked."""

    def __init__(self, fails: Sequence[int] = (), how: str = "", lost: Sequence[int] = (), kind: Class = Class.timeout) -> None:
        self.places: list[int] = []
        self._kind = kind
        self._fails, self._how, self._lost = fails, how, lost

    def __call__(self, places: Sequence[int]) -> Iterator[tuple[int, Generation | Failure]]:
        for place in reversed(places):
            self.places.append(place)
            if place in self._fails:
                yield place, Failure(self._kind, "no whole answer in 60 s", 60.0)
            elif place not in self._lost:
                yield place, said(place, self._how)


def run(folder: Path, ask: Ask[Generation], count: int = 6, **more: object) -> tuple[list[Generation | Failure], Counts]:
    file = folder / "answers.jsonl"
    return scored(KEYS[:count], ask, generation, file, what="answers", **more)  # type: ignore[arg-type]


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    kept = Answers(tmp_path / "cache" / "answers.db")
    yield kept
    kept.close()


def test_a_new_cache_that_another_process_begins_at_this_moment_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "answers.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    leaves = threading.Timer(0.2, other.rollback)
    leaves.start()
    kept = Answers(tmp_path / "answers.db")
    leaves.join()
    kept.put("a", {"text": "b"})
    assert kept.get("a") == {"text": "b"}
    for each in (kept, other):
        each.close()


def test_results_stand_in_the_order_of_the_requests_and_a_failure_is_one_of_them(tmp_path: Path) -> None:
    ask = Asked(fails=[2], lost=[4])
    results, counts = run(tmp_path, ask)
    assert results[:2] == [said(0), said(1)] and [results[3], results[5]] == [said(3), said(5)]
    assert results[2] == Failure(Class.timeout, "no whole answer in 60 s", 60.0)
    assert isinstance(results[4], Failure) and results[4].kind is Class.server
    assert counts == Counts(6, 0, 0) and ask.places == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("passing", [Class.timeout, Class.server])
def test_a_failure_that_may_pass_is_asked_again(passing: Class, tmp_path: Path) -> None:
    before, _ = run(tmp_path, Asked(fails=[2], kind=passing))
    again = Asked()
    after, counts = run(tmp_path, again)
    assert again.places == [2] and counts == Counts(1, 0, 5) and after[2] == said(2)
    assert [each for place, each in enumerate(after) if place != 2] == [each for place, each in enumerate(before) if place != 2]


def test_what_stands_in_the_file_is_not_asked_again_failures_included(tmp_path: Path) -> None:
    before, _ = run(tmp_path, Asked(fails=[2], lost=[4], kind=Class.refused))
    again = Asked()
    after, counts = run(tmp_path, again)
    assert again.places == [4] and counts == Counts(1, 0, 5)  # what was never answered is
    assert [each for place, each in enumerate(after) if place != 4] == [each for place, each in enumerate(before) if place != 4]
    untouched = Asked()
    assert run(tmp_path, untouched) == (after, Counts(0, 0, 6)) and untouched.places == []


def test_what_stands_in_the_file_to_something_else_is_asked_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, ask = tmp_path / "answers.jsonl", Asked(how=" now")
    run(tmp_path, Asked(), 3)
    results, counts = scored([KEYS[0], KEYS[2], KEYS[1]], ask, generation, file, what="answers")
    assert results == [said(0), said(1, " now"), said(2, " now")] and counts == Counts(2, 0, 1)
    assert "2 answers of this run belong to what has changed since" in capsys.readouterr().err
    assert scored([KEYS[0], KEYS[2], KEYS[1]], Asked(), generation, file, what="answers") == (results, Counts(0, 0, 3))


def test_requests_that_are_all_lost_end_the_work_unless_others_were_answered_before(tmp_path: Path) -> None:
    def lost(places: Sequence[int]) -> Iterator[tuple[int, Generation | Failure]]:
        found = ((place, Lost(Failure(Class.server, "HTTP 500"))) for place in places)
        yield from unless_lost(found, 10, lambda count, last: UserError(f"{count} failed, {last.cause}"))

    with pytest.raises(UserError, match="6 failed, HTTP 500"):
        run(tmp_path, lost)
    run(tmp_path, Asked(fails=[2, 3]))
    results, counts = run(tmp_path, lost)
    assert [place for place, each in enumerate(results) if each == Failure(Class.server, "HTTP 500")] == [2, 3]
    assert counts == Counts(2, 0, 4)


@pytest.mark.parametrize("text", ["你好\u2028再见\r\n\x85", "\ud800 alone", '{"place": 1}\n', "\x00\x1f"])
def test_any_text_comes_back_as_it_was(text: str, tmp_path: Path, answers: Answers) -> None:
    def ask(places: Sequence[int]) -> Iterable[tuple[int, Generation]]:
        return ((place, Generation(text, 1, 1, 0.1)) for place in places)

    first, _ = run(tmp_path, ask, 2, answers=answers)
    again, counts = run(tmp_path, ask, 2)
    assert again == first and counts.resumed == 2
    cached, counts = run(tmp_path / "other", ask, 2, answers=answers)
    assert cached == first and counts.cached == 2


@pytest.mark.parametrize("torn", ['{"place": 3, "text": "an', '{"place": 3, "text": "whole but for its line end"}', "\xff"])
def test_a_line_that_was_cut_off_is_asked_again(torn: str, tmp_path: Path) -> None:
    run(tmp_path, Asked(), 3)
    file = tmp_path / "answers.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + torn.encode("latin-1"))
    ask = Asked()
    results, counts = run(tmp_path, ask, 4)
    assert ask.places == [3] and counts == Counts(1, 0, 3) and results[3] == said(3)
    assert file.read_bytes().startswith(whole)
    assert sorted(json.loads(line)["place"] for line in file.read_text("utf-8").splitlines()) == [0, 1, 2, 3]


def test_an_error_of_the_engine_leaves_what_was_answered(tmp_path: Path, answers: Answers) -> None:
    def refuses(places: Sequence[int]) -> Iterator[tuple[int, Generation]]:
        yield 1, said(1)
        raise UserError("the key is refused")

    with pytest.raises(UserError, match="the key is refused"):
        run(tmp_path, refuses, answers=answers)
    ask = Asked()
    _, counts = run(tmp_path, ask)
    assert ask.places == [5, 4, 3, 2, 0] and counts.resumed == 1


def test_the_cache_answers_without_the_engine_unless_it_is_off_or_refreshed(tmp_path: Path, answers: Answers) -> None:
    def asked(name: str, how: str, **more: object) -> tuple[list[int], list[Generation | Failure], Counts]:
        ask = Asked(how=how)
        results, counts = run(tmp_path / name, ask, **more)
        return sorted(ask.places), results, counts

    everything = list(range(6))
    first = [said(place) for place in everything]
    assert asked("one", "", answers=answers) == (everything, first, Counts(6, 0, 0))
    assert asked("two", " anew", answers=answers) == ([], first, Counts(0, 6, 0))
    anew = [said(place, " anew") for place in everything]
    assert asked("off", " anew") == (everything, anew, Counts(6, 0, 0))
    assert asked("still", " x", answers=answers)[1] == first
    assert asked("refreshed", " anew", answers=answers, refresh=True) == (everything, anew, Counts(6, 0, 0))
    assert asked("after", " x", answers=answers)[1] == anew


def test_failures_are_not_kept_in_the_cache_and_a_resumed_run_has_what_it_gave(tmp_path: Path, answers: Answers) -> None:
    run(tmp_path / "one", Asked(fails=[2]), answers=answers)
    ask = Asked()
    results, counts = run(tmp_path / "two", ask, answers=answers)
    assert ask.places == [2] and counts == Counts(1, 5, 0) and results[2] == said(2)
    assert run(tmp_path / "two", Asked()) == (results, Counts(0, 0, 6))


def test_what_is_known_needs_no_engine(tmp_path: Path, answers: Answers) -> None:
    def never(places: Sequence[int]) -> Iterator[tuple[int, Generation]]:
        raise AssertionError("asked")

    run(tmp_path / "one", Asked(), answers=answers)
    assert run(tmp_path / "two", never, answers=answers)[1].cached == 6
    assert run(tmp_path / "none", never, 0) == ([], Counts(0, 0, 0))


def test_a_killed_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from mlops_llm.eval.score import generation, scored
from mlops_llm.inference.engine import Generation

def ask(places):
    for place in places:
        yield place, Generation(f"answer {place}", 3, 5, 0.25, place % 2 == 1)
        time.sleep(0.002)

scored([str(each) for each in range(100_000)], ask, generation, Path(sys.argv[1]), what="answers")
"""
    file = tmp_path / "answers.jsonl"
    process = subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while (not file.is_file() or file.read_bytes().count(b"\n") < 20) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = file.read_bytes().count(b"\n")
    assert done >= 20
    ask, to = Asked(), [str(each) for each in range(done + 5)]
    results, counts = scored(to, ask, generation, file, what="answers")
    assert sorted(ask.places) == list(range(done, done + 5)) and counts == Counts(5, 0, done)
    assert results == [said(place) for place in range(done + 5)]


def test_keys_differ_where_any_fact_does() -> None:
    facts = {"text": "a", "weights": "w", "seed": 1, "sampling": {"max_new_tokens": 5, "stop": []}}
    assert key(**facts) == key(**dict(reversed(facts.items())))
    others = [{**facts, "text": "b"}, {**facts, "seed": None}, {**facts, "sampling": {"max_new_tokens": 5, "stop": ["x"]}}]
    assert len({key(**each) for each in (facts, *others)}) == 4


def test_two_processes_may_write_the_cache_at_once(tmp_path: Path, answers: Answers) -> None:
    other = Answers(tmp_path / "cache" / "answers.db")
    for place in range(20):
        (answers, other)[place % 2].put(f"key {place}", {"text": str(place)})
    assert [answers.get(f"key {place}") for place in range(20)] == [{"text": str(place)} for place in range(20)]
    other.close()
