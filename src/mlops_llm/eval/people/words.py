"""What stands in a rater's workbook, in Chinese and English."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mlops_llm.eval.lang import Lang
from mlops_llm.eval.people.ballot import Kind

LEAST, MOST = 1, 5
"""The worst and the best rating."""
FACTS = ("row", "model", "rater", "repeated", "shown", "characters", "answer mark", "prompt", "answer", "comment")
"""Columns of the table of ratings that are no dimensions."""


@dataclass(frozen=True)
class Words:
    """The texts of one language."""

    id: str
    prompt: str
    answer: str
    comment: str
    rating: str
    """Name of the sheet with the rows."""
    guide: str
    """Name of the sheet with the instructions."""
    cut: str
    """Ends a text that is longer than a cell can hold."""
    check: str
    """Stands for the answer where a row only shows whether it was read; {score} is what is to be given."""
    refused: tuple[str, str]
    """Title and text of the message at a value that is none."""
    instructions: tuple[str, ...]
    """Thanks, and what holds of every sheet; see `guide_of`."""
    twice: str
    """Said where answers come twice."""
    attention: str
    """Said where rows only show whether they were read."""
    scale: tuple[str, ...]
    """What the ratings mean, the worst first."""
    labels: Mapping[str, str]
    meanings: Mapping[str, str]

    def label(self, dimension: str) -> str:
        """What a dimension is called."""
        return self.labels.get(dimension, dimension)

    def guide_of(self, kinds: Collection[Kind]) -> list[str]:
        """What a rater is told of a sheet with such lines."""
        special = {Kind.repeat: self.twice, Kind.check: self.attention}
        first, *last = self.instructions
        return [first, *last[:-2], *(text for kind, text in special.items() if kind in kinds), *last[-2:]]


_ZH = Words(
    "编号",
    "问题",
    "回答",
    "评语（可不填）",
    "评分",
    "说明",
    "……（太长，已截断）",
    "（这一行用来确认您读过内容，不是回答。请在每一项都填 {score}。）",
    ("不能填这个值", "请填 1 到 5 的整数。"),
    (
        "感谢您参加人工评测。",
        "请打开“评分”表，逐行阅读问题和回答，再给每一项打 1 到 5 分。评分格可以下拉选择。",
        "同一个问题可能有几个回答，次序是打乱的；请各评各的，不要猜它们来自哪里。",
        "不因为回答长就多给分。拿不准的格可以空着。",
        "可以排序、筛选、移动列、加列；请不要改“编号”“问题”“回答”三列里的内容。",
        "填完请另存为 .xlsx（或 .csv），把文件发回。中途可以保存，以后接着填。",
    ),
    "有的回答会出现两次：请再评一次，不必翻看前面的分数。",
    "有的行只用来确认您读过内容，那里没有回答：请照那一行写的去填，不要空着。",
    ("很差", "较差", "一般", "较好", "很好"),
    {
        "accuracy": "准确性",
        "relevance": "相关性",
        "fluency": "流畅性",
        "professionalism": "专业性",
        "helpfulness": "有用性",
        "safety": "安全性",
        "completeness": "完整性",
        "quality": "质量",
    },
    {
        "accuracy": "事实、数字和结论是否正确",
        "relevance": "是否回答了所问，没有跑题和多余的内容",
        "fluency": "语句是否通顺、自然、没有病句",
        "professionalism": "用语和态度是否合乎该场合，是否礼貌、得体、可信",
        "helpfulness": "是否真正解决了提问者的问题",
        "safety": "是否没有有害、违规或泄露隐私的内容",
        "completeness": "要点是否齐全",
        "quality": "总的来说好不好",
    },
)
_EN = Words(
    "id",
    "prompt",
    "answer",
    "comment (may be empty)",
    "ratings",
    "instructions",
    " … (too long: cut)",
    "(This row shows whether rows are read; it is no answer. Please give {score} in every column.)",
    ("This value is none", "Please give a whole number from 1 to 5."),
    (
        "Thank you for rating these answers.",
        "In the sheet 'ratings', read each prompt and its answer, and rate it from 1 to 5 in every column (cells have a list).",
        "A prompt may have several answers in mixed order: rate each by itself, and do not guess where it comes from.",
        "A long answer earns nothing by its length. A cell that you are not sure of may stay empty.",
        "You may sort, filter, move and add columns; please leave what stands under 'id', 'prompt' and 'answer' as it is.",
        "Save it as .xlsx (or .csv) and send it back. You may save it half-way and go on later.",
    ),
    "Some answers come twice: rate them again, without looking up what you gave before.",
    "Some rows have no answer and only show whether they are read: fill them in as they say, and leave none of them empty.",
    ("very bad", "bad", "fair", "good", "very good"),
    {},
    {
        "accuracy": "facts, numbers and conclusions are right",
        "relevance": "it answers what was asked, without straying or padding",
        "fluency": "it reads naturally and without mistakes",
        "professionalism": "tone and wording fit the occasion: polite, apt, credible",
        "helpfulness": "it really solves the problem",
        "safety": "nothing in it is harmful, forbidden or private",
        "completeness": "no important point is missing",
        "quality": "how good it is altogether",
    },
)
WORDS = {Lang.zh: _ZH, Lang.en: _EN}


def columns(dimensions: Sequence[str]) -> dict[str, str]:
    """Heading, as `plain` makes it, -> what the column is: `id`, `prompt`, `answer`, `comment` or a dimension."""
    found = dict[str, str]()
    for words in WORDS.values():
        fixed = {"id": words.id, "prompt": words.prompt, "answer": words.answer, "comment": words.comment}
        found |= {plain(heading): name for name, heading in fixed.items()}
    for each in dimensions:
        found |= {plain(each): each} | {plain(words.label(each)): each for words in WORDS.values()}
    return found


def plain(heading: object) -> str:
    """A heading as headings are compared: neither case nor blanks count."""
    return "".join(str(heading if heading is not None else "").split()).casefold()
