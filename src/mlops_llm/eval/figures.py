"""Pictures of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlops_llm.eval import charts, shown
from mlops_llm.eval.outcome import Outcome, Score

_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "SimHei", "Arial Unicode MS",
)  # fmt: skip
"""With Chinese characters, the best first."""
_FILES = ("notosanscjk", "notosanssc", "sourcehansans", "pingfang", "msyh", "wqy", "droidsansfallback", "simhei")
"""How the files of such fonts begin."""
_LATIN = "DejaVu Sans"
"""Comes with matplotlib."""
_MOST = 12
"""Scores whose distribution is drawn."""
_LONGEST = 18
"""Characters of a score's name."""


def figures(outcome: Outcome) -> dict[str, Any]:
    """File name -> matplotlib figure, for `record.Run.figure`."""
    found = {}
    if outcome.scores:
        found["plots/scores.png"] = scores(outcome)
    if any(each.scores for each in outcome.samples):
        found["plots/distribution.png"] = distribution(outcome)
    return found


def scores(outcome: Outcome) -> Any:
    """Every score as a bar with its 95 % interval, those of one scale together."""
    from matplotlib.figure import Figure

    scales: dict[float | None, list[Score]] = {}
    for each in outcome.scores:
        scales.setdefault(each.most, []).append(each)
    heights = [len(each) + 1 for each in scales.values()]
    figure = Figure(figsize=(7.5, 0.9 + 0.38 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(scales), 1, squeeze=False, height_ratios=heights)[:, 0]
    title, family = _written([outcome.title], 80)
    figure.suptitle(title[0], fontfamily=family, fontsize=11)
    for axes, (most, several) in zip(panels, scales.items(), strict=True):
        names, family = _written(shown.label(each.name, outcome) for each in several)
        places = range(len(several))
        spans = [each.interval or (each.value, each.value) for each in several]
        # An interval by resampling need not hold the value itself.
        below = [max(0.0, each.value - low) for each, (low, _) in zip(several, spans, strict=True)]
        above = [max(0.0, high - each.value) for each, (_, high) in zip(several, spans, strict=True)]
        axes.barh(places, [each.value for each in several], height=0.62, color="tab:blue", alpha=0.85)
        axes.errorbar([each.value for each in several], places, xerr=[below, above], fmt="none", ecolor="black", capsize=3)
        for place, (each, more) in enumerate(zip(several, above, strict=True)):
            axes.annotate(
                shown.value(each), (each.value + more, place), (5, 0), textcoords="offset points", va="center", fontsize=9
            )
        axes.set_yticks(places, labels=names, fontfamily=family)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.margins(x=0.12)
        if most is not None:
            axes.set_xlim(0, most * 1.12)
    return figure


def distribution(outcome: Outcome) -> Any:
    """How often which value was given, a panel for each score."""
    from matplotlib.figure import Figure

    most = {each.name: each.most for each in outcome.scores}
    names = list(dict.fromkeys(name for each in outcome.samples for name in each.scores))[:_MOST]
    wide = min(3, len(names))
    tall = math.ceil(len(names) / wide)
    figure = Figure(figsize=(3.2 * wide + 0.6, 2.4 * tall + 0.3), layout="constrained")
    panels = figure.subplots(tall, wide, squeeze=False).flat
    titles, family = _written(shown.label(name, outcome) for name in names)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes, name, title in zip(panels, names, titles, strict=False):
        values = [each.scores[name] for each in outcome.samples if name in each.scores]
        found = charts.bins(values, most.get(name))
        places = range(len(found))
        axes.bar(places, [each.count for each in found], width=0.85, color="tab:blue")
        axes.set_xticks(places, labels=[each.label for each in found], fontsize=8, rotation=0 if len(found) < 8 else 45)
        axes.tick_params(axis="y", labelsize=8)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_title(title, fontfamily=family, fontsize=10)
    panels[0].set_ylabel("answers")
    return figure


def _written(texts: Iterable[str], most: int = _LONGEST) -> tuple[list[str], list[str]]:
    r"""Texts as the fonts of this machine can draw them, and the fonts; where no font can, a character is its `\u8bc4`."""
    from matplotlib import font_manager

    texts = list(texts)
    found = [_LATIN, *([] if all(each.isascii() for each in texts) else chinese_font())]
    fonts = [font_manager.get_font(font_manager.findfont(each)) for each in found]

    def drawn(each: str) -> str:
        # `$` would begin a formula.
        can = each.isprintable() and any(font.get_char_index(ord(each)) for font in fonts)
        return f"\\{each}" if each == "$" else each if can else f"\\u{ord(each):04x}"

    return ["".join(_short([drawn(each) for each in text[:most]], most, len(text))) for text in texts], found


def _short(parts: list[str], most: int, whole: int) -> list[str]:
    """As many parts as have room, and a mark where something is left out."""
    kept, left = list[str](), most
    for each in parts:
        left -= len(each) if each.isascii() else 2
        if left < 0:
            break
        kept.append(each)
    return kept if len(kept) == whole else [*kept, "…"]


@cache
def chinese_font() -> list[str]:
    """A font with Chinese characters, if there is one; matplotlib's own list may be older than the font."""
    from matplotlib import font_manager

    there = {each.name for each in font_manager.fontManager.ttflist}
    known = [name for name in _FONTS if name in there]
    if known:
        return known[:1]
    package = find_spec("noto_cjk_sans_otc")
    places = [Path(each) for each in (package.submodule_search_locations if package else None) or ()]
    files = [
        *(file for place in places for file in sorted(place.rglob("*.[ot]t[fc]"))),
        *map(Path, font_manager.findSystemFonts()),
    ]
    for file in sorted(files, key=lambda file: "regular" not in file.name.lower()):
        if file.name.lower().replace("-", "").startswith(_FILES):
            font_manager.fontManager.addfont(file)
            return [font_manager.get_font(file).family_name]
    return []
