"""Reports of an evaluation: the same numbers in JSON, PDF, Excel and HTML, and texts that are never more than text."""

from __future__ import annotations

import dataclasses
import errno
import html
import json
import math
import re
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from jsonschema import Draft202012Validator, ValidationError

from mlops_llm.errors import UserError
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.eval.people.ballot import KEY, Answer, Ballot, Model
from mlops_llm.eval.recorded import Recorded
from mlops_llm.eval.report import chinese, gathered, rated, rivals, source, writing
from mlops_llm.eval.report.chapters import Report, document, report
from mlops_llm.eval.report.facts import facts, outcome_of, schema
from mlops_llm.eval.report.findings import words
from mlops_llm.eval.report.glyphs import Readable, characters
from mlops_llm.eval.report.grouped import apart
from mlops_llm.eval.report.naming import label
from mlops_llm.eval.report.rivals import MOST
from mlops_llm.eval.significance import resolved
from mlops_llm.record import Checkpoint, DatasetInput
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


def run(name: str, weights: str, value: float = 34, **tags: str) -> RunRow:
    """A run that scored BLEU."""
    metrics = {"score/bleu": value, "perf/seconds_a_sample": 0.5, "perf/peak_memory_bytes": 2e9, "perf/judge_calls": 26.0}
    about = {"model": f"models:/{name}", "digest.weights": weights, "metric.bleu": "zh", "host.cpu": "A", **tags}
    return RunRow(name * 8, name, "1", "sales", "FINISHED", about, {"choice.engine": "hf", "choice.op": "score"}, metrics)


def moved(by: float) -> Outcome:
    """The usual outcome with every rating and BLEU higher or lower."""
    of = [sample(place) for place in range(30)]
    most = {"bleu": 100.0}
    made = [
        dataclasses.replace(
            each, scores={name: min(max(value + by, 0), most.get(name, 5)) for name, value in each.scores.items()}
        )
        for each in of
    ]
    return outcome(made)


def evaluated(name: str, found: Outcome, **tags: str) -> Recorded:
    """An evaluation in the record."""
    about = {"run": name, "model": {"name": f"models:/{name}", "weights": name * 64, "bytes": 2_100_000}}
    return Recorded(run(name, name * 64, **tags), facts(found, about), found)


@cache
def beside() -> dict[str, Any]:
    """A model with one that is as good, and one that is worse."""
    found = [
        evaluated("a", outcome()), evaluated("b", moved(0.0)), evaluated("c", moved(-1.5), **{"host.cpu": "B"})
    ]  # fmt: skip
    return {"side_by_side": rivals.told(found), "left_out": [{"run": "d", "model": "models:/d", "why": rivals.WHY["texts"]}]}


PEOPLE = [{
    "run": "imported", "id": "f" * 32, "evaluation": "h0123", "raters": 3, "careless": 1,
    "scores": [
        {"name": f"human/{name}", "value": 3.25, "interval": [2.9, 3.6], "rows": 30} for name in ("accuracy", "overall")
    ],
    "agreement": {"accuracy": {"alpha_ordinal": 0.61, "alpha_interval": 0.6}},
    "wins": [{"other": "models:/b", "win": 12, "tie": 1, "loss": 17, "rate": 0.417, "interval": [0.26, 0.59]}],
}]  # fmt: skip


def test_facts_come_back_from_json_as_they_were():
    found = facts(outcome())
    again = facts(outcome_of(json.loads(json.dumps(found))), {"made": found["made"]})
    assert again == found
    assert outcome_of(found).scores[0].interval == outcome().scores[0].interval


@pytest.mark.parametrize("found", [outcome(), everywhere(MARKUP), outcome([]), outcome([sample(0).bare])])
@pytest.mark.parametrize("more", [{}, {"people": PEOPLE, "comparison": {"side_by_side": None, "left_out": []}}])
def test_what_is_written_is_as_the_schema_says(found, more):
    Draft202012Validator.check_schema(schema())
    about = reported(found=found, **more)
    valid(about.found)
    valid(json.loads(made(about, "json")))


def test_a_comparison_and_people_are_as_the_schema_says():
    valid(json.loads(made(reported(comparison=beside(), people=PEOPLE), "json")))


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
        name = label(score["name"], about.outcome)
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
            assert f"{label(name, about.outcome)} {said}" in re.sub(r"\s+", " ", head), (each["place"], head)
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
    readable, about = Readable(), reported(lang, comparison=beside(), people=PEOPLE)
    readable.all(json.loads(json.dumps(dataclasses.asdict(document(about, 50)), default=list)))
    assert readable.kinds == set()


def test_a_workbook_has_a_sheet_a_table_a_row_a_sample_and_numbers_as_numbers():
    openpyxl = pytest.importorskip("openpyxl")
    about = reported()
    book = openpyxl.load_workbook(BytesIO(made(about, "xlsx")))
    assert book.sheetnames == ["概述", "得分", "样本", "失败", "分组", "label by answer", "附录"]
    for sheet in book:
        assert sheet.freeze_panes == "A2" and sheet.auto_filter.ref.startswith("A1:")
    rows = list(book["样本"].iter_rows(values_only=True))
    found = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [each["行"] for each in found] == list(range(1, 31))
    for each, said in zip(outcome().samples, found, strict=True):
        assert {name: said[label(name, about.outcome)] for name in each.scores} == dict(each.scores)
        assert (said["回答"] or "") == each.answer and said["问题"] == each.prompt
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
    (column,) = [cell.column for cell in book["样本"][1] if cell.value == "回答"]
    cells = [book["样本"].cell(row, column) for row in range(2, 6)]
    assert [each.value for each in cells[:3]] == ["=1+1", "@SUM(A1)", "ab"]
    assert all(each.data_type == "s" for each in cells) and cells[0].quotePrefix
    assert len(cells[3].value) == 32_767
    said = {row[1]: row[2] for row in book["附录"].iter_rows(values_only=True)}
    assert said["去掉的控制字符"] == 3 and said["截断的单元格"] == 1


def test_a_text_that_looks_like_an_escape_of_excel_stays_as_it_is():
    pytest.importorskip("openpyxl")
    odd = dataclasses.replace(sample(0), answer="_x0041_ +1", prompt="😀" * 20_000)
    with ZipFile(BytesIO(made(reported(found=outcome([odd])), "xlsx"))) as book:
        texts = [book.read(name).decode() for name in book.namelist() if "worksheets/sheet" in name]
    assert any("_x005F_x0041_ +1" in each for each in texts)
    assert max(html.unescape(each).count("😀") for each in texts) == 16_383, "Excel counts UTF-16 units"


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


@cache
def plain() -> Outcome:
    return outcome([], groups=[])


def grouped(values: dict[str, list[float]]) -> Outcome:
    """Ratings of samples by the group that these are of."""
    of = [
        Sample(place, "p", "a", metadata={"topic": name}, scores={"judge/overall": value})
        for name, several in values.items()
        for place, value in enumerate(several)
    ]
    mean = sum(map(sum, values.values())) / len(of)
    return dataclasses.replace(plain(), samples=of, scores=[Score("judge/overall", mean, len(of), most=5)])


def test_advice_on_answers_that_were_cut_follows_from_why_they_were():
    def told(*warnings: str) -> str:
        found = outcome([dataclasses.replace(sample(place), cut=True) for place in range(6)], warnings=warnings)
        return " ".join(words(found, None, Lang.en).advice)

    assert "Raise sampling.max_new_tokens" in told()
    window = told("6 of 6 answers have room for fewer than 512 tokens: the model's window is 512")
    assert "Raise" not in window and "Answers end at the model's window" in window


def test_nothing_is_said_of_what_samples_resolve_where_all_values_are_alike():
    alike = outcome([], scores=[Score("bleu", 0.0, 10, most=100, interval=(0.0, 0.0))])
    assert not [each for each in words(alike, None, Lang.en).findings if "noise" in each]


def test_a_group_is_named_where_it_lies_apart():
    def of(*low: float) -> list[str]:
        return words(grouped({"a": list(low) * 5, "b": [3, 4, 4, 5] * 5, "c": [4, 3, 5, 3] * 5}), None, Lang.en).problems

    (said,) = of(2, 3, 2, 3)
    assert said.startswith(
        "By topic, 'overall' is significantly worse on 'a' (2.50 / 5, 20 items) than on 'b' (4.00 / 5, 20 items; p"
    )
    assert of(3, 4, 3, 4) == []


def test_the_largest_of_many_differences_between_groups_is_none_where_there_is_none():
    import numpy

    random, named = numpy.random.default_rng(7), 0
    for _ in range(300):
        values = random.integers(1, 6, (12, 6)).astype(float)
        named += bool(apart(grouped({str(place): list(row) for place, row in enumerate(values)})))
    assert named <= 21, f"{named} of 300: 5 % of the time a group is named by chance, and 7 % are too many"


def test_two_groups_differ_as_scipy_says():
    import numpy
    from scipy import stats

    random = numpy.random.default_rng(3)
    for by in (0.25, 0.4):
        one, other = random.normal(3, 1, 40), random.normal(3 - by * 2, 1, 25)
        found = stats.permutation_test((one, other), lambda a, b: a.mean() - b.mean(), n_resamples=4000, rng=random)
        (each,) = apart(grouped({"one": list(one), "other": list(other)})) or [None]
        assert (each is not None) == (found.pvalue <= 0.05)
        if each:
            assert each.p == pytest.approx(found.pvalue, abs=0.02)


def test_dimensions_are_told_apart_by_the_same_answers():
    def said(by: float) -> str:
        of = [
            {"judge/accuracy": 3 + place % 3, "judge/fluency": 3 + place % 3 - by * (place % 4 == 0), "judge/overall": 3.5}
            for place in range(40)
        ]
        of = [dataclasses.replace(sample(1), scores=each) for each in of]
        scores = [
            Score(name, sum(each.scores[name] for each in of) / 40, 40, interval=(3.0, 4.5), most=5)
            for name in ("judge/accuracy", "judge/fluency", "judge/overall")
        ]
        return next(
            each for each in words(outcome(of, scores=scores, groups=[]), None, Lang.en).findings if "imensions" in each
        )

    assert said(1).startswith("Of the dimensions 'accuracy' is highest") and "none stands out" in said(0)


def test_what_the_samples_can_tell_is_said_as_a_comparison_says_it():
    alone = outcome([], scores=[Score("bleu", 34, 100, most=100, interval=(34 - 1.959964, 34 + 1.959964))])
    least = resolved(10 * math.sqrt(2), 100)
    assert f"gaps in 'bleu' under about {least:.2f} to a model" in words(alone, None, Lang.en).findings[-1]
    compared = words(outcome(), beside(), Lang.en)
    assert compared.findings[-1] == compared.comparison[0] and not [each for each in compared.findings if "are noise" in each]


def test_another_model_is_better_or_worse_only_where_the_test_says_so():
    said = words(outcome(), beside(), Lang.en)
    names = {"bleu", "accuracy", "relevance", "fluency", "professionalism", "overall"}
    (won,) = [each for each in said.strengths if "Significantly" in each]
    assert won.startswith("Significantly better than models:/c in ")
    assert set(won.split(" in ")[1][:-1].split(", ")) == names
    assert not [each for each in said.problems if "Significantly" in each]
    values = beside()["side_by_side"]
    assert {pair["p_holm"] for row in values["scores"] for pair in row["pairs"] if pair["second"] == 2} == {1.0}
    assert values["decides"] == "judge/overall" and said.comparison == values["conclusion"]["en"]


def test_speeds_under_other_conditions_are_not_comparable_and_why():
    told = "".join(pages(made(reported(Lang.en, comparison=beside()), "pdf")))
    assert told.count("not comparable") >= 9 and "differ in processor" in told and "26" in told
    assert "Left out: models:/d (d): it kept no texts" in re.sub(r"\s+", " ", told)
    alike = rivals.told([evaluated("a", outcome()), evaluated("b", moved(-1))])
    assert [each["seconds_a_sample"] for each in alike["models"]] == [0.5, 0.5] and alike["unequal"] == ""


@each_lang
def test_every_form_has_what_the_comparison_found(lang):
    openpyxl = pytest.importorskip("openpyxl")
    about = reported(lang, comparison=beside(), people=PEOPLE)
    book = openpyxl.load_workbook(BytesIO(made(about, "xlsx")))
    rows = list(book[lang("两两之差", "Differences")].iter_rows(min_row=2, values_only=True))
    values = [pair for row in beside()["side_by_side"]["scores"] for pair in row["pairs"]]
    assert [row[3] for row in rows] == pytest.approx([each["difference"] for each in values])
    assert [row[7] for row in rows] == pytest.approx([each["p_holm"] for each in values])
    assert book[lang("人工评分", "Ratings by people")]["E2"].value == 3.25
    assert book[lang("逐样本对比", "Compared samples")].max_row == 31
    told = re.sub(r"\s+", "", "".join(pages(made(about, "pdf"))))
    page = re.sub(r"\s+", "", Page(made(about, "html").decode()).text)
    for each in (*about.words.comparison, "2.90 - 3.60", lang("人工评分", "Ratings by people")):
        flat = re.sub(r"\s+", "", each)
        assert flat in told and flat in page, each


def test_of_other_evaluations_the_newest_of_each_model_stands_there(monkeypatch):
    own = run("o", "1", **{source.ROWS: "2c15"})
    others = [run("same", "1"), run("new", "2"), run("old", "2"), run("people", "1", **{"human.imported": "h1"})]
    others += [run(f"m{place}", f"w{place}") for place in range(MOST)]
    bare = {"m0"}
    monkeypatch.setattr(rivals.ledger, "evaluations_of", lambda store, rows: others if rows == "2c15" else [])
    monkeypatch.setattr(
        rivals, "facts_of", lambda store, run, ref: {**facts(moved(-1), {"run": ref}), "texts": ref not in bare}
    )
    found = rivals.comparison(None, own, facts(outcome()))  # type: ignore[arg-type]
    valid({**facts(outcome()), "comparison": found})
    assert [each["evaluation"] for each in found["side_by_side"]["models"]] == ["o", "new", "m1", "m2", "m3"]
    assert found["left_out"] == [{"run": "m0", "model": "models:/m0", "why": rivals.WHY["texts"]}]
    others.append(run("m9", "w9"))
    unlike = facts(outcome([dataclasses.replace(sample(1), prompt="other")]))
    assert rivals.comparison(None, own, facts(outcome()))["left_out"][1]["why"] == rivals.WHY["many"]  # type: ignore[arg-type]
    monkeypatch.setattr(rivals, "facts_of", lambda *_: unlike)
    nothing = rivals.comparison(None, own, facts(outcome()))  # type: ignore[arg-type]
    assert nothing["side_by_side"] is None and "different rows" in nothing["left_out"][-1]["why"]


def test_of_a_model_the_run_with_the_same_scores_comes_before_a_newer_one_with_others(monkeypatch):
    own = run("o", "1", **{source.ROWS: "2c15"})
    judged = dataclasses.replace(run("judged", "2"), metrics={"score/judge/other": 3.0})
    others = [judged, run("alike", "2"), run("older", "2")]
    monkeypatch.setattr(rivals.ledger, "evaluations_of", lambda *_: others)
    monkeypatch.setattr(rivals, "facts_of", lambda store, run, ref: facts(moved(-1), {"run": ref}))
    found = rivals.comparison(None, own, facts(outcome()))  # type: ignore[arg-type]
    assert [each["evaluation"] for each in found["side_by_side"]["models"]] == ["o", "alike"]


def ballot(*refs: str) -> Ballot:
    """An evaluation by people of two rows, in which each model answered both."""
    data = DatasetInput("sales", "v1", "sales.jsonl", "evaluation", 2, {"raw": "ab" * 32, "canonical": "cd" * 32})
    models = tuple(Model(each, Checkpoint(each, 1, Path(each), {"digest.weights": each * 64})) for each in refs)
    answers = tuple(Answer(place, number, "", 5) for place in (3, 4) for number in range(len(refs)))
    return Ballot("h01", ("accuracy",), data, models, answers)


@pytest.mark.parametrize(("weights", "places", "is_told"), [("b", (3, 4), True), ("x", (3, 4), False), ("b", (3, 5), False)])
def test_people_count_who_rated_this_very_checkpoint_on_rows_of_this_evaluation(monkeypatch, weights, places, is_told):
    summary = {
        "evaluation": "h01", "agreement": {"accuracy": {"alpha_ordinal": 0.5}},
        "scores": {"a": {}, "b": {"human/accuracy": {"value": 4.0, "interval": [3.0, 5.0], "rows": 2}}},
        "wins": [{"first": "a", "second": "b", "win": 1, "tie": 0, "loss": 3, "rate": 0.25, "interval": [0.1, 0.6]}],
        "raters": [{"counted": True, "failed": False}, {"counted": True, "failed": True}, {"counted": False, "failed": True}],
    }  # fmt: skip
    held = {KEY: ballot("a", "b").as_json(), "human/summary.json": json.dumps(summary)}
    imports = [run(name, "", **{"human.imported": "h01"}) for name in ("newest", "older")]
    monkeypatch.setattr(rated.ledger, "tagged", lambda store, tags: imports)
    monkeypatch.setattr(rated, "found_run", lambda store, evaluation: run("exported", ""))
    monkeypatch.setattr(rated, "recorded_text", lambda store, run, name: held[name])
    data = {"name": "sales", "version": "v1", "source": "sales.jsonl", "rows": 2, "ability": ""}
    about = {"dataset": {**data, "digests": {"raw": "ab" * 32}}, "model": {"name": "b", "weights": weights * 64}}
    found = facts(outcome([sample(place) for place in places]), about)
    made = rated.people(None, found)  # type: ignore[arg-type]
    valid({**found, "people": made})
    assert [each["run"] for each in made] == (["newest"] if is_told else [])
    for each in made:
        assert (each["raters"], each["careless"], each["scores"][0]["value"]) == (2, 1, 4.0)
        assert each["wins"] == [{"other": "a", "win": 3, "tie": 0, "loss": 1, "rate": 0.75, "interval": [0.4, 0.9]}]


@pytest.mark.parametrize(("op", "children", "line"), [
    ("compare", ["both-1", "both-2"], "run=it: is a comparison of several evaluations; name an evaluation: both-1, both-2"),
    ("human_import", [], "run=it: holds ratings by people; name an evaluation: rated"),
    ("score", ["it-0", "it-1"], "run=it: is the parent of several runs; name one: it-0, it-1"),
    ("score", [], "run=it: holds no results (FINISHED; it has no readable evaluation.json); evaluate first"),
])  # fmt: skip
def test_what_is_no_evaluation_says_what_it_is_and_which_ones_are_meant(monkeypatch, op, children, line):
    def nothing(*_: Any) -> str:
        raise UserError("there is none")

    monkeypatch.setattr(source, "recorded_text", nothing)
    monkeypatch.setattr(source.ledger, "children", lambda *_: [run(each, "") for each in children])
    monkeypatch.setattr(source.ledger, "evaluations_of", lambda *_: [run("rated", "1")])
    it = run("it", "", stage="eval", **{source.ROWS: "cd"})
    it.params["choice.op"] = op
    with pytest.raises(UserError, match=f"^{re.escape(line)}"):
        source.facts_of(None, it, "it")  # type: ignore[arg-type]


def test_a_file_of_this_machine_is_no_version():
    data: dict[str, Any] = {
        "name": "sales",
        "version": "/home/me/sales.jsonl",
        "source": "/home/me/sales.jsonl",
        "rows": 30,
        "ability": "",
    }
    about = {
        "dataset": {**data, "digests": {"raw": "ab" * 32, "canonical": "cd" * 32}},
        "dataset_name": "sales (/home/me/sales.jsonl)",
    }
    made = gathered.without_places(facts(outcome(warnings=["sales: 3 rows in /home/me/sales.jsonl"]), about))
    assert made["dataset"]["version"] == "sha256 abababababab" and made["dataset_name"] == "sales (sha256 abababababab)"
    assert made["warnings"] == ["sales: 3 rows in sales.jsonl"]


@pytest.mark.parametrize(("said", "chinese_of"), [
    ("100 of 100 answers have room for fewer than 512 tokens: the model's window is 512", chinese.warning),
    ("the evaluations of the record differ in engine, GPU, settings of the engine", chinese.reason),
    ("the record has no evaluation of a, b in which all was asked anew", chinese.reason),
    ("gsm8k: 6 prompts are longer than the model takes and lost their beginning", chinese.warning),
])  # fmt: skip
def test_what_the_record_says_is_chinese_in_a_chinese_report(said, chinese_of):
    assert (
        not re.search(r"\b(the|of|in|are|than|and|engine)\b", chinese_of(said, Lang.zh)) and chinese_of(said, Lang.en) == said
    )


def test_facts_are_chinese_in_a_chinese_report():
    told = [
        ("sampling", "temperature 0.7, top-p 0.9, seed 0, at most 512 tokens"),
        ("answers", "63 asked, 37 known from before"),
    ]
    told += [("opening the model", "not needed"), ("judge", "rubric_zh by j1"), ("judgements known from before", "30")]
    told += [("gsm8k[6]: seen in training", "0 of 6 items"), ("spread over repetitions", "accuracy 0.12, fluency 0.30")]
    made = [" ".join(chinese.fact(name, said, {"accuracy": "准确性", "fluency": "流畅性"}, Lang.zh)) for name, said in told]
    assert not [each for each in made if re.search(r"[a-z]{4,}", each.replace("rubric_zh", "").replace("gsm8k", ""))], made
    assert made[1] == "回答 63 个新问, 37 个缓存中已有"
    benchmark = chinese.fact("gsm8k[6]", "items: 6; few-shot: 5; chat template: none", {}, Lang.zh)
    assert benchmark == ("gsm8k[6]", "题目：6；示例数：5；对话模板：无")


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
