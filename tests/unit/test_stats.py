from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data import stats, tokens
from mlops_llm.data.kinds import Kind
from mlops_llm.data.language import LANGUAGES, SCRIPTS, counts, languages
from mlops_llm.data.rows import Record
from mlops_llm.data.stats import measure, summarised, usable


class Words:
    """A tokenizer for tests: a token for each character, in the tokenizer's own form."""

    @property
    def backend_tokenizer(self):
        return self

    def encode_batch_fast(self, texts, add_special_tokens):
        assert not add_special_tokens
        return [text.encode("utf-8").decode("utf-8") for text in texts]


def measured(*rows, kind=Kind.sft):
    return measure([Record(line, row) for line, row in enumerate(rows, 1)], kind, Words())


def test_lengths_turns_and_duplicates_are_counted_over_the_rows_that_can_be_used():
    chat = {"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}] * 2}
    found = measured(
        {"prompt": "你好", "response": "您好啊"}, {"response": "您好啊", "prompt": "你好"}, chat, {"prompt": "x"}, None
    )
    assert (found.rows, found.skipped, found.duplicates) == (3, 2, 1)
    assert list(found.lengths["prompt"]) == [2, 2, 5]  # turns are joined by a new line
    assert list(found.lengths["response"]) == [3, 3, 3]
    assert found.turns == {2: 2, 4: 1}
    assert found.languages == {"zh": 2, "en": 1}
    assert sum(found.scripts.values()) == 5 + 5 + 6


@pytest.mark.parametrize(
    ("kind", "row", "lengths", "turns"),
    [
        (Kind.dpo, {"prompt": "a", "chosen": "bb", "rejected": "ccc"}, {"prompt": [1], "chosen": [2], "rejected": [3]}, 2),
        (
            Kind.dpo,
            {
                "conversations": [
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                    {"from": "human", "value": "c"},
                ],
                "chosen": {"from": "gpt", "value": "dd"},
                "rejected": {"from": "gpt", "value": "e"},
            },
            {"prompt": [5], "chosen": [2], "rejected": [1]},
            4,
        ),
        (Kind.grpo, {"question": "1+1", "answer": "so\n#### 2"}, {"prompt": [3], "solution": [1]}, 1),
        (Kind.ppo, {"prompt": "a"}, {"prompt": [1]}, 1),
        (Kind.eval, {"prompt": "a"}, {"prompt": [1], "reference": [0]}, 1),
        (Kind.kto, {"prompt": "a", "response": "b", "label": True}, {"prompt": [1], "response": [1]}, 2),
    ],
)
def test_each_kind_has_its_answers(kind, row, lengths, turns):
    found = measured(row, kind=kind)
    assert {name: list(values) for name, values in found.lengths.items()} == lengths
    assert found.turns == {turns: 1}


def test_labels_are_counted_and_lone_surrogates_do_not_stop_it():
    rows = [{"prompt": "a\ud800", "reference": "b", "label": label} for label in ("x", "y", "x")]
    assert measured(*rows, kind=Kind.eval).labels == {"x": 2, "y": 1}
    both = [{"prompt": str(number), "response": "b", "label": number > 0} for number in range(3)]
    assert measured(*both, kind=Kind.kto).labels == {"True": 2, "False": 1}


def test_usable_rows_come_with_their_lines():
    rows = [Record(1, {"instruction": "a", "output": "b"}), Record(2, None), Record(5, {"prompt": "x"})]
    assert list(usable(rows, Kind.sft)) == [(1, {"prompt": "a", "response": "b"})]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("今天天气很好，适合出门。", "zh"),
        ("请用 Python 写一个快速排序", "zh"),
        ("The weather is nice today.", "en"),
        ("今日はいい天気ですね", "ja"),
        ("오늘 날씨가 좋네요", "ko"),
        ("Сегодня хорошая погода", "ru"),
        ("الطقس جميل اليوم", "ar"),
        ("翻译：the weather is nice today", "mixed"),
        ("1 + 1 = 2", "none"),
        ("", "none"),
    ],
)
def test_languages_are_told_by_script(text, language):
    assert LANGUAGES[languages(counts([text]))[0]] == language


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_scripts_of_texts_together_are_those_of_each_alone(texts):
    together = counts(texts)
    assert together.shape == (len(texts), len(SCRIPTS))
    for row, text in zip(together, texts, strict=True):
        assert (row == counts([text])[0]).all()
        assert row.sum() == len(text) - sum(text.count(blank) for blank in " \n\u3000")


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_summaries_are_in_order_and_percentiles_occur(values):
    found = summarised(values)
    assert found["min"] <= found["p50"] <= found["p95"] <= found["max"]
    assert {found["p50"], found["p95"]} <= set(values)
    assert found["mean"] == pytest.approx(sum(values) / len(values))


def test_no_values_have_no_summary():
    assert summarised([]) == {}


@pytest.mark.parametrize("values", [[5], [0, 0, 0], list(range(2000))])
def test_histograms_are_pictures(values):
    out = io.BytesIO()
    stats.histogram("prompt: tokens a row", values, mark=3).savefig(out)
    assert out.getvalue().startswith(b"\x89PNG")


def test_chunks_hold_every_item_once():
    assert [list(each) for each in tokens.chunks(range(5), 2)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("values", "p50", "p95"), [([1, 2, 3, 4], 2, 4), ([1, 9], 1, 9), (list(range(1, 101)), 50, 95), ([7], 7, 7)]
)
def test_percentiles_are_the_nearest_rank(values, p50, p95):
    found = summarised(values)
    assert (found["p50"], found["p95"]) == (p50, p95)


def test_labels_beyond_the_first_are_counted_together():
    rows = [Record(n, {"prompt": f"q{n}", "label": f"l{n}"}) for n in range(60)]
    found = measure(rows, Kind.eval, tokens.tokenizer("tiny"))
    assert found.labels["(all others)"] == 10 and sum(found.labels.values()) == 60
