from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data.chat import conversation
from mlops_llm.data.read import Source, read
from mlops_llm.errors import UserError
from mlops_llm.models import tiny
from mlops_llm.models.template import CHATML, IGNORED, PLAIN, encode, ensure, shows_tools, template_digest
from mlops_llm.train.algorithms.sft import SFT, LossOn

ASK, SAY = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
MARKS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
LONG = 10_000


def trained(marks: list[str]):
    """A byte-level tokenizer like that of tiny, made on the spot."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["user assistant system 2 + 2 = 4 你好，请问"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=marks[-1], pad_token=marks[-1])


@pytest.fixture(scope="module")
def real():
    """The tokenizer of tiny; its file is read by the class that needs no configuration of a model (seconds faster)."""
    if not (tiny.folder() / "tokenizer.json").is_file():
        made = trained(MARKS)
        made.chat_template = CHATML
        return made
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(tiny.folder())


@pytest.fixture
def tokenizer(real):
    return copy.deepcopy(real)


def answers(tokenizer, encoded) -> str:
    return tokenizer.decode([label for label in encoded.labels if label != IGNORED])


def masked_by_the_template(tokenizer, messages) -> tuple[list[int], list[int]]:
    """Ids and labels that transformers itself makes of a template with generation marks.

    The new line that these templates write behind the end mark is outside the marks. Ours counts it to the answer, as TRL
    does for prompt and completion (see the last test), so it is labelled here too.
    """
    got = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids, marks = list(got["input_ids"]), [bool(mark) for mark in got["assistant_masks"]]
    (new_line,) = tokenizer("\n", add_special_tokens=False)["input_ids"]
    for place in [at for at in range(1, len(ids)) if marks[at - 1] and not marks[at]]:
        assert ids[place - 1] == tokenizer.eos_token_id
        assert ids[place] == new_line
        marks[place] = True
    return ids, [token if mark else IGNORED for token, mark in zip(ids, marks, strict=True)]


CHATS = [
    [ASK, SAY],
    [{"role": "system", "content": "简短"}, ASK, SAY],
    [ASK, SAY, {"role": "user", "content": "再来\n一次 <|im_end|>"}, {"role": "assistant", "content": "  四。🎉\n\n"}],
    [ASK, {"role": "assistant", "content": ""}, ASK, SAY],
]


@pytest.mark.parametrize("messages", CHATS, ids=range(len(CHATS)))
def test_labels_are_those_of_the_templates_generation_marks(tokenizer, messages):
    encoded = encode(tokenizer, messages, max_tokens=LONG)
    assert (encoded.ids, encoded.labels) == masked_by_the_template(tokenizer, messages)
    assert encoded.cut == 0


content = st.text(st.one_of(st.sampled_from("12 +=?你好，。\nab🎉é"), st.characters(exclude_categories=("Cs",))), max_size=12)


# White space at the start may merge with the new line before it: see the next test.
@given(st.lists(st.tuples(content, content.map(lambda text: text.lstrip())), min_size=1, max_size=3))
def test_labels_of_any_conversation_are_those_of_the_marks(real, pairs):
    messages = [
        turn for ask, say in pairs for turn in ({"role": "user", "content": ask}, {"role": "assistant", "content": say})
    ]
    encoded = encode(real, messages, max_tokens=LONG)
    assert (encoded.ids, encoded.labels) == masked_by_the_template(real, messages)


def test_a_token_that_begins_before_the_answer_is_not_learned(real):
    """The prompt's last new line and the answer's first become one token where the tokenizer knows it."""
    messages = [ASK, {"role": "assistant", "content": "\n4"}]
    encoded = encode(real, messages, max_tokens=LONG)
    assert encoded.ids == masked_by_the_template(real, messages)[0]
    assert answers(real, encoded) in ("\n4<|im_end|>\n", "4<|im_end|>\n")


def test_ids_are_those_of_the_whole_text_and_answers_end_with_their_mark(tokenizer):
    for row in read("sales_sft_val").rows[:20]:
        messages = conversation(row, "here").messages
        encoded = encode(tokenizer, messages, max_tokens=LONG)
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert encoded.ids == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert answers(tokenizer, encoded) == row["response"] + "<|im_end|>\n"
        assert encoded.trained == sum(label != IGNORED for label in encoded.labels)
        prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        at_inference = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert encoded.ids[: len(at_inference)] == at_inference
        assert all(label == IGNORED for label in encoded.labels[: len(at_inference)])


def test_only_answers_are_learned_and_all_of_them(tokenizer):
    encoded = encode(tokenizer, CHATS[2], max_tokens=LONG)
    assert answers(tokenizer, encoded) == "4<|im_end|>\n  四。🎉\n\n<|im_end|>\n"


def test_the_whole_text_is_an_option(tokenizer):
    encoded = encode(tokenizer, CHATS[1], max_tokens=LONG, answers_only=False)
    assert encoded.labels == encoded.ids
    assert encoded.trained == len(encoded.ids) - 1


def test_a_long_row_is_cut_at_the_end_and_counted(tokenizer):
    whole = encode(tokenizer, CHATS[2], max_tokens=LONG)
    length = len(whole.ids)
    for most in (length + 1, length, length - 1, 3, 1):
        encoded = encode(tokenizer, CHATS[2], max_tokens=most)
        assert encoded.ids == whole.ids[:most]
        assert encoded.labels == whole.labels[:most]
        assert encoded.cut == max(0, length - most)
        assert encoded.trained == sum(label != IGNORED for label in whole.labels[:most][1:])


def test_a_conversation_that_begins_with_an_answer_is_refused_by_its_turns(tokenizer):
    with pytest.raises(UserError, match="turn"):
        encode(tokenizer, conversation({"messages": [SAY]}, "rows.jsonl line 1").messages, max_tokens=LONG)


def test_a_template_without_marks_gives_the_same_labels(tokenizer):
    marked = [encode(tokenizer, messages, max_tokens=LONG) for messages in CHATS]
    tokenizer.chat_template = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert [encode(tokenizer, messages, max_tokens=LONG) for messages in CHATS] == marked


def test_tools_reach_the_template(tokenizer):
    tokenizer.chat_template = "{% if tools %}{{ tools | length }} tools\n{% endif %}" + CHATML
    with_tools = encode(tokenizer, CHATS[0], tools=[{"type": "function", "function": {"name": "f"}}], max_tokens=LONG)
    assert tokenizer.decode(with_tools.ids).startswith("1 tools")
    assert answers(tokenizer, with_tools) == answers(tokenizer, encode(tokenizer, CHATS[0], max_tokens=LONG))


def test_a_template_that_refuses_is_told(tokenizer):
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
    )
    with pytest.raises(UserError, match=r"refuses this conversation .System role not supported"):
        encode(tokenizer, CHATS[1], max_tokens=LONG)


def test_a_template_that_rewrites_earlier_turns_is_told(tokenizer):
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] + ': ' }}"
        "{{ message['content'] if loop.last or message['role'] == 'user' else '(cut)' }}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    with pytest.raises(UserError, match="rewrites earlier turns") as caught:
        encode(tokenizer, CHATS[2], max_tokens=LONG)
    assert "algo.loss_on=whole" in caught.value.remedy
    assert answers(tokenizer, encode(tokenizer, CHATS[0], max_tokens=LONG)) == "4\n"


def test_the_whole_text_can_be_learned_where_earlier_turns_are_rewritten(tokenizer):
    content = "message['content'] if loop.last or message['role'] == 'user' else '(cut)'"
    tokenizer.chat_template = "{% for message in messages %}{{ " + content + " }}{% endfor %}"
    assert encode(tokenizer, CHATS[2], max_tokens=LONG, answers_only=False).trained


class TestEnsure:
    def test_an_own_template_is_kept(self, tokenizer):
        before = tokenizer.chat_template
        assert ensure(tokenizer, "tiny") == "own"
        assert tokenizer.chat_template == before

    def test_chatml_is_set_where_the_marks_are_known(self, tokenizer):
        tokenizer.chat_template = None
        assert ensure(tokenizer, "here") == "chatml"
        assert tokenizer.chat_template == CHATML
        assert answers(tokenizer, encode(tokenizer, CHATS[2], max_tokens=LONG)).endswith("<|im_end|>\n")

    def test_a_plain_one_is_set_elsewhere(self):
        plain = trained(["</s>"])
        assert ensure(plain, "here") == "plain"
        assert plain.chat_template == PLAIN
        text = plain.apply_chat_template(CHATS[1], tokenize=False)
        assert text == "System: 简短\nUser: 2 + 2?\nAssistant: 4</s>\n"

    @pytest.mark.parametrize("answer", ["4", "2 + 2"])
    def test_the_whole_answer_is_learned_with_the_plain_one(self, answer):
        plain = trained(["</s>"])
        ensure(plain, "here")
        encoded = encode(plain, [ASK, {"role": "assistant", "content": answer}], max_tokens=LONG)
        assert answers(plain, encoded).strip() == f"{answer}</s>"
        prompt = plain.apply_chat_template([ASK], tokenize=False, add_generation_prompt=True)
        at_inference = plain(prompt, add_special_tokens=False)["input_ids"]
        assert encoded.ids[: len(at_inference)] == at_inference

    def test_a_template_that_fails(self, tokenizer):
        for broken in ("{{ raise_exception('no\nway') }}", "{% for x %}", "{{ messages[9]['content'] }}"):
            tokenizer.chat_template = broken
            with pytest.raises(UserError, match="the chat template fails") as caught:
                ensure(tokenizer, "./model")
            assert str(caught.value).startswith("./model: ")

    def test_a_template_that_drops_messages(self, tokenizer):
        tokenizer.chat_template = "{{ messages[-1]['content'] }}"
        with pytest.raises(UserError, match=r"drops messages .'Ping zebra"):
            ensure(tokenizer, "./model")

    def test_the_template_of_another_model(self, tokenizer):
        tokenizer.chat_template = CHATML.replace("<|im_start|>", "<|start_header_id|>").replace("<|im_end|>", "<|eot_id|>")
        with pytest.raises(UserError, match=r"uses <\|eot_id\|>, which the tokenizer does not know as one token"):
            ensure(tokenizer, "./model")

    def test_the_template_of_gemma_in_another_model(self, tokenizer):
        tokenizer.chat_template = CHATML.replace("<|im_start|>", "<start_of_turn>").replace("<|im_end|>", "<end_of_turn>")
        with pytest.raises(UserError, match="end_of_turn"):
            ensure(tokenizer, "./model")

    def test_no_end_of_sequence_token(self):
        plain = trained(["</s>"])
        plain.eos_token = None
        with pytest.raises(UserError, match="has no end-of-sequence token"):
            ensure(plain, "./model")

    def test_the_digest_follows_the_template(self, tokenizer):
        before = template_digest(tokenizer)
        tokenizer.chat_template += " "
        assert template_digest(tokenizer) != before
        tokenizer.chat_template = None
        assert template_digest(tokenizer) != before


class TestSft:
    def source(self, *rows: dict) -> Source:
        return Source("rows", Path("rows.jsonl"), "v1", list(rows), [place * 10 for place in range(len(rows))], "")

    def test_chosen_rows_are_encoded_in_their_order(self, tokenizer):
        rows = [{"prompt": f"问 {place}", "response": f"答 {place}"} for place in range(4)]
        encoded = SFT().encode(tokenizer, self.source(*rows), [2, 0])
        assert [answers(tokenizer, one) for one in encoded] == ["答 2<|im_end|>\n", "答 0<|im_end|>\n"]
        whole = SFT(loss_on=LossOn.whole).encode(tokenizer, self.source(*rows), [2])
        assert whole[0].labels == whole[0].ids == encoded[0].ids

    def test_a_row_whose_answer_was_cut_away_is_left_out(self, tokenizer):
        rows = [{"prompt": "a" * 300, "response": "b"}, {"prompt": "a", "response": "b"}]
        encoded = SFT(max_tokens=40).encode(tokenizer, self.source(*rows), [0, 1])
        assert [answers(tokenizer, one) for one in encoded] == ["b<|im_end|>\n"]

    def test_no_trained_token_at_all_is_refused(self, tokenizer):
        row = {"prompt": "a" * 300, "response": "b"}
        longest = len(encode(tokenizer, conversation(row, "").messages, max_tokens=LONG).ids)
        with pytest.raises(UserError) as caught:
            SFT(max_tokens=5).encode(tokenizer, self.source(row, row), [0, 1])
        line = str(caught.value)
        assert "no row has a token to train on (2 of 2 rows were cut at 5 tokens)" in line
        assert f"raise algo.max_tokens (the longest row has {longest})" in line

    def test_a_bad_row_and_a_refused_one_are_named_by_line(self, tokenizer):
        good = {"prompt": "a", "response": "b"}
        with pytest.raises(UserError, match=r"^rows.jsonl line 20: has no field 'response'"):
            SFT().encode(tokenizer, self.source(good, good, {"prompt": "a"}), [0, 2])
        tokenizer.chat_template = "{% if messages[0]['content'] == 'no' %}{{ raise_exception('never') }}{% endif %}" + CHATML
        with pytest.raises(UserError, match=r"^rows.jsonl line 10: the chat template refuses .*never"):
            SFT().encode(tokenizer, self.source(good, {"prompt": "no", "response": "b"}), [0, 1])


@pytest.mark.slow
def test_ids_and_labels_are_those_that_trl_prepares(tmp_path):
    """Against TRL's own preparation by SFTTrainer, with the tokenizer that training uses."""
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from datasets import Dataset, disable_progress_bars
    from mlops_llm.models import load
    from mlops_llm.models.ref import resolve

    disable_progress_bars()
    tokenizer = load.tokenizer(resolve("tiny"))
    model = AutoModelForCausalLM.from_pretrained(tiny.folder())

    def prepared(rows: list[dict], **options) -> list[tuple[list[int], list[int]]]:
        settings = SFTConfig(
            output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_length=64, disable_tqdm=True, **options
        )
        trainer = SFTTrainer(model=model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        return [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]

    def ours(chats: list[list[dict]], **options) -> list[tuple[list[int], list[int]]]:
        coded = [encode(tokenizer, chat, max_tokens=64, **options) for chat in chats]
        # TRL, like ours (see TestSft), leaves out rows of whose answer nothing remains.
        return [(one.ids, one.labels) for one in coded if any(label != IGNORED for label in one.labels)]

    pairs = [conversation(row, "here").messages for ref in ("sales_sft_val", "math_sft") for row in read(ref).rows]
    pairs += [[ASK, {"role": "assistant", "content": "很长 " * 100}], [{"role": "system", "content": "简短"}, ASK, SAY]]
    got = ours(pairs)
    assert any(len(ids) == 64 for ids, _ in got)
    assert got == prepared([{"prompt": chat[:-1], "completion": chat[-1:]} for chat in pairs])

    several, rows = CHATS, [{"messages": chat} for chat in CHATS]
    assert ours(several) == [masked_by_the_template(tokenizer, chat) for chat in several]
    assert ours(several, answers_only=False) == prepared(rows)


CALL = {"type": "function", "function": {"name": "stock", "arguments": {"sku": "A1"}}}


def test_a_template_that_shows_no_tools_is_known(tokenizer):
    assert not shows_tools(tokenizer)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{{ tools | string }}{% for m in messages %}{{ m.content }}{{ m.tool_calls | string }}{% endfor %}"
    )
    assert shows_tools(tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no tools here') if tools }}"
    assert not shows_tools(tokenizer)


def test_a_call_without_words_is_an_empty_turn(tokenizer):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
             {"role": "tool", "content": "12"}, {"role": "assistant", "content": "b"}]  # fmt: skip
    empty = [{**turn, "content": turn["content"] or ""} for turn in turns]
    assert encode(tokenizer, turns, max_tokens=99) == encode(tokenizer, empty, max_tokens=99)
