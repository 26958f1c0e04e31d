"""The decision is a function of policy and evidence, and the way back a function of the history."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlops_llm.component import plain, rebuilt
from mlops_llm.errors import UserError
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.eval.recorded import Recorded
from mlops_llm.registry.decision import Beside, Evidence, Value, decide
from mlops_llm.registry.evidence import _beside
from mlops_llm.registry.listing import columns
from mlops_llm.registry.policy import Demand, Floor, Policy
from mlops_llm.registry.rollback import target
from mlops_llm.tracking.champions import PROMOTE, ROLLBACK, Move, reign
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.registered import Measured, ModelRow, VersionRow

numbers = st.floats(-100, 100)
values = st.none() | st.builds(Value, numbers, st.booleans(), st.just("run"))


def ordered(gain: float, below: float, above: float, p: float) -> Beside:
    return Beside(gain, gain - below, gain + above, p, 30, "test")


besides = st.none() | st.builds(ordered, numbers, st.floats(0, 50), st.floats(0, 50), st.floats(0, 1))
floors = st.lists(st.tuples(st.builds(Floor, st.just("score/x"), st.just("set"), st.none(), numbers), values), max_size=3)


@st.composite
def cases(draw) -> tuple[Policy, Evidence]:
    both = draw(floors)
    policy = Policy(
        dataset=draw(st.none() | st.just("set")),
        demand=draw(st.sampled_from(Demand)),
        margin=draw(st.floats(0, 10)),
        floors=[floor for floor, _ in both],
        certificate=draw(st.booleans()),
        sign_off=draw(st.integers(0, 2)),
        own_code=draw(st.booleans()),
    )
    if policy.dataset:
        policy = dataclasses.replace(
            policy, overlap=draw(st.none() | st.floats(0, 1)), agreement=draw(st.none() | st.floats(-1, 1))
        )
    evidence = Evidence(
        2,
        draw(st.none() | st.just(1)),
        draw(values),
        draw(values),
        draw(besides),
        [value for _, value in both],
        draw(st.sampled_from(["", "passed", "failed", "not measured"])),
        draw(st.sampled_from(["", "merge_slerp"])),
        draw(st.none() | st.floats(0, 1)),
        draw(st.none() | st.floats(-1, 1) | st.just(math.nan)),
        draw(st.lists(st.sampled_from(["a", "b", "c"]))),
        code=draw(st.sampled_from(["", "0123456789abcdef"])),
    )
    return policy, evidence


@given(cases())
def test_it_is_promoted_exactly_when_every_demand_is_met(case):
    policy, evidence = case
    found = decide(policy, evidence)
    demands = (policy.dataset is not None) + len(policy.floors) + policy.certificate
    demands += (policy.overlap is not None) + (policy.agreement is not None) + bool(policy.sign_off)
    demands += bool(evidence.code)
    assert len(found.checks) == demands and found.passed == all(each.passed for each in found.checks)
    assert found.reasons and all(each.said for each in found.checks)
    checks = {each.name: each.passed for each in found.checks}
    if evidence.primary is None and policy.dataset:
        assert not checks["primary"], "what is not known does not pass"
    if policy.dataset and evidence.champion and evidence.beside and evidence.primary and evidence.of_champion:
        beside = evidence.beside
        better = beside.gain > 0 and beside.p <= 0.05
        assert checks["primary"] == (better if policy.demand is Demand.better else beside.low >= -policy.margin)
    if policy.certificate:
        assert checks["certificate"] == (evidence.certificate == "passed" or not (evidence.operation or evidence.certificate))
    if evidence.code:
        assert checks["own code"] == policy.own_code
    if policy.sign_off:
        assert checks["sign-off"] == (len(set(evidence.signed)) >= policy.sign_off)


@given(cases(), st.floats(0, 20))
def test_a_policy_that_asks_less_never_refuses_more(case, less):
    policy, evidence = case
    if not decide(policy, evidence).passed:
        return
    lower = [
        dataclasses.replace(each, bound=each.bound - less if value.higher_is_better else each.bound + less)
        for each, value in zip(policy.floors, evidence.floors, strict=True)
    ]
    asks_less = dataclasses.replace(policy, floors=lower, margin=policy.margin + less, sign_off=max(0, policy.sign_off - 1))
    assert decide(asks_less, evidence).passed
    for name, empty in {"certificate": False, "overlap": None, "agreement": None, "sign_off": 0, "own_code": True}.items():
        assert decide(dataclasses.replace(policy, **{name: empty}), evidence).passed


@given(cases())
def test_evidence_that_goes_missing_never_helps(case):
    policy, evidence = case
    before = decide(policy, evidence).passed
    for name in ("primary", "overlap", "agreement"):
        assert decide(policy, dataclasses.replace(evidence, **{name: None})).passed <= before
    if evidence.champion:
        assert decide(policy, dataclasses.replace(evidence, beside=None)).passed <= before


@given(cases())
def test_a_policy_survives_json(case):
    policy, _ = case
    assert rebuilt(Policy, plain(policy)["settings"]) == policy


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"margin": -1.0}, "policy.margin"),
        ({"overlap": 1.5, "dataset": "x"}, "policy.overlap"),
        ({"overlap": 0.5}, "policy.overlap: asks for rows"),
        ({"agreement": 2.0, "dataset": "x"}, "policy.agreement"),
        ({"limit": 0}, "policy.limit"),
        ({"sign_off": -1}, "policy.sign_off"),
    ],
)
def test_settings_out_of_range_are_refused(settings, error):
    with pytest.raises(UserError, match=error):
        Policy(**settings)


def recorded(name: str, right: list[float], *, higher: bool) -> Recorded:
    samples = [Sample(at, f"q{at}", "a", ("r",), scores={"x": value}) for at, value in enumerate(right)]
    score = Score("x", sum(right) / len(right), len(right), higher, signature="s", most=1.0)
    outcome = Outcome(name, name, "set", "hf", [score], samples, {})
    facts = {"model": {"name": name}, "texts": True, "settings": {}, "metrics": {}, "dataset": {"name": "set"}}
    return Recorded(RunRow(name, name, "0", "p", "FINISHED", {}, {}, {}), facts, outcome)


@pytest.mark.parametrize("higher", [True, False])
def test_a_gain_is_one_whichever_end_is_the_good_one(higher):
    good, bad = ([1.0] * 20, [0.0] * 15 + [1.0] * 5) if higher else ([0.0] * 20, [1.0] * 15 + [0.0] * 5)
    up = _beside([recorded("own", good, higher=higher), recorded("champion", bad, higher=higher)], "score/x", 0)
    down = _beside([recorded("own", bad, higher=higher), recorded("champion", good, higher=higher)], "score/x", 0)
    assert up.gain == 0.75 and up.p < 0.001 and 0 < up.low < up.gain <= up.high
    assert (down.gain, down.low, down.high) == pytest.approx((-up.gain, -up.high, -up.low))
    with pytest.raises(UserError, match="score/y"):
        _beside([recorded("a", good, higher=higher), recorded("b", bad, higher=higher)], "score/y", 0)


def moved(steps: list[tuple[str, int]]) -> list[Move]:
    moves, now = list[Move](), None
    for kind, version in steps:
        moves.append(Move(len(moves) + 1, kind, version, now, None, "run", "id", "me", "now", "why"))
        now = version
    return moves


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.data())
def test_rollbacks_go_back_one_by_one_and_never_forth(versions, data):
    versions = [each for place, each in enumerate(versions) if place == 0 or each != versions[place - 1]]
    assume(len(versions) > 1)
    moves = moved([(PROMOTE, each) for each in versions])
    back = data.draw(st.integers(1, len(versions) - 1))
    for place in range(back):
        tags = {f"registry.history.{each.number:06d}": _json(each) for each in moves}
        to = target(ModelRow("m", {"champion": moves[-1].version}, tags), set(versions))
        assert to == versions[-2 - place], "also where a version was the champion more than once"
        moves.append(Move(len(moves) + 1, ROLLBACK, to, moves[-1].version, None, "run", "id", "me", "now", "why"))
    assert reign(moves) == versions[: len(versions) - back]


def _json(move: Move) -> str:
    return json.dumps(dataclasses.asdict(move))


def test_what_was_deleted_is_passed_over_and_what_was_moved_by_hand_counts():
    moves = moved([(PROMOTE, 1), (PROMOTE, 2), (PROMOTE, 3)])
    tags = {f"registry.history.{each.number:06d}": _json(each) for each in moves}
    assert target(ModelRow("m", {"champion": 3}, tags), {1, 3}) == 1
    assert target(ModelRow("m", {"champion": 7, "previous": 2}, tags), {1, 2, 3, 7}) == 3
    back = {f"registry.history.{each.number:06d}": _json(each) for each in moved([(PROMOTE, 1), (PROMOTE, 2), (PROMOTE, 1)])}
    assert target(ModelRow("m", {"champion": 1}, back), {1, 2}) == 2
    with pytest.raises(UserError, match="had no champion before"):
        target(ModelRow("m", {"champion": 1}, back), {1})
    with pytest.raises(UserError, match="had no champion before"):
        target(ModelRow("m", {"champion": 3}, tags), {3})
    with pytest.raises(UserError, match="has no champion"):
        target(ModelRow("m", {}, {}), {1})


def test_the_scores_that_are_shown_are_those_of_the_policy_on_the_rows_that_most_were_asked():
    def version(number: int, *measured: tuple[str, str, str]) -> VersionRow:
        told = tuple(Measured(name, dataset, rows, float(number), "run") for name, dataset, rows in measured)
        return VersionRow("m", number, (), 0, "", {}, "", None, told)

    old, new, other = ("score/bleu", "set", "old"), ("score/bleu", "set[4]", "new"), ("score/rouge_1", "else", "x")
    rows = [version(1, old, other), version(2, old, new, other), version(3, new, other), version(4, new, other)]
    (column,) = columns(rows, Policy(dataset="set@v1.0"))
    assert (column.head, column.digest) == ("bleu on set[4]", "new") and column.value(rows[0]) is None
    heads = [each.head for each in columns(rows, Policy(primary="score/nothing"))]
    assert heads == ["rouge_1 on else", "bleu on set[4]", "bleu on set"], "without any of the policy's, what most have"
