"""An evaluation as one looks in real life: Chinese, rated by a judge, with failures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from mlops_llm.eval.interval import of_mean
from mlops_llm.eval.outcome import Group, Outcome, Sample, Score, Seen
from mlops_llm.inference.engine import Class, Failure
from mlops_llm.record import Grid

DIMENSIONS = ("accuracy", "relevance", "fluency", "professionalism")
_ASKED = (
    ("这款手机支持无线充电吗？", "支持，最高可达 50 瓦无线快充，需另购充电底座。", "产品"),
    ("下单以后多久能发货？", "工作日 16:00 前付款的订单当天发出，其余次日发出。", "物流"),
    ("衣服洗过一次就缩水了，能退吗？", "请先拍照联系客服；确认是质量问题的，七天内免费退换并承担运费。", "售后"),
    ("为什么比别家贵两百块？", "我们的价格包含三年保修和上门安装，您可以按自己的需要选择。", "价格"),
    ("Do you ship to Singapore?", "Yes, by SF International, usually within 5 to 7 working days.", "物流"),
    ("能不能开增值税专用发票？", "可以，下单时选择“专用发票”并填写税号，随货寄出。", "售后"),
)
FAILED = {
    7: Failure(Class.timeout, "no whole answer within 60 s, in 4 attempts", 240.0),
    13: Failure(Class.unparsable, "the judge rated accuracy 9 of 5, in 4 attempts", 3.2),
    19: Failure(Class.too_long, "the prompt has 4,212 tokens, the model's window 4,096"),
    24: Failure(Class.empty, "the answer has no text", 0.4),
}


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)></dd></dl></article><style>*{display:none}</style>"
    '" onload="alert(3) <!-- ]]> &lt;b&gt; \x00\x07\x1b[31m \u202egnp.exe\u2066 \udc80 \ufeff{{7*7}} javascript:alert(4)'
)
"""What a model could write to take a page or a terminal over."""


def sample(place: int) -> Sample:
    """A row; those of `FAILED` have no rating."""
    prompt, reference, topic = _ASKED[place % len(_ASKED)]
    failure = FAILED.get(place)
    answered = failure is None or failure.kind is Class.unparsable
    answer = f"您好！{reference}请问还有什么可以帮您？" if place % 5 else "您好，这个问题我需要核实以后再回复您。"
    ratings = {f"judge/{name}": float(5 - (place * (2 + at) + at) % 7 // 3) for at, name in enumerate(DIMENSIONS)}
    ratings["judge/overall"] = fmean(ratings.values())
    bleu = round(100 / (1 + (place * 7 % 11) / 3), 2) if place % 5 else 3.1
    return Sample(
        place,
        prompt if place != 19 else f"{prompt}以下是聊天记录：" + "客户：在吗？客服：在的。" * 400,
        answer if answered else "",
        (reference,),
        metadata={"topic": topic, "难度": "高" if place % 3 == 0 else "低"},
        scores={**({"bleu": bleu} if answered else {}), **({} if failure else ratings)},
        comment="" if failure else "回答准确、语气得体；但没有说明例外情况。" if place % 5 else "没有回答问题，只是套话。",
        failure=failure,
        seconds=failure.seconds if failure else 0.8 + place % 4 * 0.35,
        tokens=len(answer) if answered else 0,
        cut=place == 3,
        flags=("repaired",) if place == 4 else (),
        was_seen=place % 15 == 2,
    )


def outcome(samples: Sequence[Sample] | None = None, **other: Any) -> Outcome:
    """What an evaluation of these samples found."""
    samples = [sample(place) for place in range(30)] if samples is None else samples
    scores = []
    for name in ["bleu", *(f"judge/{each}" for each in (*DIMENSIONS, "overall"))]:
        values = [each.scores[name] for each in samples if name in each.scores]
        rest = [each.scores[name] for each in samples if name in each.scores and not each.was_seen]
        if values:
            share = sum(bool(each.was_seen) for each in samples) / len(samples)
            scores.append(
                Score(name, fmean(values), len(values), interval=of_mean(values), signature="rubric_zh:1f3c" if "/" in name else
                      "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0", most=5 if "/" in name else 100,
                      seen=Seen(share, fmean(rest) if rest else None))
            )  # fmt: skip
    groups = []
    for key in ("topic", "难度"):
        for value in dict.fromkeys(each.metadata[key] for each in samples if key in each.metadata):
            of = [each for each in samples if each.metadata.get(key) == value]
            means = {
                score.name: fmean(each.scores[score.name] for each in of if score.name in each.scores)
                for score in scores
                if any(score.name in each.scores for each in of)
            }
            groups.append(Group(key, value, len(of), means))
    found = Outcome(
        "sales@challenger on sales_eval[30]",
        "models:/sales@challenger",
        "sales_eval[30]",
        "hf",
        scores,
        samples,
        {
            "sampling": "temperature 0.7, top-p 0.9, at most 512 tokens, seed 0",
            "chat template": "sha256 4be1…9c",
            "seconds a sample": "1.3",
            "tokens/s": "61",
            "peak memory": "1.4 GB",
            "judge": "qwen-plus, 26 calls, 18,204 tokens",
        },
        groups,
        {"confusion.json": Grid("label by answer", ["", "yes", "no"], [["yes", 8, 2], ["no", 1, 9]])},
        ("the model's history is not known for its base Qwen2.5-0.5B: whether it met these rows cannot be told",),
    )
    return dataclasses.replace(found, **other)


def everywhere(text: str) -> Outcome:
    """An outcome that has a text wherever one can be."""
    bad = Sample(
        0, text, text, (text,), text, {text: text}, {text: 1.0}, text, Failure(Class.server, text), 1.0, 3, flags=(text,)
    )
    base = outcome()
    score = Score(text, 1.0, 1, signature=text, most=5, interval=(0.5, 1.5))
    grid = dataclasses.replace(base.tables["confusion.json"], title=text, columns=[text], rows=[[text]])
    group = dataclasses.replace(base.groups[0], key=text, value=text, scores={text: 1.0})
    return Outcome(text, text, text, text, [score], [bad], {text: text}, [group], {text: grid}, (text,))
