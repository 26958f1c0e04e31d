"""What a comparison comes to, in sentences that are made from its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby, pairwise

from mlops_llm import console
from mlops_llm.eval import shown
from mlops_llm.eval.comparison import Comparison, Model, Pair, Row
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.report.chinese import reason
from mlops_llm.eval.significance import least

_CHEAPER = 0.95
"""A model is cheaper that takes at most this share of what another one does."""
_SAID: Mapping[Lang, Mapping[str, str]] = {
    Lang.en: {
        "best": "{model} is the best in {score}: {value}, significantly better than every other one "
        "(next is {other}, {gap} behind, {sure}).",
        "ahead": "In {score} {models} are ahead of the rest, but not told apart.",
        "open": "In {score} no model is significantly better than {models}; which of these is the best is not decided.",
        "equal": "In {score} no model is significantly better than another.",
        "mixed": "In {score} no model is better than all others.",
        "also": "{model} is also the best in {scores}.",
        "other": "{model} is the best in {scores}.",
        "cheaper": "{model} is cheaper than {other} ({costs}) and in no score significantly worse{loss}.",
        "loss": "; that it is {loss} worse in {score} is not ruled out",
        "paid": "Training on from step {step} to {next} ({model}, then {other}) paid: {score} is {gap} better ({sure}).",
        "harmed": "Training on from step {step} to {next} ({model}, then {other}) did harm: {score} is {gap} worse ({sure}).",
        "unclear": "Whether training on from step {step} to {next} ({model}, then {other}) paid cannot be told: {score} "
        "changed by {gap} ({sure}).",
        "undecided": "Undecided: {model} is {gap} ahead of {other} in {score} ({sure}); {samples}.",
        "samples": "about {count:,} samples like these would find a difference of this size in four of five cases",
        "tied": "Undecided: {model} and {other} are alike in {score} on these samples ({sure}).",
        "noise": "With {count:,} samples, gaps in {score} under {noise} are noise: fewer than four of five are found.",
        "failed": "{model} gave no answer to {failed} of {count} samples; each counts as an empty one.",
        "nothing": "No score could be compared: {why}.",
        "sure": "95 %: {low} to {high}, p {p}",
        "and": " and ",
        "comma": ", ",
        "colon": ": ",
        "stop": "; ",
        "to": "{low} to {high} (by pair)",
        "bytes": "{one} instead of {other} on disk",
        "seconds": "{one} instead of {other} s a sample",
    },
    Lang.zh: {
        "best": "{model} 的 {score} 最好：{value}，显著优于其他每个模型（其次是 {other}，差 {gap}，{sure}）。",
        "ahead": "{score}：{models} 领先其余模型，但彼此分不出高下。",
        "open": "{score}：没有哪个模型显著优于 {models}；其中哪个最好尚无定论。",
        "equal": "{score}：没有哪个模型显著优于另一个。",
        "mixed": "{score}：没有哪个模型优于所有其他模型。",
        "also": "{model} 在 {scores} 上也最好。",
        "other": "{model} 在 {scores} 上最好。",
        "cheaper": "{model} 比 {other} 便宜（{costs}），且没有一项得分显著更差{loss}。",
        "loss": "；但不能排除它的 {score} 差 {loss}",
        "paid": "从第 {step} 步继续训练到第 {next} 步（{model} → {other}）值得：{score} 改善 {gap}（{sure}）。",
        "harmed": "从第 {step} 步继续训练到第 {next} 步（{model} → {other}）有害：{score} 变差 {gap}（{sure}）。",
        "unclear": "从第 {step} 步继续训练到第 {next} 步（{model} → {other}）是否值得，尚不能判断："
        "{score} 变化 {gap}（{sure}）。",
        "undecided": "未定：{model} 的 {score} 比 {other} 好 {gap}（{sure}）；{samples}。",
        "samples": "这么大的差距约需 {count:,} 个同类样本才能五次里看出四次",
        "tied": "未定：这些样本上 {model} 与 {other} 的 {score} 相同（{sure}）。",
        "noise": "{count:,} 个样本下，{score} 小于 {noise} 的差距都是噪声：五次里看出不到四次。",
        "failed": "{model} 在 {count} 个样本中有 {failed} 个没有回答，均按空回答计。",
        "nothing": "没有可比较的得分：{why}。",
        "sure": "95 % 区间 {low} 到 {high}，p {p}",
        "and": " 与 ",
        "comma": "、",
        "colon": "：",
        "stop": "；",
        "to": "{low} 到 {high}（视模型对而定）",
        "bytes": "磁盘占用 {one}，而非 {other}",
        "seconds": "每个样本 {one} 秒，而非 {other} 秒",
    },
}


def sentences(found: Comparison, lang: Lang) -> list[str]:
    """Which model is best, which is cheaper and not worse, whether training on paid, what is undecided and would decide it.

    "Better" is only said of differences that are significant after Holm; what is not significant is called undecided, never
    equal.
    """
    head, said = found.head, _SAID[lang]
    if head is None:
        named = ((_label(found, each), reason(each.untested, lang)) for each in found.rows if each.untested)
        why = said["stop"].join(by_reason(named, said["comma"], said["colon"]))
        return [said["nothing"].format(why=why or "-")]
    told = [_best(found, head, said), *_others(found, head, said), *_cheaper(found, head, said)]
    trained = _trained(found)
    told += [_paid(found, head, one, other, said) for one, other in trained]
    told += [_undecided(found, head, each, said) for each in head.pairs if not each.is_significant]
    told += _failed(found, said)
    bounds = found.resolved(head)
    if bounds is None:
        return told
    low, high = (_number(head, each) for each in bounds)
    noise = low if low == high else said["to"].format(low=low, high=high)
    count = min(each.found.count for each in head.pairs)
    return [*told, said["noise"].format(count=count, score=_label(found, head), noise=noise)]


def chance(p: float) -> str:
    """A p as a person reads it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def by_reason(named: Iterable[tuple[str, str]], comma: str, colon: str) -> list[str]:
    """Each reason once, behind the names of all that it holds of.

    Args:
        named: names with their reasons.
        comma: between names.
        colon: between names and reason.
    """
    found = dict[str, list[str]]()
    for name, why in named:
        found.setdefault(why, []).append(name)
    return [f"{comma.join(dict.fromkeys(names))}{colon}{why}" for why, names in found.items()]


def leaders(row: Row) -> list[int]:
    """Numbers of the models that no other one is significantly better than."""
    return [one for one in row.numbers if not any(row.beats(other, one) for other in row.numbers if other != one)]


def _best(found: Comparison, head: Row, said: Mapping[str, str]) -> str:
    score, best = _label(found, head), head.best
    if best is not None:
        others = [each for each in head.numbers if each != best]
        near = min(others, key=lambda each: head.gain(best, each))
        value = head.values[best - 1]
        return said["best"].format(
            model=found.models[best - 1].ref,
            score=score,
            value=shown.value(head.score, value.value if value else None),
            other=found.models[near - 1].ref,
            gap=_number(head, head.gain(best, near)),
            sure=_sure(head, best, near, said),
        )
    ahead = leaders(head)
    if len(ahead) == len(found.models):
        return said["equal"].format(score=score)
    if len(ahead) < 2:
        return said["mixed"].format(score=score)
    rest = [each for each in head.numbers if each not in ahead]
    is_clear = all(head.beats(one, other) for one in ahead for other in rest)
    names = said["and"].join(found.models[each - 1].ref for each in ahead)
    return said["ahead" if is_clear else "open"].format(score=score, models=names)


def _others(found: Comparison, head: Row, said: Mapping[str, str]) -> list[str]:
    """Who is best in what else."""
    best = [(row.best, _label(found, row)) for row in found.rows if row is not head]
    named = sorted((number, place, name) for place, (number, name) in enumerate(best) if number)
    return [
        said["also" if number == head.best else "other"].format(
            model=found.models[number - 1].ref, scores=said["comma"].join(name for *_, name in of)
        )
        for number, of in groupby(named, key=lambda each: each[0])
    ]


def _cheaper(found: Comparison, head: Row, said: Mapping[str, str]) -> list[str]:
    """Who takes less than a model that is first by value, and is nowhere significantly worse."""
    better = 1 if head.score.higher_is_better else -1
    values = {each: better * (value.value if (value := head.values[each - 1]) else 0.0) for each in head.numbers}
    tops = [each for each in values if values[each] == max(values.values())]
    return next(filter(None, (_cheaper_than(found, top, said) for top in tops)), [])


def _cheaper_than(found: Comparison, top: int, said: Mapping[str, str]) -> list[str]:
    told = []
    for one in found.models:
        costs, pairs = _saved(one, found.models[top - 1], said), _both(found, top, one.number)
        is_tested = all(pair.found.count >= least(found.comparisons) for _, pair in pairs)
        if one.number == top or not costs or not is_tested or any(row.beats(top, one.number) for row in found.rows):
            continue
        row, most = max(((row, _loss(row, top, one.number)) for row, _ in pairs), key=lambda each: each[1] / _unit(each[0]))
        loss = said["loss"].format(score=_label(found, row), loss=_number(row, most)) if most else ""
        of = {"costs": said["comma"].join(costs), "loss": loss}
        told.append(said["cheaper"].format(model=one.ref, other=found.models[top - 1].ref, **of))
    return told


def _both(found: Comparison, one: int, other: int) -> list[tuple[Row, Pair]]:
    """All scores by which two models were compared."""
    return [(row, pair) for row in found.rows if (pair := row.pair(one, other))]


def _loss(row: Row, one: int, other: int) -> float:
    """By how much the other model may be worse than the one."""
    between = _interval(row, one, other)
    return max(between[1], 0.0) if between else 0.0


def _unit(row: Row) -> float:
    """What makes losses of different scores comparable: how far the differences of single samples lie apart."""
    return max(each.found.spread for each in row.pairs) or 1.0


def _saved(one: Model, other: Model, said: Mapping[str, str]) -> list[str]:
    """In what a model takes less than another; nothing where it takes more of anything."""
    made = []
    for name, write in (("bytes", console.size), ("seconds", lambda each: f"{each:.3g}")):
        few, many = (getattr(each.cost, name) for each in (one, other))
        if few is None or many is None:
            continue
        if name == "seconds" and not (one.cost.is_faster(other.cost) or other.cost.is_faster(one.cost)):
            continue  # warm-up, or what else the machine did, may be all that differs
        if few * _CHEAPER > many:
            return []
        if few <= many * _CHEAPER:
            made.append(said[name].format(one=write(few), other=write(many)))
    return made


def _trained(found: Comparison) -> list[tuple[Model, Model]]:
    """Checkpoints of one run, each with the next."""
    of_runs = sorted((each for each in found.models if each.run), key=lambda each: (each.run, each.step))
    return [(one, other) for one, other in pairwise(of_runs) if one.run == other.run and one.step < other.step]


def _paid(found: Comparison, head: Row, one: Model, other: Model, said: Mapping[str, str]) -> str:
    gain = head.gain(other.number, one.number)
    kind, better = "unclear", (other.number, one.number)
    if head.beats(*better):
        kind = "paid"
    elif head.beats(one.number, other.number):
        kind, better = "harmed", (one.number, other.number)
    return said[kind].format(
        step=one.step,
        next=other.step,
        model=one.ref,
        other=other.ref,
        score=_label(found, head),
        gap=f"{gain:+.3g}" if kind == "unclear" else _number(head, abs(gain)),
        sure=_sure(head, *better, said),
    )


def _failed(found: Comparison, said: Mapping[str, str]) -> list[str]:
    """Who did not answer everything."""
    lacking = [(each, sum(one.failure is not None and not one.answer for one in each.outcome.samples)) for each in found.models]
    return [
        said["failed"].format(model=each.ref, failed=count, count=len(each.outcome.samples)) for each, count in lacking if count
    ]


def _undecided(found: Comparison, head: Row, pair: Pair, said: Mapping[str, str]) -> str:
    count, first, second = found.needs(pair), pair.first, pair.second
    if head.gain(first, second) < 0:
        first, second = second, first
    return said["undecided" if count else "tied"].format(
        model=found.models[first - 1].ref,
        other=found.models[second - 1].ref,
        gap=_number(head, abs(pair.found.difference)),
        score=_label(found, head),
        sure=_sure(head, first, second, said),
        samples=said["samples"].format(count=count) if count else "",
    )


def _sure(row: Row, one: int, other: int, said: Mapping[str, str]) -> str:
    """Interval and p of how much better a model is than another."""
    pair, between = row.pair(one, other), _interval(row, one, other)
    p = chance(pair.adjusted) if pair else "-"
    p = p if p.startswith("<") else f"= {p}"
    if between is None:
        return f"p {p}"
    return said["sure"].format(low=_number(row, between[0]), high=_number(row, between[1]), p=p)


def _interval(row: Row, one: int, other: int) -> tuple[float, float] | None:
    """Of how much better a model is than another."""
    pair = row.pair(one, other)
    if pair is None or pair.found.interval is None:
        return None
    low, high = pair.found.interval
    is_turned = (pair.first != one) == bool(row.score.higher_is_better)
    return (-high, -low) if is_turned else (low, high)


def _number(row: Row, value: float) -> str:
    return shown.value(row.score, value)


def _label(found: Comparison, row: Row) -> str:
    return shown.label(row.score.name, found.models[0].outcome)
