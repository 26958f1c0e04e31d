"""A report as one page of HTML that needs no script and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from mlops_llm.eval.markup import Html, tag
from mlops_llm.eval.report.document import (
    Cards,
    Case,
    Cases,
    Chapter,
    Charts,
    Document,
    Facts,
    Part,
    Points,
    Table,
    Text,
)

_MORE = (
    "nav{columns:2;font-size:14px;margin:14px 0}nav a{display:block;color:inherit;text-decoration:none;padding:2px 0}"
    "nav a.sub2{padding-left:1.4em;color:var(--soft)}h2.chapter{font-size:22px;color:var(--main);margin-top:48px}"
    ".scroll{margin:12px 0}td.number,th.number{text-align:right}@media print{h2.chapter{break-before:page}}"
)


def html(document: Document) -> str:
    """The page. Every text of a model, a dataset or a judge is shown as text."""
    own = Path(__file__).parents[1].joinpath("page.css").read_text("utf-8")
    policy = tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'")
    head = [
        '<meta charset="utf-8">', policy.removesuffix("</meta>"), '<meta name="viewport" content="width=device-width">',
        tag("title", f"{document.title}: {document.subtitle}"), f"<style>{own}{_MORE}</style>",
    ]  # fmt: skip
    chapters = [(str(place), each) for place, each in enumerate(document.chapters, 1)] + [("A", document.appendix)]
    body = [
        tag("h1", document.title),
        tag("p", document.subtitle, class_="sub"),
        tag("dl", *(cell for row in document.about for cell in (tag("dt", row[0]), tag("dd", row[1])))),
        tag("h2", document.contents),
        tag("nav", *(link for number, each in chapters for link in _links(number, each))),
        *(_chapter(number, each) for number, each in chapters),
    ]
    lang = "zh-Hans" if document.lang == "zh" else document.lang
    return f'<!DOCTYPE html>\n<html lang="{lang}"><head>\n{"".join(head)}\n</head><body>\n{"".join(body)}\n</body></html>\n'


def _links(number: str, chapter: Chapter) -> list[Html]:
    named = [each.title for each in chapter.sections if each.title]
    below = [
        tag("a", f"{number}.{place} {title}", href=f"#s{number}-{place}", class_="sub2") for place, title in enumerate(named, 1)
    ]
    return [tag("a", f"{number} {chapter.title}", href=f"#s{number}"), *below]


def _chapter(number: str, chapter: Chapter) -> Html:
    parts, place = [tag("h2", f"{number} {chapter.title}", id=f"s{number}", class_="chapter")], 0
    for section in chapter.sections:
        inside = [_part(each) for each in section.parts]
        if section.title:
            place += 1
            inside.insert(0, tag("h2", f"{number}.{place} {section.title}", id=f"s{number}-{place}"))
        parts.append(tag("section", *inside))
    return Html("".join(parts))


def _part(part: Part) -> Html:
    if isinstance(part, Text):
        return tag("p", part.text, class_="note" if part.soft else None)
    if isinstance(part, Points):
        if part.warns:
            return Html("".join(tag("div", each, class_="warning") for each in part.items))
        return tag("ul", *(tag("li", each) for each in part.items))
    if isinstance(part, Cards):
        cards = [
            tag("div", tag("span", one.title), tag("b", one.value), tag("small", one.note), class_="card") for one in part.items
        ]
        return tag("div", *cards, class_="cards")
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Facts):
        return tag("dl", *(cell for row in part.rows for cell in (tag("dt", row[0]), tag("dd", row[1]))))
    if isinstance(part, Charts):
        drawn = [tag("figure", tag("figcaption", title), picture) for title, picture in part.items]
        return tag("div", *drawn, class_="charts")
    assert isinstance(part, Cases)
    return Html("".join(map(_case, part.items)))


def _table(part: Table) -> Html:
    def cell(name: str, place: int, said: str) -> Html:
        return tag(name, said if isinstance(said, Html) else tag("bdi", said), class_="number" if place in part.right else None)

    head = tag("tr", *(cell("th", place, part.columns[place]) for place in part.kept))
    body = [tag("tr", *(cell("td", place, row[place]) for place in part.kept)) for row in part.rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def _case(case: Case) -> Html:
    head = tag("h3", case.head, *(tag("span", each, class_="chip") for each in case.chips))
    inside = [cell for name, said in case.rows for cell in (tag("dt", name), tag("dd", said, dir="auto"))]
    return tag("article", head, tag("dl", *inside), class_="sample failed" if case.failed else "sample")
