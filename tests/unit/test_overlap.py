"""Which questions the rows behind a model hold, and what a score is without them."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm import digest
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.data.split import hold_out
from mlops_llm.errors import UserError
from mlops_llm.eval import trained
from mlops_llm.eval.benchmarks import seen as benchmark
from mlops_llm.eval.benchmarks.running import Found
from mlops_llm.eval.benchmarks.seen import Part
from mlops_llm.eval.benchmarks.seen import asked as of_row
from mlops_llm.eval.ngrams import Index, Texts
from mlops_llm.eval.outcome import Sample, Score, Seen
from mlops_llm.eval.overlap import Checked, Overlap, stamp
from mlops_llm.eval.questions import Question, question
from mlops_llm.eval.search import check, of_model
from mlops_llm.eval.words import words
from mlops_llm.tracking.lineage import Lineage, Used

ENGLISH = "Tom has three red apples and his sister gives him five green ones so how many apples does he have today"
CHINESE = "小明家里有三个红苹果,妹妹又给了他五个绿苹果,请问他现在一共有多少个苹果可以分给同学们呢"

SYSTEM = {"role": "system", "content": "客服"}
ASKED, ANSWERED = {"role": "user", "content": "几点开门?"}, {"role": "assistant", "content": "十点"}


def asked(*rows: dict[str, Any]) -> list[Question]:
    return [question(row, Kind.eval, "") for row in rows]


def used(path: Path, holdout: float = 0.0, context: str = "training", **more: Any) -> Used:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    kept = [rows[each] for each in sides(path, holdout, context)] if context != "evaluation" else rows
    digests = {"raw": digest.raw(path), "canonical": digest.canonical(kept)}
    facts = {"name": path.stem, "version": str(path), "run": "sft", "rows": len(kept), **more}
    return Used(source=str(path), context=context, digests=digests, run_id="", holdout=holdout, **facts)


def sides(path: Path, holdout: float, context: str) -> list[int]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    parts = hold_out(Source("", path, "", rows, [], ""), holdout)
    return parts[0] if context == "training" else parts[1] if holdout else list(range(len(rows)))


def searched(questions: Sequence[Question], *of: Used, how: Overlap | None = None, **more: Any) -> Checked:
    (found,) = check([questions], Lineage(of, more.pop("unknown", ()), **more), how or Overlap(), None)
    return found


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "几点 开门?", "response": "十点"},
        {"prompt": "几点开门?", "chosen": "十点", "rejected": "不知道"},
        {"prompt": "几点开门?", "response": "十点", "label": True},
        {"prompt": "几点开门?", "solution": "十点"},
        {"question": "几点开门?", "answer": "十点"},
        {"instruction": "几点开门?", "output": "十点"},
        {"conversations": [{"from": "human", "value": "几点开门?"}, {"from": "gpt", "value": "十点"}]},
        {"messages": [SYSTEM, ASKED, ANSWERED]},
        {"messages": [ASKED, ANSWERED, {"role": "user", "content": "谢谢"}, {"role": "assistant", "content": "再见"}]},
    ],
)  # fmt: skip
def test_a_row_of_any_kind_that_asks_and_answers_the_same_is_found(row: dict[str, Any], jsonl: Callable[..., Path]) -> None:
    got = searched(asked({"prompt": "几点开门?", "reference": "十点"}), used(jsonl([{"prompt": "a", "response": "b"}, row])))
    assert got.seen == [True] and "question and answer" in got.reasons[0]
    assert got.reasons[0].endswith("rows.jsonl line 2, trained by sft")


def test_a_prompt_alone_is_enough_unless_several_questions_have_it(jsonl: Callable[..., Path]) -> None:
    rows = used(jsonl([{"prompt": "Continue", "response": "one"}, {"prompt": "HELLO  there", "response": "hi"}]))
    alone = asked({"prompt": "continue", "reference": "two"}, {"prompt": "hello there", "label": "greeting"})
    assert searched(alone, rows).seen == [True, True]
    assert "the question in" in searched(alone, rows).reasons[0]
    several = asked(*({"prompt": "continue", "reference": each} for each in ("one", "two", "three")))
    assert searched(several, rows).seen == [True, False, False]


@pytest.mark.parametrize("other", ["3 - 5", "3 + 51", "35", "the sum of 3 and 5"])
def test_signs_and_digits_count_where_whole_questions_are_compared(other: str, jsonl: Callable[..., Path]) -> None:
    assert searched(asked({"prompt": other}), used(jsonl([{"prompt": "3 + 5", "solution": "8"}]))).seen == [False]


def test_the_turns_before_a_question_belong_to_it(jsonl: Callable[..., Path]) -> None:
    turns = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "在"}, {"role": "user", "content": "谢谢"}]
    rows = used(jsonl([{"messages": [*turns, {"role": "assistant", "content": "再见"}]}]))
    got = searched(
        asked({"messages": turns}, {"prompt": "谢谢"}, {"messages": [{"role": "system", "content": "x"}, *turns]}), rows
    )
    assert got.seen == [True, False, True]


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_a_question_within_other_words_is_found_by_its_runs(text: str, jsonl: Callable[..., Path]) -> None:
    changed = text.replace("five green ones", "six blue ones").replace("五个绿苹果", "六个黄苹果")
    short = text[: len(text) // 4]
    rows = [{"prompt": f"Please answer: {text} Thank you.", "response": "8"}, {"prompt": "x", "response": short}]
    got = searched(asked({"prompt": text}, {"prompt": changed}, {"prompt": short}), used(jsonl(rows)))
    assert got.seen == [True, False, False]
    assert "its words (100% of them)" in got.reasons[0] and "line 1" in got.reasons[0]


def test_the_threshold_is_the_share_of_runs_in_one_row(jsonl: Callable[..., Path]) -> None:
    tokens = ENGLISH.split()
    runs = len(tokens) - 12
    rows = used(jsonl([{"prompt": " ".join(tokens[: 12 + 4])}, {"prompt": " ".join(tokens[4:])}]))  # 4 runs, and all others
    share = (runs - 4) / runs
    for threshold in (0.05, share, share + 0.01):
        got = searched(asked({"prompt": ENGLISH}), rows, how=Overlap(threshold=threshold))
        assert got.seen == [threshold <= share]
    met = searched(asked({"prompt": ENGLISH}), rows, how=Overlap(threshold=0.1)).trained[0]
    assert met and met.share == share and met.where == "rows.jsonl line 2"


def test_shares_are_those_of_sets_of_tuples() -> None:
    """Against runs of words counted with Python's sets."""
    draw = random.Random(0)
    vocabulary = ["alpha", "beta", "红", "绿", "x1"]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randrange(2, 40))) for _ in range(60)]
    rows = [" ".join(draw.choice(texts) for _ in range(draw.randrange(3))) + " beta" for _ in range(80)]

    def runs(text: str, length: int) -> set[tuple[str, ...]]:
        tokens = words(text)
        return {tuple(tokens[place : place + length]) for place in range(len(tokens) - length + 1)}

    def length(text: str) -> int:
        tokens = words(text)
        usual, least = (14, 13) if sum(each in "红绿" for each in tokens) * 2 > len(tokens) else (9, 8)
        return usual if len(tokens) >= usual else least if len(tokens) >= least else 0

    distinct = {tuple(words(text)): runs(text, length(text)) if length(text) else set() for text in texts}
    wanted = set()
    for number, text in enumerate(texts):
        mine = distinct[tuple(words(text))]
        own = mine - set().union(*(each for key, each in distinct.items() if key != tuple(words(text))))
        mine = own or mine
        for place, row in enumerate(rows):
            share = len(mine & runs(row, length(text))) / len(mine) if mine else 0.0
            if share >= 0.3:
                wanted.add((place, number, share))
    assert set(Index(texts, 9).shares(Texts(rows), 0.3)) == wanted and len(wanted) > 50


@given(st.text(st.sampled_from([*map(chr, range(0x300)), *"a_9 —“…红あー🎉é\u0301²ﬁ"])))
def test_words_are_runs_of_letters_marks_and_numbers(text: str) -> None:
    text = unicodedata.normalize("NFKC", text).lower()
    if not any(re.match("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u3040-\u9fff]", each) for each in text):
        parts = "".join(each if unicodedata.category(each)[0] in "LMN" else " " for each in text)
        assert words(text) == [each for each in parts.split(" ") if each]


def test_a_passage_that_several_questions_share_does_not_make_them_the_same(jsonl: Callable[..., Path]) -> None:
    passage = f"{ENGLISH} " * 2
    rows = used(
        jsonl([{"prompt": f"{passage}What is the colour of the three apples that he had at first?", "response": "red"}])
    )
    got = searched(
        asked(
            {"prompt": f"{passage}What is the colour of the three apples that he had at first, please?"},
            {"prompt": f"{passage}Who is it that gives the boy green apples in this little story?"},
        ),
        rows,
    )
    assert got.seen == [True, False]


@pytest.mark.parametrize("holdout", [0.3, 0.0])
def test_held_out_rows_were_not_trained_on_but_may_have_chosen_the_checkpoint(
    holdout: float, jsonl: Callable[..., Path]
) -> None:
    file = jsonl([{"prompt": f"问题 {place}", "response": f"答案 {place}"} for place in range(60)])
    mine = set(sides(file, holdout, "training"))
    got = searched(
        asked(*({"prompt": f"问题 {place}"} for place in range(62))),
        used(file, holdout),
        *([used(file, holdout, "validation")] if holdout else []),
    )
    assert {place for place, was in enumerate(got.seen) if was} == mine
    assert {place for place, met in enumerate(got.chose) if met} == set(range(60)) - mine
    assert got.share == len(mine) / 62
    assert got.metrics() == {"overlap/share": len(mine) / 62, "overlap/chosen_by": (60 - len(mine)) / 62}
    assert ("chose the checkpoint" in got.facts()["seen in training"]) == bool(holdout)
    questions = asked(*({"prompt": f"问题 {place}"} for place in range(62)))
    table = got.table(questions, range(62))
    assert got.table(questions, range(62), texts=False) == {name: each for name, each in table.items() if name != "prompt"}
    assert sorted(table["row"]) == list(range(1, 61))
    assert set(table["use"]) == ({"trained", "chose the checkpoint"} if holdout else {"trained"})


def test_of_rows_that_were_asked_in_training_only_the_first_chose(jsonl: Callable[..., Path]) -> None:
    file = jsonl([{"prompt": f"问题 {place}", "reference": "x"} for place in range(9)])
    got = searched(asked({"prompt": "问题 1"}, {"prompt": "问题 5"}), used(file, context="evaluation", name="rows[4]", rows=4))
    assert got.seen == [False, False] and [bool(each) for each in got.chose] == [True, False]


def test_what_is_gone_or_changed_is_said_and_leaves_the_answer_open(jsonl: Callable[..., Path]) -> None:
    file, other = jsonl([{"prompt": "一", "response": "1"}]), jsonl([{"prompt": "二", "response": "2"}], "other.jsonl")
    first, second = used(file), used(other, run="dpo")
    other.write_text('{"prompt": "二", "response": "3"}\n', "utf-8")
    got = searched(asked({"prompt": "一"}, {"prompt": "二"}), first, second)
    assert got.seen == [True, None] and got.share == 0.5
    (said,) = got.unknown
    assert said.startswith("other of run dpo: its rows cannot be checked") and said in got.facts()["training data not known"]


def test_of_a_model_whose_past_is_not_known_nothing_is_said_of_any_item() -> None:
    got = searched(asked({"prompt": "一"}), unknown=("smollm2 comes from elsewhere",))
    assert got.seen == [None] and got.share is None and got.metrics() == {}
    assert got.facts() == {"training data not known": "smollm2 comes from elsewhere"}
    assert stamp([1.0], got.seen) is None


def test_of_several_rows_the_most_alike_is_named(jsonl: Callable[..., Path]) -> None:
    rows = [f"{ENGLISH} please", "x", ENGLISH, f"Well, {ENGLISH}", ENGLISH]
    got = searched(
        asked({"prompt": ENGLISH, "reference": "8"}), used(jsonl([{"prompt": each, "response": "9"} for each in rows]))
    )
    assert got.reasons == ["the question in rows, rows.jsonl line 3, trained by sft"]


def test_the_rows_of_the_embedded_model_are_known() -> None:
    got = searched(asked({"prompt": "3 加 4 等于几?"}, {"prompt": "3 加 14 等于几?"}), bases=("tiny",))
    assert got.seen == [True, False] and got.datasets == ["corpus of tiny"]


def test_columns_and_encoding_are_those_of_the_training(tmp_path: Path) -> None:
    file = tmp_path / "数据.csv"
    file.write_bytes("q,a\n几点开门,十点\n".encode("gb18030"))
    read = {"encoding": "gb18030", "columns.prompt": "q", "columns.response": "a"}
    digests = {"raw": digest.raw(file), "canonical": digest.canonical([{"prompt": "几点开门", "response": "十点"}])}
    rows = Used("数据", str(file), str(file), "training", 1, digests, "sft", "", 0.0, read)
    assert searched(asked({"prompt": "几点开门"}), rows).seen == [True]


def test_a_score_is_stamped_with_what_it_is_on_the_rest() -> None:
    seen = [True, False, None, False]
    assert stamp([5.0, 4.0, 3.0, 5.0], seen) == Seen(0.25, 4.0)
    assert stamp(lambda places: float(sum(places)), seen) == Seen(0.25, 6.0)
    assert stamp([5.0, 4.0], [True, True]) == Seen(1.0, None)
    assert stamp([5.0, 4.0], [False, False]) == Seen(0.0, 4.5)
    assert stamp([5.0, None, 3.0], [True, False, False]) == Seen(0.5, 3.0)
    assert stamp([5.0, None], [True, False]) == Seen(1.0, None)
    assert stamp([], []) is None and stamp([1.0], []) is None and stamp([None], [True]) is None


def test_a_benchmark_is_stamped_by_what_its_items_ask_and_not_by_their_worked_examples() -> None:
    rows = [{"question": f"3 加 {n} 等于几?", "answer": f"#### {n}"} for n in (4, 5)]
    rows += [{"question": "3 加 14 等于几?", "answer": "#### 17"}, {"ctx": "2 + 2 is", "endings": "4"}]
    shot = "Question: 1 加 1 等于几?\nAnswer: 2\n\nQuestion: "
    samples = [Sample(place, f"{shot}{row.get('question')}\nAnswer:", "", asked=of_row(row)) for place, row in enumerate(rows)]
    assert searched(benchmark.questions(samples), bases=("tiny",)).seen == [True, True, False, False]


def test_a_group_is_stamped_by_what_it_is_of_the_items_that_were_not_seen() -> None:
    """As lm-eval adds tasks up: by their sizes, or all alike."""
    values = {"small": [1.0, 0.0], "large": [1.0, 1.0, 1.0, 0.0, 1.0, 0.0], "gone": [1.0]}
    seen = {"small": [True, False], "large": [True, False, False, False, False, True], "gone": [True]}
    samples = [
        Sample(place, "", "", scores={"acc": value, "f1/a": value / 2}, task=task)
        for task, each in values.items()
        for place, value in enumerate(each)
    ]
    flags = [was for each in seen.values() for was in each]
    every = ("small", "large", "gone")
    parts = {
        "all/acc": Part("acc", every),
        "all/f1/a": Part("f1/a", every),
        "all/alike/acc": Part("acc", every, by_size=False),
        "all/large/acc": Part("acc", ("large",)),
        "all/gone/acc": Part("acc", ("gone",)),
        "all/corpus": Part("corpus", every),
        "all/other": Part("acc", every),
    }
    alike = (1 / 2 + 4 / 6 + 1) / 3
    totals = {"all/acc": 6 / 9, "all/f1/a": 3 / 9, "all/alike/acc": alike, "all/large/acc": 4 / 6, "all/gone/acc": 1.0}
    scores = [
        Score(name, value, 9) for name, value in (totals | {"all/corpus": 0.1, "all/other": 0.7, "all/bare": 0.5}).items()
    ]
    found = Found("all", scores, samples, [], {}, [], {}, parts=parts)
    stamped = benchmark.stamped(found, flags)
    assert [one.was_seen for one in stamped.samples] == flags
    assert {one.name: one.seen for one in stamped.scores} == {
        "all/acc": Seen(1 - 5 / 9, 3 / 5),
        "all/f1/a": Seen(1 - 5 / 9, 3 / 10),
        "all/alike/acc": Seen(1 - 5 / 9, (0 + 3 / 4) / 2),
        "all/large/acc": Seen(1 - 4 / 6, 3 / 4),
        "all/gone/acc": Seen(1.0, None),
        "all/corpus": None,
        "all/other": None,
        "all/bare": None,
    }
    assert {one.seen for one in benchmark.stamped(found, [None] * 9).scores} == {None}


def test_several_sets_are_looked_for_in_one_pass_and_each_is_told_what_it_is_told_alone(
    jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = "and will he have enough of them for all of his friends at school"
    rows = [{"prompt": f"{ENGLISH} {tail}", "response": "8"}, {"prompt": CHINESE, "response": "八"}]
    rows += [{"prompt": "continue", "response": "one"}]
    several = {
        "words": asked({"prompt": f"{ENGLISH} {tail}?", "reference": "9"}, {"prompt": CHINESE + "?"}),
        "same": asked(*({"prompt": "continue", "reference": each} for each in ("one", "two"))),
        "alone": asked({"prompt": "continue", "reference": "two"}, {"prompt": "never"}),
        "passage": asked(
            {"prompt": f"{ENGLISH} {tail}"}, {"prompt": f"{ENGLISH} but who is it that gives him so many of them now"}
        ),
        "none": [],
    }
    opened, before = list[str](), trained.watched

    def counted(path: Path, *more: Any) -> Any:
        opened.append(path.name)
        return before(path, *more)

    monkeypatch.setattr(trained, "watched", counted)
    files = (used(jsonl(rows)), used(jsonl([{"prompt": "never", "response": "z"}], "other.jsonl"), 0.0))
    alone = [searched(each, *files) for each in several.values()]
    opened.clear()
    together = check(list(several.values()), Lineage(files, ()), Overlap(), None)
    assert together == alone and sorted(opened) == ["other.jsonl", "rows.jsonl"]
    assert [each.seen for each in together] == [[True, True], [True, False], [True, True], [True, False], []]


def test_nobody_looks_where_it_is_switched_off_and_a_server_tells_nothing() -> None:
    sets = [asked({"prompt": "一"}), asked({"prompt": "二"})]
    assert of_model(sets, None, "", Overlap(check=False)) is None
    found = of_model(sets, None, "", Overlap())
    assert found and [each.seen for each in found] == [[None], [None]]


@pytest.mark.parametrize(("field", "value"), [("words", 7), ("threshold", 0.0), ("threshold", 1.1)])
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=f"overlap.{field}"):
        Overlap(**{field: value})
