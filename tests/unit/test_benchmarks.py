"""Benchmarks without lm-eval: what names mean, where rows come from, programs that are held back, and what is kept."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.component import build, load
from mlops_llm.errors import UserError
from mlops_llm.eval import shown
from mlops_llm.eval.benchmarks import code, data, definitions, running, tasks
from mlops_llm.eval.benchmarks.book import Book
from mlops_llm.eval.benchmarks.building import Programs
from mlops_llm.eval.benchmarks.definitions import Task
from mlops_llm.eval.benchmarks.findings import Findings
from mlops_llm.eval.benchmarks.tasks import Wanted
from mlops_llm.eval.config import Benchmarks, Eval
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.page import page
from mlops_llm.inference.engine import Class, Failure

load("mlops_llm.inference.engines")


def asked(*names: str, limit: int | None = None, **how: Any) -> Eval:
    return Eval(benchmark=list(names), engine=build("engine", "hf"), limit=limit, benchmarks=Benchmarks(**how))


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_yaml", ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def rows(path: Path, *each: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in each), "utf-8")


def task(source: str, subset: str = "", **config: Any) -> Task:
    config = {"test_split": "test", "dataset_path": source, "dataset_name": subset, **config}
    return Task("some_task", Path("some_task.yaml"), config, ())


def test_task_files_are_read_with_what_they_include(tmp_path: Path) -> None:
    write(
        tmp_path,
        base="tag: [colours, all]\noutput_type: multiple_choice\ndoc_to_text: !function words.text\nnum_fewshot: 3\n",
        red_yaml='include: base\ntask: "red"\nnum_fewshot: 0\n',
        deep__blue_yaml="include: ../base\ntask: blue # a comment\ntag:\n  - cold\n",
        words="",
        group_yaml="group: paints\ntask:\n  - red\n  - group: inner\n    task:\n      - cold\n",
    )
    names = definitions.index(tmp_path)
    assert names.names == ["all", "blue", "cold", "colours", "paints", "red"]
    red = names.tasks("red")[0]
    assert red.config["doc_to_text"] == "!function words.text"
    assert (red.output, red.shots(None), red.shots(5)) == ("multiple_choice", 0, 0)
    assert names.tasks("blue")[0].shots(None) == 3 and names.tasks("blue")[0].shots(5) == 5
    assert [each.name for each in names.tasks("paints")] == ["red", "blue"]
    assert [each.name for each in names.tasks("colours")] == ["red"]
    with pytest.raises(UserError, match=r"unknown task 'reed' \(did you mean red\?\)"):
        names.tasks("reed")


def test_rows_are_read_in_every_form_that_authors_publish(tmp_path: Path) -> None:
    rows(tmp_path / "gsm8k/test.jsonl", {"prompt": "1 + 1?", "reference": "#### 2"})
    rows(tmp_path / "gsm8k/train.jsonl", {"question": "2?", "answer": "#### 2"})
    found = data.local(task("openai/gsm8k", "main", fewshot_split="train"), tmp_path, 1)
    assert found and found.rows == {
        "test": ({"question": "1 + 1?", "answer": "#### 2"},),
        "train": ({"question": "2?", "answer": "#### 2"},),
    }
    write(tmp_path, **{"mmlu__test__law_test.csv": 'question,choice0,choice1,choice2,choice3,answer\n"a, b?",w,x,y,z,2\n'})
    write(tmp_path, **{"mmlu__test__art_test.csv": '"a, b?",w,x,y,z,C\n'})
    law, art = (data.local(task("cais/mmlu", subject), tmp_path, 0) for subject in ("law", "art"))
    assert law and art and law.digest == art.digest
    assert law.rows["test"] == ({"question": "a, b?", "choices": ["w", "x", "y", "z"], "answer": 2},)
    one = {"question": "q", "choices": ["1", "2", "3", "4"], "answer": 0}
    rows(tmp_path / "all/test.jsonl", {**one, "subject": "fine art"}, {**one, "subject": "law", "answer": "B"})
    found = data.local(task("cais/mmlu", "law"), tmp_path / "all", 0)
    assert found and found.rows["test"] == ({**one, "answer": 1},)


def test_truthfulqa_has_the_best_answer_first(tmp_path: Path) -> None:
    wanted = {"choices": ["best", "bad"], "labels": [1, 0]}
    both = {"choices": ["best", "good", "bad"], "labels": [1, 1, 0]}
    one = task("truthfulqa/truthful_qa", "multiple_choice", test_split=None, validation_split="validation")
    heading = "Question,Best Answer,Correct Answers,Incorrect Answers\n"
    write(tmp_path, **{"csv__TruthfulQA.csv": heading + "q,best,best; good,bad;\n"})
    targets = {"mc1_targets": {"best": 1, "bad": 0}, "mc2_targets": {"best": 1, "good": 1, "bad": 0}}
    write(tmp_path, **{"json__mc_task.json": json.dumps([{"question": "q", **targets}])})
    for name in ("csv", "json"):
        found = data.local(one, tmp_path / name, 0)
        assert found and found.rows == {"validation": ({"question": "q", "mc1_targets": wanted, "mc2_targets": both},)}
    rows(tmp_path / "bad/validation.jsonl", {"question": "q", **targets, "mc1_targets": {"bad": 0, "best": 1}})
    with pytest.raises(UserError, match=r"validation row 1: has no choices whose first is a right one"):
        data.local(one, tmp_path / "bad", 0)


@pytest.mark.parametrize(
    ("row", "shots", "said"),
    [
        ({"question": "q"}, 0, "test row 1: has no 'answer'; it has: question"),
        ({"question": "q", "answer": "a"}, 2, "has no split 'train', which some_task takes its 2 worked examples from"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, row: dict[str, Any], shots: int, said: str) -> None:
    rows(tmp_path / "test.jsonl", row)
    with pytest.raises(UserError) as error:
        data.local(task("openai/gsm8k", "main", fewshot_split="train"), tmp_path, shots)
    assert said in str(error.value)


def test_registered_rows_are_found_by_name(here: Path) -> None:
    rows(here / "datasets/gsm8k.jsonl", {"question": "q", "answer": "a"})
    rows(here / "datasets/gsm8k_train.jsonl", {"question": "p", "answer": "b"})
    found = tasks.check(asked("gsm8k", few_shot=1))[0].local["gsm8k"]
    assert found.rows["test"][0]["question"] == "q" and found.rows["train"][0]["question"] == "p"
    assert found.where.endswith("datasets/gsm8k.jsonl")


def test_a_part_never_looks_like_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows(tmp_path / "gsm8k/test.jsonl", *[{"question": str(number), "answer": "a"} for number in range(5)])
    one = tasks.check(asked("gsm8k", few_shot=0, data=str(tmp_path)))[0]
    assert "gsm8k: 5 rows in" in capsys.readouterr().err
    assert one.counts(None) == {"gsm8k": 5} and one.shown(one.counts(None), None) == "gsm8k[5]"
    assert one.shown(one.counts(3), 3) == "gsm8k[3]"
    assert one.shown({"gsm8k": 1319}, None) == one.shown({"gsm8k": 1319}, 5000) == "gsm8k"
    assert one.shown({"gsm8k": 50}, 50) == "gsm8k[50]"


def test_a_result_is_kept_under_all_that_it_depends_on(tmp_path: Path) -> None:
    def key(rest: str = "a", weights: str = "w", **how: Any) -> str | None:
        rows(tmp_path / f"{rest}/test.jsonl", {"question": "q", "answer": rest})
        settings = asked("gsm8k", limit=how.pop("limit", None), few_shot=0, data=str(tmp_path / rest), **how)
        return tasks.check(settings)[0].key(settings, {"weights": weights, "template": "t"})

    assert key() == key()
    others = [key("b"), key(weights="x"), key(limit=1), key(chat_template=True), key(chat_template=True, system="s")]
    assert len({key(), *others}) == 6
    assert key(weights="") is None


@pytest.mark.parametrize(
    ("names", "how", "said"),
    [
        (["gsm8"], {}, "unknown benchmark 'gsm8' (did you mean gsm8k?)"),
        (["./nothing"], {}, "./nothing: there is no such folder of tasks"),
        (["humaneval"], {}, "no sandbox for hostile code; allow it: benchmarks.allow_code=true"),
        (["mbpp"], {"allow_code": True}, "mbpp runs programs that a model wrote, and runs them its own way"),
        (["gsm8k"], {"data": "missing"}, "there is no such folder; check benchmarks.data"),
        (["gsm8k"], {"data": "."}, "holds no rows of gsm8k (looked in "),
        (["gsm8k"], {}, "there is no dataset 'gsm8k', and the hub may not be asked for openai/gsm8k"),
    ],
)
def test_a_wrong_request_is_one_line(here: Path, names: list[str], how: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        tasks.check(asked(*names, **how))
    assert said in str(error.value)


def test_a_folder_of_tasks_is_its_groups_and_single_tasks(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_yaml="task: a\ndataset_path: json\n",
        b_yaml="task: b\ndataset_path: json\n",
        g_yaml="group: g\ntask: [a]\n",
    )
    assert [one.name for one in tasks.check(asked(str(tmp_path)))] == ["b", "g"]


@pytest.fixture
def drafts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders lie: in one that another user may enter, which pytest's own do not allow."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_programs_are_judged_and_held_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drafts: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    programs = {
        "right": "assert 1 + 1 == 2",
        "wrong": "assert 1 + 1 == 3",
        "hungry": "x = bytearray(1 << 31)",
        "forking": "import os\nwhile True: os.fork()",
        "threads": "import threading; threading.Thread(target=print).start()",
        "filling": "import os\nfor n in range(1000): open(f'{os.getcwd()}/{n}', 'w').write('x' * 1000000)",
        "folders": "import os; os.mkdir('one')",
        "quits": "raise SystemExit(0)",
        "slips": "import os; os._exit(0)",
        "reads": "assert input()",
        "spies": "import os; assert not set(os.environ) - {'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'LC_CTYPE'}",
        "main": "if __name__ == '__main__': raise ValueError",
    }
    if "no sight of other processes" in code.held_back():
        programs["kills"] = "import os, signal; os.kill(-1, signal.SIGKILL)"
    found = dict(zip(programs, code.run(list(programs.values())), strict=True))
    assert {name for name, each in found.items() if each.passed} == {"right", "spies", "main"}, found
    assert found["wrong"].cause.startswith("AssertionError") and "MemoryError" in found["hungry"].cause
    assert "BlockingIOError" in found["forking"].cause
    if "no network" in code.held_back():
        assert not code.run([f"import socket; socket.create_connection({address}, 1)"])[0].passed
    server.close()
    monkeypatch.setattr(code, "SECONDS", 1)
    assert code.run(["while True: pass"])[0].cause == "more than 1 s of processor time"
    monkeypatch.setattr(code, "WALL", 1)
    assert code.run(["import time; time.sleep(60)"])[0].cause == "not finished in 1 s"
    assert list(drafts.glob("mlops_llm-program-*")) == [] and kept.read_text() == "kept"


def test_pass_at_k_is_the_unbiased_estimate() -> None:
    found = Programs()
    docs = [{"prompt": "def f():\n", "test": "def check(f): assert f() == 1", "entry_point": "f"}]
    made = found.build([["    return 1", "    return 2", "    return 1", "    return 3"]], docs)
    test = ["def check(f): assert f() == 1\ncheck(f)"]
    got = found.pass_at_k(test, made, [1, 2, 8])
    assert got == pytest.approx({"pass@1": 0.5, "pass@2": 1 - (2 / 4) * (1 / 3)})
    causes = [found.cause(f"{each}\n{test[0]}") for each in made[0]]
    assert causes == ["", "AssertionError", "", "AssertionError"] and found.cause("never run") == ""
    assert found.build_instruct([["    return 1\n```\nthat is it"]], docs) == [["def f():\n    return 1\n"]]


class Asking:
    def __init__(self, *args: Any) -> None:
        self.args = args


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    requests = [Asking("a", {"until": ["x"]}), Asking("b", {"until": ["x"]}), Asking("a", {"until": ["x"]}), Asking("c", {})]
    book = Book(tmp_path / "book.jsonl", "test")

    def dies(missing: list[Any]) -> list[Any]:
        book.add_partial("generate_until", requests[0].args, "A")
        book.cut.add("a")
        book.flush()
        book.add_partial("generate_until", requests[1].args, "B")  # of a batch that was not written yet
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        book.answered("generate_until", requests, dies)
    book.close()
    again, seen = Book(tmp_path / "book.jsonl", "test"), []

    def answers(missing: list[Any]) -> list[Any]:
        for each in missing:
            seen.append(each.args[0])
            if each.args[0] == "c":
                again.failed("generate_until", each.args, "", Failure(Class.timeout, "slow", 3.0))
            else:
                again.add_partial("generate_until", each.args, {"b": "B", "a": "A again"}[each.args[0]])
        return ["B", "A again", ""]

    assert again.answered("generate_until", requests, answers) == ["A", "B", "A again", ""] and seen == ["b", "a", "c"]
    again.close()
    third, seen = Book(tmp_path / "book.jsonl", "test"), []

    def refused(missing: list[Any]) -> list[Any]:
        seen.extend(each.args[0] for each in missing)
        third.failed("generate_until", missing[0].args, "", Failure(Class.refused, "no", 3.0))
        return [""]

    assert third.answered("generate_until", requests, refused) == ["A", "B", "A again", ""]
    assert seen == ["c"] and (third.asked, third.resumed, third.cut) == (1, 3, {"a"}), "what may pass is asked again"
    third.close()
    last = Book(tmp_path / "book.jsonl", "test")
    assert last.answered("generate_until", requests, dies) == ["A", "B", "A again", ""]
    told = last.about("generate_until", requests[3].args)
    assert told.failure.kind is Class.refused and told.seconds == told.failure.seconds == 3.0
    assert (last.asked, last.resumed) == (0, 4)
    last.close()


def test_a_program_that_did_not_pass_says_why(tmp_path: Path) -> None:
    one = Task("humaneval", Path("humaneval.yaml"), {"unsafe_code": True}, ())
    row = {"doc_id": 0, "arguments": [["def f():", {}]], "resps": [[" a", " b", " c"]], "target": "check(f)"}
    row |= {"filtered_resps": [["a", "b", "c"]], "filter": "create_test", "metrics": ["pass@1"], "pass@1": 1 / 3, "doc": {}}
    causes = {"a\ncheck(f)": "AssertionError", "c\ncheck(f)": "more than 5 s of processor time"}
    results = {
        "results": {"humaneval": {"pass@1,create_test": 0.5}},
        "group_subtasks": {},
        "n-samples": {"humaneval": {"effective": 3}},
        "samples": {
            "humaneval": [row, {**row, "doc_id": 1, "filtered_resps": [["a"]]}, {**row, "doc_id": 2, "filtered_resps": [["b"]]}]
        },
    }
    told = Findings(Wanted("humaneval", ("humaneval",), tmp_path, (one,)), asked("humaneval"), results, "")
    book = Book(tmp_path / "book.jsonl", "test")
    samples = told.samples(book, None, lambda program: causes.get(program, ""))
    book.close()
    said = ["AssertionError (1 of 3); more than 5 s of processor time (1 of 3)", "AssertionError", ""]
    assert [each.comment for each in samples] == said
    assert all(list(each.scores) == ["humaneval/pass@1"] for each in samples), "named as the score of all is"
    nothing = Outcome("", "", "", "", [], [], {})
    outcome = running.added(nothing, [running.Found("humaneval[3]", [], samples[1:], [], {}, [], {})])
    (grid,) = outcome.tables.values()
    assert grid.title == "humaneval[3]: why programs did not pass" and grid.rows == [["AssertionError", 1, "2"]]
    printed = [str(each) for each in shown.lines(outcome)]
    assert any("AssertionError" in each for each in printed) and "AssertionError" in page(outcome)
    assert shown.columns(outcome)["comment"] == ["AssertionError", ""]
    bare = [each.bare for each in samples]
    assert running.added(nothing, [running.Found("humaneval[3]", [], bare, [], {}, [], {})]).tables == {}
