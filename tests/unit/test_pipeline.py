"""Flows without a record: their order, commands, hand-offs and conditions, and what is refused before anything begins."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm import order
from mlops_llm.entry import elsewhere, launch, resume
from mlops_llm.entry.arguments import quoted, split
from mlops_llm.errors import UserError
from mlops_llm.launch.place import Command
from mlops_llm.launch.places.queue import OnQueue
from mlops_llm.models import tiny
from mlops_llm.pipeline import condition, search, serving, words
from mlops_llm.pipeline.__main__ import STAGE
from mlops_llm.pipeline.arranged import arranged
from mlops_llm.pipeline.config import Method, Pipeline, Search, Server, Stage
from mlops_llm.pipeline.ended import Ended, State
from mlops_llm.pipeline.expected import left
from mlops_llm.pipeline.flow import Flow, checked, variables
from mlops_llm.pipeline.identity import identity, settings
from mlops_llm.pipeline.made import Made
from mlops_llm.pipeline.page import page
from mlops_llm.pipeline.verdict import Scored, Verdict, verdict
from mlops_llm.ports import free_port
from mlops_llm.surgery.__main__ import STAGE as SURGERY
from mlops_llm.tracking import opening, store
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.store import Store

ROOMS = ("data", "train", "eval", "surgery", "registry")


@dataclass(frozen=True)
class Known:
    """What a command is taken for here."""

    values: dict[str, Any] = field(default_factory=dict)
    fields: frozenset[str] = frozenset({"project", "seed"})
    folder: str = "output"
    records: bool = True
    resumes: bool = True
    variables: frozenset[str] = frozenset()


def compose(room: str, found: Sequence[str]) -> Known:
    return Known(records="op=list" not in found, variables=frozenset(each[4:] for each in found if each.startswith("key=")))


def flow(**stages: Stage) -> Flow:
    return checked(Pipeline(stages=stages, project="sales"), compose, ROOMS)


def stage(command: str, *needs: str, **more: Any) -> Stage:
    return Stage(command, needs=list(needs), **more)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Names that need earlier ones, in any order."""
    names = [f"s{each}" for each in range(draw(st.integers(1, 7)))]
    needs = {name: draw(st.lists(st.sampled_from(names[:at]), unique=True)) if at else [] for at, name in enumerate(names)}
    return {name: needs[name] for name in draw(st.permutations(names))}


@given(graphs())
def test_each_comes_after_what_it_needs_and_once(needs: dict[str, list[str]]) -> None:
    found = order.ordered(needs)
    assert sorted(found) == sorted(needs)
    assert all(found.index(before) < found.index(name) for name, each in needs.items() for before in each)


@given(st.lists(st.text("abc", min_size=1), unique=True))
def test_what_needs_nothing_stays_as_it_stands(names: list[str]) -> None:
    assert order.ordered({name: [] for name in names}) == names


def test_a_circle_is_named_from_where_it_closes() -> None:
    with pytest.raises(order.CircleError, match="a -> b -> c -> a"):
        order.ordered({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]})


def test_a_command_is_read_with_its_overrides() -> None:
    found = words.read("sft", Stage("train +experiment=sft_sales seed=1 note='a b'", overrides=["seed=2", "peft=lora"]), ROOMS)
    assert (found.room, found.settings) == ("train", ("+experiment=sft_sales", "seed=2", "note=a b", "peft=lora"))
    assert found.shown() == "python -m mlops_llm.train +experiment=sft_sales seed=2 'note=a b' peft=lora"


def test_handoffs_are_put_in_wherever_they_stand() -> None:
    found = words.read(
        "m", stage("eval models=[stage:a/best,stage:b-1,models:/x@y] run=stage:c/run url=server:r/rewards"), ROOMS
    )
    assert found.handoffs == [("a", "best"), ("b-1", ""), ("c", "run")] and found.servers == ["r"]
    put = found.put_in(lambda name, what: f"<{name}|{what}>", {"r": "http://127.0.0.1:5"})
    assert put.settings == ("models=[<a|best>,<b-1|>,models:/x@y]", "run=<c|run>", "url=http://127.0.0.1:5/rewards")


def test_a_model_that_two_stages_hand_on_is_compared_once() -> None:
    found = words.read("m", stage("eval op=compare models=[stage:a,stage:b,stage:c]"), ROOMS)
    assert found.put_in(lambda name, what: "x" if name < "c" else "y", {}).value("models") == "[x,y]"


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("lora == lora", True),
        ("none == lora", False),
        ("1e-3 < 0.01", True),
        ("stage:b/score/bleu > stage:a/score/bleu", True),
        ("stage:b/score/bleu > stage:a/score/bleu + 0.2", False),
        ("stage:b/score/bleu >= stage:a/score/bleu - 0.5", True),
        ("stage:a/score/bleu != 0.25", False),
    ],
)
def test_conditions(text: str, holds: bool) -> None:
    known = {"a": 0.25, "b": 0.375}
    found = condition.read(text, "when")
    verdict, said = found.holds(lambda name, what: known[name])
    assert verdict is holds and " is " in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("none == lora", "none is not lora"),
        ("none != none", "it is none"),
        ("full != none", "full is not none"),
        ("stage:a/x > 1", "stage:a/x 1 is not > 1"),
        ("stage:a/x >= 1", "stage:a/x 1 is >= 1"),
    ],
)
def test_what_is_said_of_a_condition(text: str, said: str) -> None:
    assert condition.read(text, "when").holds(lambda name, what: 1.0)[1] == said


@pytest.mark.parametrize("text", ["", "bleu", "a = b", "a > b c", "stage:a > 1"])
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(UserError):
        condition.read(text, "when")


def test_a_number_that_a_run_lacks_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no number 'score/blue' \(did you mean score/bleu\?\)"):
        condition.metric("score/blue", {"score/bleu": 1.0, "perf/seconds": 2.0}, "stage:eval")


def test_a_flow_is_put_in_order_and_its_commands_know_project_and_seed() -> None:
    found = flow(b=stage("eval model=stage:a/best", "a"), a=stage("train dataset=x seed=3"))
    assert [each.name for each in found.steps] == ["a", "b"]
    assert found.bare(found.steps[0]).settings == ("dataset=x", "seed=3", "project=sales")
    assert found.bare(found.steps[1]).settings == ("model=stage:a/best", "seed=0", "project=sales")


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({}, "stages: names no stages"),
        ({"a": stage("")}, "stages.a.command: names no command"),
        ({"a": stage("trian x=1")}, r"there is no stage 'trian' (did you mean train?)"),
        ({"a": stage("train note='x")}, "has an open quote"),
        ({"sft": stage("train"), "b": stage("eval", "stf")}, "stages.b.needs: there is no stage 'stf' (did you mean sft?)"),
        ({"a": stage("train", "b"), "b": stage("train", "a")}, "waits for itself: a -> b -> a"),
        ({"a": stage("train", "a")}, "waits for itself: a -> a"),
        ({"sft": stage("train"), "b": stage("eval model=stage:sft/best")}, "takes of stage 'sft', which it does not need"),
        ({"sft": stage("train"), "b": stage("eval model=stage:sfx", "sft")}, "which there is not (did you mean sft?)"),
        ({"a": stage("train", when="stage:b/x > 1"), "b": stage("train")}, "stages.a.when: takes of stage 'b'"),
        ({"a": stage("train run_name=x")}, "stages.a, run_name: is not for a stage"),
        ({"a": stage("train launch=queue")}, "stages.a, launch: is not for a stage; give it to the pipeline"),
        ({"a": stage("data op=list")}, "stages.a.command: leaves no run"),
        ({"a": stage("train url=server:rewards/x")}, "there is no server 'rewards'"),
        ({"a": stage("train", when="x")}, "stages.a.when: 'x' is no condition"),
        ({"b": stage("train"), "a": stage("train", "b", when="stage:b/x > much")}, "stages.a.when: 'much' is no number"),
        ({"a": stage("registry op=serve model=tiny")}, "stages.a.command: serves until it is stopped; add op.check=true"),
        ({"a": stage("train", retries=-1)}, "stages.a.retries: is -1; give a number from 0"),
        ({"a": stage("train", search=Search(Method.optuna, tries=0))}, "stages.a.search.tries: is 0"),
        (
            {"sft": stage("train"), "b": stage("eval model=stage:sft/winner", "sft")},
            "stages.b.command: takes the winner of stage 'sft', which compares nothing; name a stage with eval op=compare",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_begins(stages: dict[str, Stage], said: str) -> None:
    with pytest.raises(UserError) as refused:
        flow(**stages)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_model_that_a_first_stage_names_must_be_there() -> None:
    def named(room: str, found: Sequence[str]) -> Known:
        return Known(dict(each.split("=", 1) for each in found if "=" in each))

    def refused(**stages: Stage) -> str:
        try:
            checked(Pipeline(stages=stages), named, ROOMS)
        except UserError as error:
            return str(error)
        return ""

    assert refused(a=stage("train model=./nowhere")).startswith("stages.a, ./nowhere: ")
    assert not refused(a=stage("train model=tiny"), b=stage("surgery model=./made_by_a", "a"))
    assert not refused(a=stage("eval model=./a-server-s"), b=stage("train model=./nowhere", when="1 > 2"))


def test_a_stage_needs_also_what_its_needs_need() -> None:
    found = flow(a=stage("train"), b=stage("eval model=stage:a", "a"), c=stage("eval models=[stage:a,stage:b]", "b"))
    assert len(found.steps) == 3


def test_servers_are_part_of_what_a_stage_depends_on() -> None:
    settings = Pipeline(stages={"a": stage("train url=server:r/x")}, servers={"r": Server("python r.py --port {port}")})
    found = checked(settings, compose, ROOMS)
    assert found.bare(found.steps[0]).value("url") == "http://127.0.0.1:9/x"
    assert found.named(found.steps[0]).value("url") == "server:r/x", "as a person reads it in a plan"
    assert found.served_by(found.steps[0]) == "python r.py --port {port}"


def test_the_variables_of_a_flow_are_those_of_what_it_will_do() -> None:
    stages = {
        "b": stage("eval model=stage:a/best key=K2", "a"),
        "a": stage("train key=K1"),
        "c": stage("data key=K3", when="1 > 2"),
    }
    servers = {"r": Server("python r.py --api_key_env=K4 op.api_key_env=K5 --port {port}"), "s": Server("say 'x_env=K6")}
    assert variables(Pipeline(stages=stages, servers=servers), compose, ROOMS) == {"K1", "K2", "K4", "K5"}
    with pytest.raises(UserError, match="there is no stage 'trian'"):
        variables(Pipeline(stages={"a": stage("trian")}), compose, ROOMS)


def test_the_variables_of_a_search_are_those_of_each_choice() -> None:
    over = {"key": ["K1", "K2", "K3"], "trainer.learning_rate": [1e-4, 1e-2], "peft": ["none", "lora"]}
    one = Stage("train key=K0", search=Search(Method.optuna, over))
    assert variables(Pipeline(stages={"a": one}), compose, ROOMS) == {"K0", "K1", "K2", "K3"}
    without = Stage("train key=K0", search=Search(Method.none, over))
    assert variables(Pipeline(stages={"a": without}), compose, ROOMS) == {"K0"}
    assert [list(each.values()) for each in search.examples("a", one.search)] == [
        ["K1", "0.0001", "none"],
        ["K2", "0.0001", "none"],
        ["K3", "0.0001", "none"],
        ["K1", "0.0001", "lora"],
    ]
    with pytest.raises(UserError, match="has no two ends"):
        variables(Pipeline(stages={"a": Stage("train", search=Search(Method.optuna, {"seed": 3}))}), compose, ROOMS)


FLOW = """
stages:
  near: {command: data op=dedup_semantic dataset=own op.embedder=m op.threshold=0.9 op.base_url=http://x op.api_key_env=K1}
  judged: {command: eval model=stage:near dataset=own judge=mine judge.base_url=http://x, needs: [near]}
"""
JOBS = "jobs: {a: {op: sweep, judge: rubric_zh, judge.api_key_env: K9}}\n"
JUDGE = "defaults: [rubric_zh, _self_]\nmodel: m\napi_key_env: K2\n"


@pytest.fixture
def sent(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """Commands that are sent, without a record, from a folder with presets."""
    (here / "jobs.yaml").write_text(JOBS)
    for name, text in (("experiment/keys", FLOW), ("judge/mine", JUDGE), ("judge/other", JUDGE.replace("K2", "K8"))):
        file = here / f"conf/{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found: list[Command] = []
    monkeypatch.setattr(OnQueue, "send", lambda place, command: found.append(command) or [""])
    monkeypatch.setattr(elsewhere, "_tell", lambda said, link: None)
    return found


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ([], ("K1", "K2")),
        (["stages.judged.judge.api_key_env=K3"], ("K1", "K3")),
        (["-m", "stages.judged.judge.api_key_env=K3,K4"], ("K1", "K3", "K4")),
        (["-m", "stages.judged.limit=1,2", "stages.near.op.api_key_env=K5,K6"], ("K2", "K5", "K6")),
        (["stages.judged.search=optuna", "+stages.judged.search.over.judge=[mine,other]"], ("K1", "K2", "K8")),
        (["stages.near.command=surgery op=batch op.file=jobs.yaml"], ("K2", "K9")),
    ],
)
def test_keys_that_stages_and_their_presets_name_are_those_of_a_pipeline_that_is_sent(
    words: list[str],
    keys: tuple[str, ...],
    sent: list[Command],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(opening, "schedule", lambda opened: ("a1", "link"))
    code = launch(STAGE, ["+experiment=keys", "launch=queue", *words])
    assert (code, [each.variables for each in sent]) == (0, [keys]), capfd.readouterr().err


def test_keys_that_the_jobs_of_a_batch_name_are_those_of_a_batch_that_is_sent(
    sent: list[Command], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "schedule", lambda opened: ("a1", "link"))
    words = ["op=batch", "op.file=jobs.yaml", "judge=rubric_zh", "judge.api_key_env=K1", "launch=queue", "project=p"]
    assert (launch(SURGERY, words), [each.variables for each in sent]) == (0, [("K1", "K9")]), capfd.readouterr().err


def test_a_pipeline_that_goes_on_elsewhere_needs_the_keys_of_its_recorded_stages(
    sent: list[Command], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = SimpleNamespace(address="sqlite:////nowhere/mlflow.db", link=lambda *run: "link")
    begun = "stages: {near: {command: 'eval model=tiny dataset=own judge=mine judge.base_url=http://x'}}\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record.address)
    monkeypatch.setattr(store, "connect", lambda: record)
    monkeypatch.setattr(resume, "checked", lambda *asked, **how: row(folder=str(here)))
    monkeypatch.setattr(resume, "recorded_text", lambda store, run, name: begun)
    monkeypatch.chdir("/")  # the presets are where it was typed
    assert launch(STAGE, ["resume=p-a", "launch=queue"]) == 0
    assert [(each.words, each.variables) for each in sent] == [(("resume=p-a",), ("K2",))]


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        (["model=smollm2", "seed=3"], ["values.model=smollm2", "seed=3"]),
        (["+experiment=rlhf_short", "op=plan"], ["+experiment=rlhf_short", "op=plan"]),
        (["stages.sft.trainer.max_steps=2"], ["stages.sft.overrides=['trainer.max_steps=2']"]),
        (["stages.sft.note=it's", "stages.sft.seed=1"], [r"stages.sft.overrides=['note=it\'s','seed=1']"]),
        (["stages.sft.retries=2", "values.x=1"], ["stages.sft.retries=2", "values.x=1"]),
        (["stages.a.run=R"], ["stages.a.overrides=['run=R']"]),
        (["-m", "stages.a.seed=1,2"], ["-m", "stages.a.overrides=['seed=1'],['seed=2']"]),
        (["-m", "stages.a.metric=[x,y],[z]"], ["-m", "stages.a.overrides=['metric=[x,y]'],['metric=[z]']"]),
        (["stages.a.note=x,y"], ["stages.a.overrides=['note=x,y']"]),
    ],
)
def test_how_settings_of_stages_are_typed(typed: list[str], taken: list[str]) -> None:
    assert arranged(typed, split, quoted) == taken


def row(name: str = "p-a", **tags: str) -> RunRow:
    return RunRow("0" * 32, name, "1", "sales", "FINISHED", dict(tags), {}, {"score/bleu": 0.5})


def test_what_is_handed_on() -> None:
    merged = Made("m", row(), {"ref": "runs:/p-a/merged"})
    assert merged.handed("") == merged.handed("merged") == "runs:/p-a/merged" and merged.handed("run") == "p-a"
    rows = Made("d", row(), {"written": {"name": "sales_dedup", "version": "v1.1"}})
    assert rows.handed("dataset") == "sales_dedup@v1.1"
    assert Made("d", row(), {"version": "sales@v2.0 (current)"}).handed("dataset") == "sales@v2.0"
    assert Made("d", row(), {}, dataset="sales").handed("dataset") == "sales"
    out = Made("x", None, {}, model="runs:/b/best")
    assert out.handed("") == out.handed("best") == "runs:/b/best"
    with pytest.raises(UserError, match="was left out, and has no 'run'"):
        out.handed("run")
    compared = Made("c", row(), {"scores": {"a": {"length": 9, "bleu": 1.0}, "b": {"length": 1, "bleu": 2.0}}})
    assert compared.handed("winner") == "b" and compared.handed("result.scores.a.bleu") == "1.0"
    with pytest.raises(UserError, match=r"its result has no 'scores\.z'"):
        compared.handed("result.scores.z")


def test_a_deployment_is_there_as_long_as_its_folder(tmp_path: Path) -> None:
    made = Made("d", row(stage="registry"), {"ref": str(tmp_path), "folder": str(tmp_path / "deployment")})
    assert not made.is_there
    (tmp_path / "deployment").mkdir()
    assert made.is_there and made.handed("") == str(tmp_path)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("promoted", "models:/bot/2 (runs:/a/b) is the champion now: primary: 3 on 20 rows"),
        ("champion", "models:/bot/2 (runs:/a/b) is the champion: primary: 3 on 20 rows"),
        ("refused", "models:/bot/2 (runs:/a/b) is not promoted; the champion stays version 1: primary: 3 on 20 rows"),
    ],
)
def test_what_the_registry_decided_is_told_once_and_a_no_is_no_failure(verdict: str, said: str) -> None:
    from mlops_llm.pipeline.verdict import _decisions

    (step,) = flow(p=stage("registry op=promote name=bot version=2", decides=True)).steps
    told = {"verdict": verdict, "ref": "models:/bot/2", "champion": 1, "reasons": ["primary: 3 on 20 rows"]}
    ended = Ended(step, State.refused, Made("p", row(), told, model="runs:/a/b"))
    assert list(_decisions([ended])) == [said] and not ended.state.fails and not ended.state.good
    decided = page("p", "sales", [ended], Verdict([], decisions=[said]), {}, "1 s")
    assert said in decided and "refused 未获准" in decided


def test_what_was_never_set_beside_the_others_wins_nothing() -> None:
    found = flow(c=stage("eval op=compare models=[a,b]"), q=stage("surgery op=quantize_int8 model=b", "c"))
    compared = Made("c", row(stage="eval"), {"scores": {"a": {"bleu": 1.0}, "b": {"bleu": 2.0}}})
    packed = Made("q", replace(row(stage="surgery"), metrics={"score/bleu": 3.0}), {"ref": "q"})
    ended = [Ended(step, State.done, made) for step, made in zip(found.steps, (compared, packed), strict=True)]
    said = verdict(Store.__new__(Store), ended, "bleu")
    assert said.best and said.best.model == "b" and [each.model for each in said.scored] == ["a", "b", "q"]
    assert "q has 3, and was not compared with these" in said.why
    alone = verdict(Store.__new__(Store), ended[1:], "bleu")
    assert alone.best and alone.best.model == "q"
    mistyped = verdict(Store.__new__(Store), ended, "blue")
    assert mistyped.best is None and mistyped.why[0] == "no model has score/blue (did you mean score/bleu?), so none won"


def test_time_that_is_left() -> None:
    assert left([10.0, 20.0]) == "about 30 s" and left([None]) == "" and left([]) == ""
    assert left([60.0, None]) == "about 60 s and 1 of unknown time" and left([0.0, None]) == left([None]) == ""


def test_the_page_shows_texts_as_texts() -> None:
    found = flow(a=stage("train dataset=x"))
    ended = [Ended(found.steps[0], State.failed, reason="<script>alert(1)</script>", command="python -m x")]
    best = Scored("runs:/<b>/best", "a", {"score/bleu": 0.5})
    said = page("p", "sales", ended, Verdict([best], "score/bleu", best, ["since"]), {"a": "http://127.0.0.1:5000/#/x"}, "1 s")
    assert "<script>alert" not in said and "&lt;script&gt;" in said and "runs:/&lt;b&gt;/best" in said
    assert 'href="http://127.0.0.1:5000/#/x"' in said


def test_a_search_goes_the_same_way_again_and_gives_up_what_is_worse() -> None:
    pytest.importorskip("optuna")
    from mlops_llm.pipeline.search import Study, checked

    wish = Search(over={"trainer.learning_rate": [1e-4, 1e-1], "trainer.batch_size": [2, 8], "peft": ["none", "lora"]}, tries=6)
    checked("sft", wish)

    def course() -> list[tuple[dict[str, str], bool]]:
        study, found = Study(wish, seed=3, higher_is_better=False), []
        for number in range(6):
            settings = study.ask()
            given_up = study.report({step: float(number + step) for step in (1, 2)})
            study.tell(float(number), pruned=given_up)
            found.append((settings, given_up))
        return found

    first = course()
    assert first == course()
    assert [given_up for _, given_up in first] == [False, False, False, True, True, True]
    assert all(1e-4 <= float(each["trainer.learning_rate"]) <= 1e-1 and each["peft"] in ("none", "lora") for each, _ in first)
    assert {int(each["trainer.batch_size"]) for each, _ in first} <= set(range(2, 9))


@pytest.mark.parametrize(
    ("over", "said"),
    [({}, "varies nothing"), ({"seed": 3}, "has no two ends"), ({"seed": [3, 1]}, "write the smaller number first")],
)
def test_a_search_without_a_place_to_look_in_is_refused(over: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        flow(a=Stage("train", search=Search(Method.optuna, over)))


@pytest.mark.parametrize(("over", "key"), [({"lr": [0.1, 1.0]}, "lr"), ({"peft": ["none", "loar"]}, "peft")])
def test_what_a_search_varies_is_looked_at_before_anything_begins(over: dict[str, Any], key: str) -> None:
    pytest.importorskip("optuna")

    def knowing(room: str, found: Sequence[str]) -> Known:
        if (bad := next((each for each in found if each in ("lr=0.1", "peft=loar")), None)) is not None:
            raise UserError(f"{bad} is unknown", "here")
        return Known()

    settings = Pipeline(stages={"a": Stage("train", search=Search(Method.optuna, over))})
    with pytest.raises(UserError, match=rf"^stages\.a\.search\.over\.{key}: here: .* is unknown; name another setting"):
        checked(settings, knowing, ROOMS)


@pytest.mark.parametrize(("command", "said"), [("", "names no command"), ("python 'x", "has an open quote")])
def test_a_server_s_command_is_read_before_anything_begins(command: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"^servers\.r\.command: {said}"):
        checked(Pipeline(stages={"a": stage("train")}, servers={"r": Server(command)}), compose, ROOMS)


def test_what_a_stage_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    for file in (one, other):
        file.write_text('{"prompt": "a", "response": "b"}\n', "utf-8")
    given = {"dataset": str(one), "model": "tiny", "op.keep": 3, "output": "x", "run_name": "y", "launch.tries": 2}
    first = identity("data", given)
    assert first.inputs == identity("data", {**given, "dataset": str(other), "output": "z", "run_name": None}).inputs
    assert first.inputs == identity("data", {**given, "model": str(tiny.folder())}).inputs  # the same weights by another name
    assert first.settings == settings("data", {**given, "dataset": "stage:dedup/dataset", "model": "stage:sft/best"})
    other.write_text('{"prompt": "a", "response": "c"}\n', "utf-8")
    changed = identity("data", {**given, "dataset": str(other)})
    assert changed.inputs != first.inputs and changed.settings == first.settings
    assert {key for key in first.parts if first.parts[key] != changed.parts[key]} == {"dataset"}
    for more in ({"op.keep": 4}, {"op.new": 1}):
        assert identity("data", {**given, **more}).settings != first.settings
    assert identity("eval", given).inputs != first.inputs and identity("data", given, "a server").inputs != first.inputs
    (tmp_path / "jobs.yaml").write_text("a")
    named = identity("surgery", {"op.file": "jobs.yaml"})
    (tmp_path / "jobs.yaml").write_text("b")
    assert identity("surgery", {"op.file": "jobs.yaml"}).content != named.content
    assert identity("train", {"reward.http.url": "http://127.0.0.1:5/x"}) == identity(
        "train", {"reward.http.url": "http://127.0.0.1:9/x"}
    )


def test_a_server_whose_port_somebody_takes_first_gets_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as stranger:  # it answers while ours is starting
        threading.Thread(target=stranger.serve_forever, args=(0.01,), daemon=True).start()
        drawn = iter([stranger.server_address[1], free_port()])
        monkeypatch.setattr(serving, "free_port", lambda: next(drawn))
        server = Server("python -m http.server {port} --bind 127.0.0.1", "/", 60.0)
        with serving.served({"own": server}, ["own"], {}, tmp_path) as found:
            assert found["own"] != f"http://127.0.0.1:{stranger.server_address[1]}"
            with urlopen(found["own"]) as answer:
                assert answer.status == 200
        stranger.shutdown()
