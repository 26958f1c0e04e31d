"""Reports of an evaluation: the same numbers in JSON, PDF, Excel and HTML, and texts that are never more than text."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import re
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from mlops_llm.errors import UserError
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Group, Outcome, Score
from mlops_llm.eval.report import writing
from mlops_llm.eval.report.chapters import Report, document, report
from mlops_llm.eval.report.facts import facts, outcome_of, schema
from mlops_llm.eval.report.findings import words
from mlops_llm.eval.report.glyphs import Readable, characters
from mlops_llm.eval.report.rivals import MOST, comparison
from mlops_llm.tracking.ledger import RunRow
from tests.outcomes import HOSTILE, everywhere, outcome, sample
from tests.unit.test_page import Page

MARKUP = f'{HOSTILE} #panic("x") $x^2$ *b* _i_ `c` @ref <lab> // no \\u{{1f600}} ``` #[ 😀 नमस्ते {"A" * 400} =1+1'
"""What a model could write to take typst over, with characters that the font does not have."""
valid = Draft202012Validator(schema()).validate
each_lang = pytest.mark.parametrize("lang", list(Lang))


def reported(lang: Lang = Lang.zh, found: Outcome | None = None, **more: Any) -> Report:
    return report({**facts(found or outcome()), **more}, lang)


def made(about: Report, form: str, samples: int = 50) -> bytes:
    return writing.made(about, [form], samples)[f"report.{form}"]


def pages(content: bytes) -> list[str]:
    """The texts of a PDF's pages, without the marks where a long word may end."""
    pypdf = pytest.importorskip("pypdf")
    return [page.extract_text().replace("\u200b", "") for page in pypdf.PdfReader(BytesIO(content)).pages]


@cache
def standard(lang: Lang) -> tuple[bytes, list[str]]:
    """The PDF of the usual outcome, and its pages' texts."""
    content = made(reported(lang), "pdf")
    return content, pages(content)


def run(name: str, weights: str, value: float, **tags: str) -> RunRow:
    """A run that scored BLEU, give or take 1."""
    metrics = {"score/bleu": value, "score/bleu_low": value - 1, "score/bleu_high": value + 1, "perf/seconds_a_sample": 0.5}
    about = {"model": f"models:/{name}", "digest.weights": weights, "metric.bleu": "zh", "host.cpu": "A", **tags}
    return RunRow(name * 8, name, "1", "sales", "FINISHED", about, {"choice.engine": "hf"}, metrics)


def test_facts_come_back_from_json_as_they_were():
    found = facts(outcome())
    again = facts(outcome_of(json.loads(json.dumps(found))), {"made": found["made"]})
    assert again == found
    assert outcome_of(found).scores[0].interval == outcome().scores[0].interval


@pytest.mark.parametrize("found", [outcome(), everywhere(MARKUP), outcome([]), outcome([sample(0).bare])])
def test_what_is_written_is_as_the_schema_says(found):
    Draft202012Validator.check_schema(schema())
    about = reported(found=found)
    valid(about.found)
    valid(json.loads(made(about, "json")))


def test_the_schema_describes_every_field_and_refuses_others():
    def described(node: Any) -> None:
        for each in node.get("properties", {}).values():
            assert each.get("description") or "$ref" in each, node
            described(each)
        inside = [node[key] for key in ("items", "additionalProperties") if isinstance(node.get(key), dict)]
        for each in [*node.get("anyOf", []), *node.get("$defs", {}).values(), *inside]:
            described(each)

    described(schema())
    found = facts(outcome())
    for broken in ({**found, "more": 1}, {key: value for key, value in found.items() if key != "scores"}):
        with pytest.raises(ValidationError):
            valid(broken)


def test_a_number_that_json_does_not_have_is_null():
    odd = dataclasses.replace(sample(1), scores={"bleu": math.nan})
    found = facts(outcome([odd], scores=[Score("bleu", math.inf, 1)]))
    assert found["scores"][0]["value"] is None and found["samples"][0]["scores"] == {"bleu": None}
    assert made(report(found, Lang.en), "pdf")[:5] == b"%PDF-" and made(report(found, Lang.en), "xlsx")


@each_lang
def test_the_text_of_the_pdf_has_the_numbers_of_the_json(lang):
    about = reported(lang)
    found = json.loads(made(about, "json"))
    texts = standard(lang)[1]
    whole = "\n".join(texts)
    totals = whole[whole.rindex(lang("总体得分", "Totals")) :]
    for score in found["scores"]:
        name = score["name"].removeprefix("judge/")
        low, high = score["interval"]
        rest = f"{score['seen']['share']:.1%} {score['seen']['rest']:.2f}"
        line = rf"{name}\s+{score['value']:.2f}\s+{low:.2f} - {high:.2f}\s+{score['count']}\s+{rest}"
        assert re.search(line.replace(" ", r"\s+"), totals), (line, totals[:600])
    for kind in ("samples", "succeeded", "failed"):
        assert re.search(rf"^{found['totals'][kind]}$", texts[1], re.MULTILINE)
    for each in found["samples"]:
        head = whole[whole.rindex(f"#{each['place'] + 1} ") :][:120] if f"#{each['place'] + 1} " in whole else ""
        for name, value in each["scores"].items():
            said = str(int(value)) if value == int(value) else f"{value:.2f}"
            assert f"{name.removeprefix('judge/')} {said}" in re.sub(r"\s+", " ", head), (each["place"], head)
    for sentences in found["words"].values():
        for each in sentences if isinstance(sentences, list) else []:
            assert re.sub(r"\s+", "", each) in re.sub(r"\s+", "", whole)


@each_lang
def test_a_pdf_has_five_chapters_contents_and_numbered_pages(lang):
    pypdf = pytest.importorskip("pypdf")
    content, texts = standard(lang)
    read = pypdf.PdfReader(BytesIO(content))
    titles = [each.title for each in read.outline if not isinstance(each, list)]
    zh = ["1 评测概述", "2 评测方法", "3 评测结果", "4 模型对比", "5 结论", "A 附录：数据来源"]
    en = ["1 Summary", "2 Method", "3 Results", "4 Comparison", "5 Conclusion", "A Appendix: sources"]
    assert titles == lang(zh, en)  # type: ignore[arg-type]
    assert all(f"{place} / {len(texts)}" in each for place, each in enumerate(texts, 1))
    assert lang("目录", "Contents") in texts[0]
    assert [round(float(side)) for side in read.pages[0].mediabox[2:]] == [595, 842]
    fonts = {font["/BaseFont"] for page in read.pages for font in map(_object, page["/Resources"]["/Font"].values())}
    assert fonts and all(re.fullmatch(r"/[A-Z]{6}\+NotoSansCJKsc-.*", each) for each in fonts), "a subset is embedded"


def _object(reference: Any) -> Any:
    return reference.get_object()


def test_what_a_model_writes_is_text_in_a_pdf_and_no_box():
    whole = "".join(pages(made(reported(found=everywhere(MARKUP)), "pdf")))
    flat = re.sub(r"\s+", "", whole)
    for said in ('#panic("x")', "$x^2$", "*b*", "@ref", "<lab>", "<script>alert(1)</script>", "A" * 400):
        assert said in flat, said
    assert "\\u1f600" in flat and "\\u202e" in flat and "U+1F600" in flat
    assert set(whole) - {"\n"} <= characters()


@each_lang
def test_the_font_has_every_character_of_our_own_words(lang):
    readable = Readable()
    found = comparison(run("a", "1", 34), [run("b", "2", 30), run("c", "3", 34, **{"host.cpu": "B"})], {"bleu": "zh"})
    readable.all(json.loads(json.dumps(dataclasses.asdict(document(reported(lang, comparison=found), 50)), default=list)))
    assert readable.kinds == set()


def test_a_workbook_has_a_sheet_a_table_a_row_a_sample_and_numbers_as_numbers():
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.load_workbook(BytesIO(made(reported(), "xlsx")))
    assert book.sheetnames == ["概述", "得分", "样本", "失败", "分组", "label by answer", "附录"]
    for sheet in book:
        assert sheet.freeze_panes == "A2" and sheet.auto_filter.ref.startswith("A1:")
    rows = list(book["样本"].iter_rows(values_only=True))
    found = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [each["row"] for each in found] == list(range(1, 31))
    for each, said in zip(outcome().samples, found, strict=True):
        assert {name: said[name] for name in each.scores} == dict(each.scores)
        assert (said["answer"] or "") == each.answer and said["prompt"] == each.prompt
    first = next(book["得分"].iter_rows(min_row=2, values_only=True))
    bleu = outcome().scores[0]
    assert bleu.interval and first[0] == "bleu"
    assert first[1:5] == pytest.approx((bleu.value, *bleu.interval, bleu.count))


def test_texts_in_a_workbook_are_no_formulas_and_what_no_cell_holds_is_counted():
    openpyxl = pytest.importorskip("openpyxl")
    bad = [
        dataclasses.replace(sample(place), answer=text) for place, text in enumerate(["=1+1", "@SUM(A1)", "a\x00\x07b\udc80"])
    ]
    bad.append(dataclasses.replace(sample(3), answer="长" * 40_000))
    book = openpyxl.load_workbook(BytesIO(made(reported(found=outcome(bad)), "xlsx")))
    (column,) = [cell.column for cell in book["样本"][1] if cell.value == "answer"]
    cells = [book["样本"].cell(row, column) for row in range(2, 6)]
    assert [each.value for each in cells[:3]] == ["=1+1", "@SUM(A1)", "ab"]
    assert all(each.data_type == "s" for each in cells) and cells[0].quotePrefix
    assert len(cells[3].value) == 32_767
    said = {row[1]: row[2] for row in book["附录"].iter_rows(values_only=True)}
    assert said["去掉的控制字符"] == 3 and said["截断的单元格"] == 1


def test_hostile_names_of_sheets_are_mended():
    openpyxl = pytest.importorskip("openpyxl")
    names = openpyxl.load_workbook(BytesIO(made(reported(found=everywhere(MARKUP)), "xlsx"))).sheetnames
    assert len({each.casefold() for each in names}) == len(names) and all(0 < len(each) <= 31 for each in names)


@each_lang
def test_the_page_is_whole_offline_and_shows_texts_as_text(lang):
    page = Page(made(reported(lang, everywhere(MARKUP)), "html").decode())
    assert page.elements["script"] == page.elements["img"] == page.elements["link"] == 0
    assert all(value is None or not re.match(r"https?:|//", value) for _, value in page.attributes)
    assert "<script>alert(1)</script>" in page.text
    targets = {value for key, value in page.attributes if key == "id"}
    links = [value for key, value in page.attributes if key == "href"]
    assert links and all(each and each[1:] in targets for each in links)
    assert page.elements["svg"] >= 2


def test_without_texts_no_form_has_one():
    found = facts(outcome([sample(place).bare for place in range(30)]), {"texts": False})
    about = report(found, Lang.zh)
    for form in ("json", "html"):
        said = made(about, form).decode()
        assert "无线充电" not in said and "套话" not in said
    assert "无线充电" not in "".join(pages(made(about, "pdf")))


def test_high_and_low_are_said_of_whole_intervals_only():
    def rated(value: float, low: float, high: float) -> Outcome:
        return outcome([], scores=[Score("judge/overall", value, 200, interval=(low, high), most=5)])

    assert words(rated(4.5, 4.2, 4.7), None, Lang.en).strengths == ["'overall' is high: 4.50 / 5 (95 % interval 4.20 to 4.70)."]
    assert words(rated(4.5, 3.9, 4.9), None, Lang.en).strengths == []
    assert words(rated(2.5, 2.2, 2.9), None, Lang.en).problems[0].startswith("'overall' is low: 2.50 / 5")
    assert words(rated(2.8, 2.4, 3.3), None, Lang.en).problems == []


def test_likeness_to_references_is_never_called_low():
    def low(name: str, values: list[float]) -> list[str]:
        of = [dataclasses.replace(sample(1), scores={name: value}) for value in values]
        score = Score(name, 0.1, len(of), interval=(0.0, 0.2), most=1)
        return [each for each in words(outcome(of, scores=[score], groups=[]), None, Lang.en).problems if "low" in each]

    assert low("rouge_l", [0.1, 0.12, 0.08]) == []
    assert low("exact_match", [0.0, 0.0, 1.0]) == ["'exact_match' is low: 0.1 / 1 (95 % interval 0 to 0.2)."]


def test_a_group_is_named_where_it_lies_apart():
    score = Score("judge/overall", 3.5, 100, interval=(3.4, 3.6), most=5)

    def of(low: float) -> list[str]:
        groups = [Group("topic", "a", 50, {score.name: low}), Group("topic", "b", 50, {score.name: 3.6})]
        return words(outcome([], scores=[score], groups=groups), None, Lang.en).problems

    assert of(3.0) == ["By topic, 'overall' is worst on 'a' (3.00 / 5, 50 items) and best on 'b' (3.60 / 5)."]
    assert of(3.5) == []


def test_another_model_is_better_or_worse_only_where_intervals_do_not_touch():
    own = run("own", "1", 34)
    found = comparison(own, [run("low", "2", 30), run("near", "3", 35), run("high", "4", 40)], {"bleu": "zh"})
    scored = outcome([], scores=[Score("bleu", 34, 30, most=100, interval=(33, 35))])
    assert words(scored, found, Lang.en).comparison == [
        "Against models:/low: better by bleu.",
        "Against models:/near: undecided (intervals overlap) by bleu.",
        "Against models:/high: worse by bleu.",
    ]


def test_of_other_evaluations_the_newest_of_each_model_stands_there():
    others = [run("same", "1", 99), run("new", "2", 30), run("old", "2", 10)]
    others += [run(f"m{place}", f"w{place}", 20) for place in range(MOST)]
    others[1].tags["metric.bleu"] = "char"
    others[3].tags["host.cpu"] = "B"
    found = comparison(run("own", "1", 34), others, {"bleu": "zh"})
    valid({**facts(outcome()), "comparison": found})
    assert [each["run"] for each in found["runs"]] == ["own", "new", "m0", "m1", "m2"] and found["left_out"] == 1
    assert found["runs"][0]["scores"] == {"bleu": {"value": 34, "interval": [33, 35]}}
    assert found["runs"][1]["scores"] == {}, "it was counted otherwise"
    assert [each["other_conditions"] for each in found["runs"]][:4] == [[], [], ["processor"], []]
    said = "".join(pages(made(reported(Lang.en, comparison=found), "pdf")))
    assert "not comparable" in said and "C: other conditions: processor" in said


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=f"{tmp_path}: the disk is full"):
        writing.write({"report.pdf": b"%PDF"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_either_all_files_are_written_or_none(tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        writing.write({"report.pdf": b"%PDF", "report.json": b"{}"}, tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["report.json"]
