from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from mlops_llm.data import preview, tokens
from mlops_llm.data.kinds import Kind
from mlops_llm.data.preview import Seen, marked, painted, read, safe, seen
from mlops_llm.models import tiny
from mlops_llm.models.template import ensure

ASK, SAY = {"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import PreTrainedTokenizerFast  # seconds faster than by way of a model's configuration

    loaded = PreTrainedTokenizerFast.from_pretrained(tiny.folder())
    ensure(loaded, "tiny")
    return loaded


def plain(markup: str) -> str:
    return Text.from_markup(markup, emoji=False).plain


@pytest.mark.parametrize(
    ("kind", "row", "lines"),
    [
        (
            Kind.sft,
            {"prompt": "你好", "response": "您好", "system": "简短"},
            [("system", "简短"), ("user", "你好"), ("assistant", "您好")],
        ),
        (Kind.sft, {"messages": [ASK, SAY]}, [("user", "1+1"), ("assistant", "2")]),
        (
            Kind.sft,
            {"messages": [ASK, SAY], "system": "简短", "response": "x"},
            [("system", "简短"), ("user", "1+1"), ("assistant", "2")],
        ),
        (Kind.dpo, {"prompt": "q", "chosen": "a", "rejected": "b"}, [("user", "q"), ("chosen", "a"), ("rejected", "b")]),
        (Kind.kto, {"prompt": "q", "response": "a", "label": False}, [("user", "q"), ("assistant", "a"), ("label", "false")]),
        (Kind.grpo, {"prompt": "q", "solution": "2"}, [("user", "q"), ("solution", "2")]),
        (
            Kind.eval,
            {"prompt": "q", "reference": ["a", "b"], "label": "x"},
            [("user", "q"), ("reference", '["a", "b"]'), ("label", "x")],
        ),
        (Kind.ppo, {"prompt": "q"}, [("user", "q")]),
    ],
)
def test_rows_are_read_in_order_by_who_speaks(kind, row, lines):
    assert list(read(row, kind)) == lines
    shown = plain(marked(row, kind)).splitlines()
    assert [line.strip().partition("  ")[::2] for line in shown] == [(who, said) for who, said in lines]


def test_calls_of_tools_are_shown():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    row = {"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "2"}, SAY]}
    assert ("assistant", '→ {"name": "add", "arguments": {"a": 1}}') in list(read(row, Kind.sft))


def test_what_is_trained_is_the_answer_with_its_end_mark(tokenizer):
    (found,) = seen({"prompt": "1+1", "response": "2"}, Kind.sft, tokenizer, 512)
    assert found.pieces == [(False, "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n"), (True, "2<|im_end|>\n")]
    assert plain(painted(found)) == "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n⟦2<|im_end|>\n⟧"
    assert tokenizer.decode(found.ids) == "".join(text for _, text in found.pieces)
    assert 0 < found.trained < len(found.ids)


def test_both_sides_of_a_pair_are_seen_and_of_a_prompt_nothing_is_trained(tokenizer):
    pair = seen({"prompt": "q", "chosen": "a", "rejected": "b"}, Kind.dpo, tokenizer, 512)
    assert [one.name for one in pair] == ["chosen", "rejected"]
    assert [text for one in pair for trained, text in one.pieces if trained] == ["a<|im_end|>\n", "b<|im_end|>\n"]
    (prompt,) = seen({"prompt": "q", "solution": "2"}, Kind.grpo, tokenizer, 512)
    assert prompt.trained == 0
    assert prompt.pieces[-1][1].endswith("<|im_start|>assistant\n")


def test_a_system_text_beside_the_turns_and_an_answer_not_learned_are_seen_so(tokenizer):
    (found,) = seen({"messages": [ASK, {**SAY, "weight": 0}, ASK, SAY], "system": "s"}, Kind.sft, tokenizer, 512)
    assert found.pieces[0][1].startswith("<|im_start|>system\ns<|im_end|>")
    assert [text for trained, text in found.pieces if trained] == ["2<|im_end|>\n"]


def test_what_is_cut_is_counted(tokenizer):
    (whole,) = seen({"prompt": "1+1", "response": "2"}, Kind.sft, tokenizer, 512)
    (cut,) = seen({"prompt": "1+1", "response": "2"}, Kind.sft, tokenizer, 5)
    assert cut.ids == whole.ids[:5]
    assert cut.cut == len(whole.ids) - 5


def test_lengths_are_those_of_the_text_the_model_sees(tokenizer):
    row = {"prompt": "你好", "response": "您好"}
    (view,) = tokens.views(row, Kind.sft)
    (found,) = seen(row, Kind.sft, tokenizer, 512)
    assert tokens.lengths(tokenizer, [tokens.rendered(tokenizer, view)]) == [len(found.ids)]


def test_lone_surrogates_do_not_stop_it(tokenizer):
    assert tokens.lengths(tokenizer, ["a\ud800"]) == tokens.lengths(tokenizer, ["a?"])


TEXT = st.lists(
    st.sampled_from(["[", "]", "/", "\\", "red", "[/]", "[bold]", "\\[", "#x", "@", "\n", "\t", " ", ":100:", "你"]),
    max_size=10,
).map("".join)


@given(TEXT)
def test_brackets_in_texts_are_no_markup(text):
    assert plain(safe(text)) == text
    assert plain(marked({"prompt": text}, Kind.ppo)) == "     user  " + text.replace("\n", "\n" + " " * 11)


@given(st.lists(st.tuples(st.booleans(), TEXT), max_size=4))
def test_trained_tokens_are_told_apart_without_colours_too(pieces):
    shown = plain(painted(Seen("", pieces, [], 0, 0)))
    assert shown == "".join(f"⟦{text}⟧" if trained else text for trained, text in pieces)


def test_orders_to_a_terminal_are_shown_not_obeyed():
    assert safe("a\x1b]0;x\x07") == "a\\u001b]0;x\\u0007"


def test_long_texts_are_cut():
    assert plain(marked({"prompt": "x" * (preview.LONGEST + 5)}, Kind.ppo)).endswith("x… (5 more characters)")
