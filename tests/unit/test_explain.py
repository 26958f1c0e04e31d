"""What differs in how two models were made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mlops_llm.eval.explain import Made, differences, made_of
from mlops_llm.tracking.lineage import Lineage, Used
from mlops_llm.tracking.origin import Origin

PARAMS = {"run_name": "a", "output": "outputs/a", "seed": "0", "trainer.learning_rate": "0.001"}


def made(ref: str, used: tuple[Used, ...] = (), **origin: dict[str, str]) -> Made:
    return Made(ref, Origin(ref, **{"params": PARAMS, **origin}), Lineage(used, ()), {"template": "t", "weights": "w"})


def rows_of(file: Path, run: str) -> Used:
    from mlops_llm import digest
    from mlops_llm.data.read import Read, raw_digest, read

    digests = {"raw": raw_digest(file, ()), "canonical": digest.canonical(read(str(file), Read()).rows)}
    return Used(file.stem, str(file), str(file), "training", 3, digests, run, "", 0.0)


def tables(one: Made, other: Made) -> dict[str, list[list[str]]]:
    return {each.title: [list(map(str, row)) for row in each.rows] for each in differences(one, other, None)}


def test_models_that_were_made_alike_differ_in_nothing() -> None:
    assert tables(made("a"), made("b", params={**PARAMS, "run_name": "b", "output": "outputs/b"})) == {}


def test_each_kind_of_difference_has_its_table() -> None:
    one = made("a", packages={"torch": "2.1", "trl": "1"}, tags={"git.commit": "c1", "host.gpu": "none"})
    changed = {
        "params": {**PARAMS, "seed": "3"},
        "packages": {"torch": "2.2"},
        "patches": {"uncommitted": "+one\n-two\n same\n"},
    }
    other = made("b", **changed, tags={"git.commit": "c2", "host.gpu": "H100"})
    found = tables(one, other)
    assert list(found) == ["settings", "code", "environment"]
    assert found["settings"] == [["seed", "0", "3"]] and found["code"][0] == ["git.commit", "c1", "c2"]
    assert found["code"][1][:2] == ["uncommitted.patch", "-"] and found["code"][1][2].startswith("2 lines, ")
    assert found["environment"] == [["host.gpu", "none", "H100"], ["torch", "2.1", "2.2"], ["trl", "1", "-"]]


def test_rows_are_counted_whatever_their_files_are_called(jsonl) -> None:
    def row(text: str) -> dict[str, str]:
        return {"prompt": text, "response": "好"}

    first, second = (
        jsonl([row("一"), row("二"), row("二")], "first.jsonl"),
        jsonl([row("二"), row("三"), row("四")], "second.jsonl"),
    )
    found = tables(made("a", (rows_of(first, "a"),)), made("b", (rows_of(second, "b"),)))
    assert found["rows"] == [["all training rows", "2", "2", "1"]]
    assert [each[0] for each in found["training data"]] == ["first", "second"]
    assert tables(made("a", (rows_of(first, "a"),)), made("b", (rows_of(first, "b"),))) == {}


def test_two_checkpoints_of_one_run_differ_in_step_and_weights() -> None:
    one, other = (dataclasses.replace(made("a"), identity={"weights": step, "step": step}) for step in ("100", "200"))
    assert tables(one, other) == {"weights": [["step", "100", "200"], ["weights", "100", "200"]]}


def test_what_is_known_of_one_alone_is_no_difference() -> None:
    stranger = Made("folder", Origin(), Lineage((), ("comes from elsewhere",)), {"template": "t", "weights": "w"})
    assert tables(made("a", packages={"torch": "2.1"}, tags={"git.commit": "c"}), stranger) == {}


def test_a_merge_names_its_sources_with_weights_and_which_of_them_is_the_other_model() -> None:
    sources = [
        {"ref": "models:/m-1", "named": "runs:/sft/best", "role": "parent", "digest": "aa11", "weight": 0.6, "note": "通用"},
        {"ref": "models:/m-2", "named": "runs:/dpo/best", "role": "parent", "digest": "bb22", "weight": 0.4},
        {"ref": "tiny", "named": "tiny", "role": "base", "digest": "cc33"},
    ]
    merge = dataclasses.replace(made("merge"), recipe={"method": "SLERP (t = 0.4)", "sources": sources})
    other = dataclasses.replace(made("runs:/dpo/best"), identity={"weights": "bb2"})
    found = made_of(merge, other)
    assert found is not None and found.rows == [
        ["merge", "SLERP (t = 0.4)", "runs:/sft/best", "0.6", "parent, 通用"],
        ["merge", "SLERP (t = 0.4)", "runs:/dpo/best", "0.4", "parent, is runs:/dpo/best"],
        ["merge", "SLERP (t = 0.4)", "tiny", "", "base"],
    ]
    swapped = made_of(other, merge)
    assert swapped is not None and swapped.rows == found.rows
    assert made_of(made("a"), made("b")) is None
