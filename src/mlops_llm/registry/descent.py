"""Where a model comes from, for a person: a tree in the terminal, a picture, a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlops_llm.eval.layout import cut, document, section, table
from mlops_llm.eval.markup import Html, tag
from mlops_llm.tracking.lineage import KNOWN, Ancestor, Lineage, Used

_WIDTH, _HEIGHT, _GAP, _LETTERS = 230, 48, 26, 33
_COLORS = {"model": "#dbeafe", "data": "#dcfce7", "base": "#fef3c7"}


@dataclass(frozen=True)
class Box:
    """A model, a base or a dataset."""

    key: str
    kind: str
    """`model`, `base` or `data`."""
    name: str
    said: str
    parents: tuple[str, ...] = ()


def boxes(found: Mapping[str, Ancestor]) -> dict[str, Box]:
    """Models with the datasets that they were trained on, the model in question first."""
    made = dict[str, Box]()
    for key, each in found.items():
        data = {_data_key(used): used for used in each.datasets}
        kind = "model" if each.how or each.run or each.parents else "base"
        said = each.how or ("base" if key in KNOWN else "from elsewhere")
        weights = each.tags.get("digest.weights", "")
        said += f", weights {weights[:10]}…" if weights else ""
        made[key] = Box(key, kind, each.name, said, (*each.parents, *data))
        for name, used in data.items():
            made.setdefault(name, Box(name, "data", titled(used), f"{used.context}, {used.rows:,} rows"))
    return made


def lines(all_boxes: Mapping[str, Box]) -> list[str]:
    """The tree as lines; what stands above is not spelled out again."""
    root, seen = next(iter(all_boxes)), set[str]()
    return list(_branch(all_boxes, root, "", "", seen))


def _branch(all_boxes: Mapping[str, Box], key: str, before: str, below: str, seen: set[str]) -> Iterator[str]:
    each = all_boxes.get(key) or Box(key, "base", key, "not recorded")
    again = key in seen and bool(each.parents)
    seen.add(key)
    yield f"{before}{each.name}  ({each.said}{'; see above' if again else ''})"
    for place, parent in enumerate(() if again else each.parents):
        last = place == len(each.parents) - 1
        yield from _branch(all_boxes, parent, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "), seen)


def picture(all_boxes: Mapping[str, Box]) -> Html:
    """The tree as SVG: the model on top, what it was made of beneath."""
    levels = _levels(all_boxes)
    rows = dict[int, list[str]]()
    for key, level in levels.items():
        rows.setdefault(level, []).append(key)
    widest = max(map(len, rows.values()))
    width = widest * (_WIDTH + _GAP) + _GAP
    places = dict[str, tuple[float, float]]()
    for level, keys in rows.items():
        left = (width - len(keys) * (_WIDTH + _GAP) + _GAP) / 2
        for place, key in enumerate(keys):
            places[key] = (left + place * (_WIDTH + _GAP), _GAP + level * (_HEIGHT + 2 * _GAP))
    edges = [
        _edge(places[key], places[parent]) for key, each in all_boxes.items() for parent in each.parents if parent in places
    ]
    drawn = [_drawn(all_boxes[key], *at) for key, at in places.items()]
    height = _GAP + len(rows) * (_HEIGHT + 2 * _GAP)
    return tag(
        "svg",
        tag("rect", width=width, height=height, fill="#ffffff"),
        *edges,
        *drawn,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        font_family="sans-serif",
        role="img",
        aria_label="lineage",
    )


def page(title: str, all_boxes: Mapping[str, Box], lineage: Lineage) -> str:
    """The tree as a page, with every dataset in a table."""
    kinds = tag("p", "blue: checkpoints · green: datasets · yellow: bases", class_="note")
    parts = [tag("h1", cut(title, 200)), section("Lineage", "来源", tag("div", picture(all_boxes), class_="scroll"), kinds)]
    heads = ("dataset", "use", "rows", "run", "digest of the rows")
    rows = [(titled(each), each.context, each.rows, each.run, each.digests.get("canonical", "")) for each in lineage.datasets]
    if rows:
        parts.append(section("Datasets", "数据", table(heads, rows, {2: "number"})))
    parts.append(section("Tree", "树", tag("pre", "\n".join(lines(all_boxes)))))
    for title_of, chinese, said in (
        ("Not recorded", "没有记录", lineage.unknown),
        ("Teachers and reward models", "教师与奖励模型", lineage.influences),
    ):
        if said:
            parts.append(section(title_of, chinese, tag("ul", *(tag("li", each) for each in said))))
    return document(cut(title, 200), parts)


def _levels(all_boxes: Mapping[str, Box]) -> dict[str, int]:
    """Key -> how far down it is drawn: beneath everything that was made of it."""
    levels, waiting, most = {next(iter(all_boxes)): 0}, [next(iter(all_boxes))], len(all_boxes)
    while waiting:
        key = waiting.pop()
        for parent in all_boxes[key].parents:
            below = levels[key] + 1
            if parent in all_boxes and levels.get(parent, -1) < below <= most:  # a record that goes in circles ends somewhere
                levels[parent] = below
                waiting.append(parent)
    return levels


def _drawn(each: Box, left: float, top: float) -> Html:
    middle = left + _WIDTH / 2
    return tag(
        "g",
        tag("title", f"{each.name}: {each.said}"),
        tag("rect", x=left, y=top, width=_WIDTH, height=_HEIGHT, rx=6, fill=_COLORS[each.kind], stroke="#64748b"),
        _word(each.name, middle, top + 20, 12, "#0f172a"),
        _word(each.said, middle, top + 37, 10.5, "#475569"),
    )


def _word(said: str, middle: float, top: float, size: float, fill: str) -> Html:
    return tag("text", cut(said, _LETTERS), x=middle, y=top, text_anchor="middle", font_size=size, fill=fill)


def _edge(child: tuple[float, float], parent: tuple[float, float]) -> Html:
    left, top, right, end = child[0] + _WIDTH / 2, child[1] + _HEIGHT, parent[0] + _WIDTH / 2, parent[1]
    bend = (top + end) / 2
    return tag("path", d=f"M{left} {top}C{left} {bend} {right} {bend} {right} {end}", fill="none", stroke="#94a3b8")


def _data_key(used: Used) -> str:
    return f"data {titled(used)} {used.context} {used.digests.get('canonical', '')}"


def label(used: Used) -> str:
    """Label of a registered version; empty where a file was used that is none, whose place is nobody's business."""
    return used.version if "/" not in used.version else ""


def titled(used: Used) -> str:
    """A dataset version as a person names it."""
    return f"{used.name}@{label(used)}" if label(used) else f"{used.name} (no version)"


def summary(lineage: Lineage) -> Sequence[tuple[str, str]]:
    """What the record knows, in a few lines."""
    return [
        ("runs", ", ".join(lineage.runs)),
        ("trained on", ", ".join(dict.fromkeys(titled(each) for each in lineage.datasets if each.context == "training"))),
        ("bases", ", ".join(lineage.bases)),
        ("influences", "; ".join(lineage.influences)),
        ("not recorded", "; ".join(lineage.unknown)),
    ]
