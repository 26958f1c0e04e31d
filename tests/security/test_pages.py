"""Every page that a stage writes, full of what somebody wrote to take it over, in a real browser: it stays inert."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mlops_llm
from mlops_llm.eval import comparison_page
from mlops_llm.eval import page as evaluation
from mlops_llm.eval.lang import Lang
from mlops_llm.pipeline.ended import Ended, State
from mlops_llm.pipeline.page import page as flow_page
from mlops_llm.pipeline.verdict import Scored, Verdict
from mlops_llm.registry import descent
from mlops_llm.registry.card import card
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.lineage import Ancestor, Lineage, Used
from tests.outcomes import HOSTILE, everywhere
from tests.unit.test_comparison import comparison
from tests.unit.test_comparison import outcome as outcome_of
from tests.unit.test_pipeline import flow, stage
from tests.unit.test_report import made, reported

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TAKEN = "window.taken = 1; fetch('http://127.0.0.1:9/taken')"
PAYLOAD = (
    f"{HOSTILE}</title></style></script></textarea></pre></svg><script>{TAKEN}</script><svg onload=\"{TAKEN}\">"
    f"<img src='http://127.0.0.1:9/seen.png' onerror=\"{TAKEN}\"><iframe srcdoc='<script>parent.taken = 1</script>'></iframe>"
    f"<a href=\"javascript:{TAKEN}\">x</a><meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'><base href=//x/>"
    "<form action=http://127.0.0.1:9><button>x</button></form><link rel=stylesheet href=http://127.0.0.1:9/a.css>"
    f"[x](javascript:{TAKEN}) ![x](http://127.0.0.1:9/b.png) `</code>` ${{{TAKEN}}} onfocus=\"{TAKEN}\" autofocus"
)  # fmt: skip


def _evaluation() -> str:
    return evaluation.page(everywhere(PAYLOAD))


def _comparison() -> str:
    ones = [outcome_of([1.0, 0.0, 0.5], most=None, answer=PAYLOAD), outcome_of([0.2, 0.0, 1.0], most=None, answer=PAYLOAD)]
    found = comparison(*ones)
    models = [dataclasses.replace(each, ref=PAYLOAD) for each in found.models]
    found = dataclasses.replace(found, title=PAYLOAD, models=models, warnings=(PAYLOAD,), unequal=PAYLOAD)
    return comparison_page.page(found, Lang.zh)


def _report() -> str:
    return made(reported(Lang.en, everywhere(PAYLOAD)), "html").decode()


def _flow() -> str:
    found = flow(a=stage("train dataset=x"), b=stage("eval model=y"))
    steps = [dataclasses.replace(each, name=PAYLOAD) for each in found.steps]
    ended = [Ended(each, State.failed, reason=PAYLOAD, command=PAYLOAD, log=Path("x")) for each in steps]
    best = Scored(PAYLOAD, PAYLOAD, {PAYLOAD: 0.5})
    return flow_page(PAYLOAD, PAYLOAD, ended, Verdict([best], PAYLOAD, best, [PAYLOAD], [PAYLOAD]), {}, PAYLOAD)


def _past() -> tuple[dict[str, Ancestor], Lineage]:
    used = Used(PAYLOAD, PAYLOAD, PAYLOAD, "training", 3, {"canonical": PAYLOAD}, PAYLOAD, "1", 0.0)
    above = Ancestor("a", PAYLOAD, PAYLOAD, PAYLOAD, (used,), ("b",))
    base = Ancestor("b", PAYLOAD, "", "", (), ())
    return {"a": above, "b": base}, Lineage((used,), (PAYLOAD,), (PAYLOAD,), (PAYLOAD,), (PAYLOAD,))


def _lineage() -> str:
    found, told = _past()
    return descent.page(PAYLOAD, descent.boxes(found), told)


def _picture() -> str:
    return descent.picture(descent.boxes(_past()[0]))


PAGES: dict[str, Callable[[], str]] = {
    "evaluation.html": _evaluation,
    "comparison.html": _comparison,
    "report.html": _report,
    "pipeline.html": _flow,
    "lineage.html": _lineage,
    "lineage.svg": _picture,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: pages cannot be looked at")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with api.sync_playwright() as play:
        window = play.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield window
        window.close()


def opened(browser: Any, **how: Any) -> Any:
    """An empty page, which is given its time."""
    page = browser.new_page(**how)
    page.set_default_timeout(120_000)
    return page


def looked_at(browser: Any, address: str, *, used: bool = True) -> tuple[Any, list[str], list[str]]:
    """Open a page, and do what a person does; return the open page, what it said, and what it asked for."""
    view = opened(browser)
    said, asked = list[str](), list[str]()
    view.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    view.on("popup", lambda popup: said.append(popup.url))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(address)
    for each in view.locator("summary, th, a[href^='#'], button").all()[:40] if used else ():
        each.click(timeout=60_000, force=True)
    view.keyboard.press("Tab")
    view.wait_for_timeout(100)
    return view, said, asked


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_nothing_and_asks_for_nothing(browser: Any, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(PAGES[name](), "utf-8", errors="backslashreplace")
    view, said, asked = looked_at(browser, file.as_uri())
    try:
        assert view.evaluate("window.taken === undefined") and said == []
        assert [each for each in asked if each.partition("#")[0] != file.as_uri()] == []
        own = 1 if name == "comparison.html" else 0
        foreign = "img, iframe, form, base, link, object, embed, [onload], [onerror], [onfocus], [href^='javascript']"
        assert view.locator("script").count() == own and view.locator(foreign).count() == 0
        if name.endswith(".html"):
            policy = view.locator("meta[http-equiv='Content-Security-Policy']")
            assert "default-src 'none'" in policy.get_attribute("content") and view.locator("meta[http-equiv]").count() == 1
    finally:
        view.close()


@pytest.mark.slow
def test_the_policy_of_a_page_holds_even_if_something_got_through(browser: Any, tmp_path: Path) -> None:
    for name in PAGES:
        if name.endswith(".html"):
            file = tmp_path / name
            broken = PAGES[name]().replace("</body>", f"<script>{TAKEN}</script><img src=x onerror='window.taken = 1'></body>")
            file.write_text(broken, "utf-8", errors="backslashreplace")
            view, said, _ = looked_at(browser, file.as_uri(), used=False)
            assert view.evaluate("window.taken === undefined") and said == [], name
            view.close()


def test_no_page_is_forgotten() -> None:
    """Whatever writes HTML or SVG is among those above: all go through `layout.document`, `report.html` or `descent`."""
    root = Path(mlops_llm.__file__).parent
    made_by = {str(each.relative_to(root)) for each in root.rglob("*.py") if "<!DOCTYPE html>\\n" in each.read_text("utf-8")}
    assert made_by == {"eval/layout.py", "eval/report/html.py"}
    named = {name for each in root.rglob("*.py") for name in re.findall(r"\"(\w+\.(?:html|svg))\"", each.read_text("utf-8"))}
    assert named <= PAGES.keys(), named - PAGES.keys()


def test_a_card_holds_no_markup_of_somebody_else() -> None:
    run = RunRow("i", PAYLOAD, "1", PAYLOAD, "FINISHED", {"command": f"a\n```\n{PAYLOAD}", "version.torch": PAYLOAD}, {}, {})
    said = card(PAYLOAD, {"certificate": PAYLOAD}, [], run, _past(), None)
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", said.split("---", 2)[2], flags=re.MULTILINE | re.DOTALL)
    assert "<" not in outside and not re.search(r"[^\\]\]\(", outside.replace("]\\(", "")), outside
