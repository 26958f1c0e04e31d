from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlops_llm.entry import config
from mlops_llm.entry.arguments import as_typed, first_choices, quote, read, swept
from mlops_llm.eval.__main__ import STAGE as EVAL
from mlops_llm.registry.__main__ import STAGE as REGISTRY
from mlops_llm.train.__main__ import STAGE as TRAIN

TRICKY = "中文，。 ab1>#~()[]{}'\"\\,:=$%@!?&|*;/.-+^`<\t你"
printable = st.characters(exclude_categories=("Cc", "Cs"))
texts = st.text(st.one_of(st.sampled_from(TRICKY.replace("\t", "")), printable), max_size=20)
# Words that Hydra reads neither as numbers nor as null or true, and that hold no mark of its lists.
words = st.text(st.sampled_from("数据集销售>#~()é。"), min_size=1, max_size=6)


def parse(override: str):
    return OverridesParser.create().parse_override(override)


def value(override: str, multirun: bool = False):
    return parse(quote(override, multirun)).value()


def sweep(override: str) -> list[object]:
    parsed = parse(quote(override, multirun=True))
    assert parsed.is_sweep_override()
    return [parse(f"x={each}").value() for each in parsed.sweep_string_iterator()]


def hydra_takes(text: str) -> bool:
    try:
        return not parse(f"x={text}").is_sweep_override()
    except HydraException:
        return False


@settings(max_examples=100)
@given(texts)
def test_any_text_that_hydra_refuses_arrives_as_it_was_typed(text):
    if hydra_takes(text):
        assert quote(f"x={text}") == f"x={text}"
    elif text[:1] not in ("[", "{"):
        assert value(f"x={text}") == text


@settings(max_examples=60)
@given(st.text(st.sampled_from("ab1 数'\"\\"), min_size=1, max_size=8), st.sampled_from(["", "中", ",", "#"]))
def test_quotes_and_backslashes_arrive_as_they_were_typed(text, odd):
    assume(not hydra_takes(text + odd))
    assert value(f"x={text}{odd}") == text + odd


@given(texts)
def test_quoting_twice_changes_nothing(text):
    once = quote(f"x={text}")
    assert quote(once) == once


@given(st.lists(words, min_size=1, max_size=4))
def test_a_list_of_odd_words_stays_a_list(items):
    assert value(f"x=[{','.join(items)}]") == items
    assert value(f"x=[{','.join(items)}]", multirun=True) == items


@given(st.lists(words, min_size=2, max_size=4))
def test_in_a_multirun_commas_separate_odd_words(items):
    assume(all("(" not in item and ")" not in item for item in items))
    assert sweep(f"x={','.join(items)}") == items


@pytest.mark.parametrize(
    "text",
    [
        "数据.jsonl",
        "加了 100 行",
        "a>b",
        "a#b",
        "~/模型",
        "f(x)",
        "#",
        "it's",
        "a'中",
        "中\\",
        "中\\\\'x",
        '说"好"',
        "a=b",
        "a,b",
        "中,",
    ],
)
def test_people_type_what_they_mean(text):
    assert value(f"op.note={text}") == text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("[数据,b]", ["数据", "b"]),
        ("[ '中,文' , b>c ]", ["中,文", "b>c"]),
        ("{a:1,b:中}", {"a": 1, "b": "中"}),
        ("{a:[中,文],b:{c:>}}", {"a": ["中", "文"], "b": {"c": ">"}}),
        ("[{a:中},{b:文}]", [{"a": "中"}, {"b": "文"}]),
        ("{prompt:问题,response:回答}", {"prompt": "问题", "response": "回答"}),
        ("{a:'中:文',b:2}", {"a": "中:文", "b": 2}),
        ("[1,2.5,null,true,中]", [1, 2.5, None, True, "中"]),
        ("[]", []),
        ("1e-3", 0.001),
        ("null", None),
    ],
)
def test_lists_dicts_and_numbers_keep_their_types(typed, meant):
    assert value(f"x={typed}") == meant
    assert value(f"x={typed}", multirun=True) == meant


def test_a_comma_is_text_in_a_single_run_and_a_sweep_in_a_multirun():
    assert value("x=早,晚") == "早,晚"
    assert value("x=1e-4,1e-3") == "1e-4,1e-3"
    assert sweep("x=早,b>c,3") == ["早", "b>c", 3]
    assert sweep("x='早,晚',夜") == ["早,晚", "夜"]


@pytest.mark.parametrize("override", ["~peft", "~x=中", "a.b", "+x=1", "hydra/launcher=joblib", "x="])
def test_what_is_no_value_is_left_alone(override):
    assert quote(override) == override


@pytest.mark.parametrize(
    ("override", "jobs"), [("x=choice(早,晚)", ["早", "晚"]), ("x=数据(一,二),b", ["数据(一,二)", "b"])], ids=["choice", "text"]
)
def test_parentheses_hold_together_in_a_multirun(override, jobs):
    assert sweep(override) == jobs


def test_a_sweep_over_lists_with_odd_words():
    assert sweep("x=[1,b],[c]") == [[1, "b"], ["c"]]
    assert sweep("x=[早,b],[c>d]") == [["早", "b"], ["c>d"]]
    assert sweep("x={a:早},{a:晚}") == [{"a": "早"}, {"a": "晚"}]


@pytest.mark.parametrize("text", ["加了 100 行 > #1 (~)", "it's 中\\", "a,b", "'单'引号 \"双\""])
def test_a_composed_config_holds_the_text(text):
    from mlops_llm.train.__main__ import STAGE

    config.register(STAGE.name, STAGE.schema, STAGE.packages)
    assert config.composed("train", [quote(f"run_name={text}")]).run_name == text


def test_flags_and_overrides_are_sorted():
    found = read(["-m", "seed=1,2", "--cfg", "job", "--resolve", "model=tiny"])
    assert found.flags == ["-m", "--cfg", "job", "--resolve"]
    assert found.overrides == ["seed=1,2", "model=tiny"]
    assert found.multirun
    assert found.informs


@pytest.mark.parametrize(
    ("argv", "flags", "overrides"),
    [
        (["--info", "searchpath", "seed=1"], ["--info", "searchpath"], ["seed=1"]),
        (["--info", "seed=1"], ["--info"], ["seed=1"]),
        (["--info", "--resolve"], ["--info", "--resolve"], []),
        (["-c", "job"], ["-c", "job"], []),
        (["--config-name=other", "a=1"], ["--config-name=other"], ["a=1"]),
        (["--cfg"], ["--cfg"], []),
    ],
)
def test_flags_take_their_values(argv, flags, overrides):
    found = read(argv)
    assert (found.flags, found.overrides) == (flags, overrides)


def test_help_and_multirun_are_seen():
    assert read(["-h"]).help
    assert read(["--help"]).help
    assert not read(["seed=1"]).help
    assert read(["--multirun"]).multirun
    assert read(["hydra.mode=MULTIRUN"]).multirun
    assert not read(["-m"]).informs
    assert not read(["seed=1"]).informs


@pytest.mark.parametrize(
    ("argv", "overrides"),
    [
        (["--lr", "3"], ["lr=3"]),
        (["--trainer.learning_rate=1e-3"], ["trainer.learning_rate=1e-3"]),
        (["--note", "加了 行"], ["note='加了 行'"]),
        (["--last"], ["last="]),
        (["--overrides", "seed=1 model=tiny"], ["seed=1", "model=tiny"]),
        (["--overrides=seed=1 model=tiny", "peft=lora"], ["seed=1", "model=tiny", "peft=lora"]),
        (["--overrides", "note='a b' x=[1,2]"], ["note=a b", "x=[1,2]"]),
        (["--overrides", ""], []),
        (["--overrides"], []),
    ],
)
def test_what_mlflow_projects_hand_over(argv, overrides):
    assert read(argv).overrides == overrides


def test_flags_within_overrides_count():
    found = read(["--overrides", "-m seed=1,2"])
    assert found.multirun
    assert found.overrides == ["seed=1,2"]


def test_an_open_quote_in_overrides_is_the_users_mistake():
    from mlops_llm.errors import UserError

    with pytest.raises(UserError):
        read(["--overrides", "note=it's"])


def test_an_empty_word_after_a_flag():
    assert read(["--info", ""]).flags[0] == "--info"


def test_an_experiment_is_composed_at_the_top_and_shown_as_typed():
    for typed in ("+experiment=sft_sales", "experiment=sft_sales"):
        (override,) = read([typed]).overrides
        assert override == "+experiment@_global_=sft_sales"
        assert as_typed(override) == "+experiment=sft_sales"
    assert read(["+experiment=sft_sales"]).value("experiment") == "sft_sales"


def test_the_last_value_of_a_setting_counts():
    found = read(["seed=1", "+run_name=中 文", "seed=2", "seeds=3"])
    assert found.value("seed") == "2"
    assert found.value("run_name") == "中 文"
    assert found.value("model") is None


def test_a_value_is_what_was_typed():
    assert read(["output=it's"]).value("output") == "it's"


def test_each_swept_value_is_composed_once():
    overrides = read(["-m", "lr=1,2", "model=tiny", "note=早,b"]).overrides
    assert swept(overrides) == ["lr", "note"]
    lines = first_choices(overrides)
    seen = [[parse(item).value() for item in line] for line in lines]
    assert seen == [[1, "tiny", "早"], [2, "tiny", "早"], [1, "tiny", "b"]]


def test_a_column_is_named_by_its_field():
    (override,) = read(["read.columns.prompt=问题"]).overrides
    assert override == "++read.columns.prompt=问题" or override == "++read.columns.prompt='问题'"
    assert as_typed(override).startswith("read.columns.prompt=")
    config.register(TRAIN.name, TRAIN.schema, TRAIN.packages)
    composed = config.composed(
        "train", ["dataset=x", *read(["read.columns.prompt=问题", "read.columns.response=答 案"]).overrides]
    )
    assert dict(composed.read.columns) == {"prompt": "问题", "response": "答 案"}


def test_a_dimension_of_a_judge_is_named_by_the_user():
    config.register(EVAL.name, EVAL.schema, EVAL.packages)
    words = ["judge=rubric_zh", "judge.dimensions=[politeness,accuracy]", "judge.meanings={politeness: 是否友好}"]
    composed = config.composed("eval", read([*words, "judge.labels.politeness=礼貌"]).overrides)
    assert composed.judge.meanings.politeness == "是否友好" and composed.judge.labels.politeness == "礼貌"
    assert as_typed(read(words).overrides[2]).startswith("judge.meanings={politeness")


@pytest.mark.parametrize("name", ["2026_11_25", "2026_11", "1_0.jsonl"])
def test_a_name_of_digits_and_underscores_stays_a_name(name):
    """Python, and so Hydra, reads 2026_11 as the number 202611."""
    for typed in (f"run_name={name}", f"dataset={name}"):
        (override,) = read([typed]).overrides
        assert OverridesParser.create().parse_override(override).value() == name
    (steps,) = read(["trainer.max_steps=1_000"]).overrides
    assert int(OverridesParser.create().parse_override(steps).value()) == 1000


@pytest.mark.parametrize("word", ["true", "false"])
def test_a_command_that_is_called_as_yes_and_no_are_is_that_command(word):
    config.register(REGISTRY.name, REGISTRY.schema, REGISTRY.packages)
    config.name_runs("test")
    words = read(["op=promote", "hook=[command]", f"hook.command.run={word}"]).overrides
    hook = config.typed(config.composed("registry", words)).hook["command"]
    hook.check()
    assert hook.run == word
