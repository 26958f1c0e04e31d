r"""Solutions that a grader can compare: numbers in many spellings, and short texts.

Understood are `\boxed{…}`, `#### …`, 答案是 …, fractions (3/4, `\frac{3}{4}`, ½, 四分之三, 2又1/3), percents (50%, 百分之五十),
thousands separators, currency signs and units (¥1,299; 297元), signs (-5, 负五, minus 5), Chinese numerals (三百二十五, 1.5万,
1万2千) and full-width digits; anything else is a text. Not understood are algebra (2x + 1), sets and intervals: they are
compared as texts.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_LABELLED = re.compile(
    r"####\s*(?P<hash>[^\n]*)|答案\s*(?:是|为|[:：=])\s*[:：]?\s*(?P<zh>[^\n。；;，]*)"
    r"|(?i:\b(?:the )?(?:final )?answer(?: is|:):?)\s*(?P<en>[^\n;]*)"
)
_LATEX = re.compile(r"\\(?:left|right|displaystyle|[,!;()\[\] ])|\\(?:text|mathrm|mbox)\{([^{}]*)\}|\\?\$")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_MIXED = re.compile(r"(?<=\d)\s*(?=\\[dtc]?frac)|(?<=\d)又(?=\d+ ?/)|(?<=\d)(?=[¼-¾⅐-⅞])")
"""Between a whole number and the fraction that belongs to it."""
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))\s*(?:\{\s*([\d.,]+)\s*\}|(\d))")
_PERCENT = re.compile(r"百分之\s*(-?\d[\d.,]*)|(?<=\d) ?(?i:per ?cent\b)")
_FIRST = r"(?:^|(?<=[=(\[,:<>≈~是为得])|(?<=\b(?i:is|be|to|of))) ?"
"""Before a sign that is no subtraction."""
_MINUS = re.compile(rf"负 ?(?=[\d.¥$€£])|\b(?i:negative) (?=[\d.¥$€£])|{_FIRST}(?:-|(?i:minus)) (?=[\d.¥$€£])")
_WRAPPED = re.compile(r"\(([^()]*)\)")
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*(?:[¥$€£]|RMB|USD|CNY|人民币)?\s*(?P<inner>[-+]?)"
    r"(?:(?P<whole>\d+)\s+(?=\d+\s*/))?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:[eE](?P<power>[-+]?\d{1,3}))?"
    r"(?:\s*/\s*(?P<under>\d+(?:\.\d+)?))?\s*(?P<scale>(?:[十百万亿]|千(?![克米瓦卡]))*)"
    r"\s*(?P<unit>%|°[CF]?|[\u4e00-\u9fff]{1,4}(?:/[\u4e00-\u9fff])?|(?:[kcm]?m|k?g|m?l|s|h|min)[23]?"
    r"|(?<=\s)[A-Za-z][A-Za-z ]{0,20})?"
)
_DIGITS = dict(zip("零〇一二三四五六七八九两壹贰叁肆伍陆柒捌玖", (0, 0, *range(1, 10), 2, *range(1, 10)), strict=True))
_SCALES = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000, "万": 10**4, "亿": 10**8}
_SPOKEN = re.compile(r"(?<![\d.,])\d+(?:\.\d+)?(?:[十百千万亿]+\d+)+(?:[十百千万]*(?![克米瓦卡]))(?![\d.,/])")
"""Digits and scales in turns: 1万2千."""
_WITHIN = re.compile(
    r"(?:(?<![A-Za-z\d)%])-)?(?:[¥$€£] ?)?(?<![A-Za-z_.^\d])(?:\d+ (?=\d+ ?/))?"
    r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?![\d^]|[abcknxyz]\b)(?: ?/ ?\d+)?"
    r" ?(?:[十百万亿]|千(?![克米瓦卡]))*%?"
)
"""A number among words; not the 2 of x2, 2x or 10^2."""
_REACH = 2000
"""Characters at a text's end in which its last number is looked for."""
_AROUND = "。.,;:!?、 \"'“”*`"
_NUMERAL = "".join([*_DIGITS, *_SCALES])
_BARE = set("0123456789.,%/+- 负分之点" + _NUMERAL)
"""Characters of a number that has no unit."""
_UNITS = "元块钱角分个件台只斤克吨米里天日周月年时秒岁人次本张页套双瓶箱盒包份位名辆米升度倍"
_CHINESE = re.compile(
    rf"(?P<sign>负?)(?:(?P<whole>[{_NUMERAL}]+)又)?(?:(?P<percent>百分之)|(?P<under>[{_NUMERAL}]+)分之)?"
    rf"(?P<number>[{_NUMERAL}]+(?:点[{_NUMERAL}]+)?)(?:个?(?:公?[{_UNITS}]|小时|分钟|星期|千克|厘米|元钱|块钱))?"
)
_LAST_WORD = re.compile(
    rf"(?:^|[\s是为共得剩有于到了,:=])(?P<numeral>{_CHINESE.pattern.replace('?P<', '?P<_')})[{re.escape(_AROUND)}]*$"
)


@dataclass(frozen=True)
class Solution:
    """A solution as the grader sees it."""

    text: str
    """Width, case, blanks and closing punctuation do not count."""
    number: Fraction | None = None
    """Its value, where it is a number; of 50 % it is 1/2."""

    def equals(self, other: Solution) -> bool:
        """Whether both say the same: by value where both are numbers, else by their text."""
        if self.number is not None and other.number is not None:
            return self.number == other.number
        return self.text == other.text


def parse(text: str) -> Solution | None:
    """The solution that a text ends with: the last one marked as such, else the whole text; None where there is none.

    A box and `####` go before 答案是 and "the answer is".
    """
    said = marked(text)
    return _read(text if said is None else said)


def marked(text: str) -> str | None:
    """What stands behind the mark that counts; None where nothing is marked."""
    found = _marked(text)
    firm = [said for is_firm, said in found if is_firm] or [said for _, said in found]
    return firm[-1] if firm else None


def spoken(phrase: str) -> Solution | None:
    """The one number that a marked phrase names among words: 一共 8 个, x = 8, (8), 8 because 3 + 5 = 8.

    It is the number that the phrase begins with, or its only one, or what follows its last sign of equality.
    """
    plain = _plain(phrase)
    found = list(_WITHIN.finditer(plain))
    if found and found[0].start() == 0 and plain[found[0].end() :].lstrip()[:1] not in tuple("+-*/×÷=^("):
        return _read(found[0][0])
    if len(found) != 1 or len(re.findall(r"\d[\d.,/ ]*", plain)) != 1:
        found = list(_WITHIN.finditer(plain.rpartition("=")[2])) if "=" in plain else []
    return _read(found[0][0]) if len(found) == 1 else None


def last_number(text: str) -> Solution | None:
    """The last number of a text that marks no answer: in digits, or else a Chinese numeral that ends the text."""
    plain = _plain(text[-_REACH:])
    found = list(_WITHIN.finditer(plain))
    if found:
        return _read(found[-1][0])
    numeral = _LAST_WORD.search(plain[-40:])
    return _read(numeral["numeral"]) if numeral else None


def value(text: str) -> Fraction | None:
    """The value of a text that is one number and nothing else, in any spelling but without a unit; None of any other."""
    plain = _plain(text)
    return None if set(plain) - _BARE else _number(plain)


def problem(text: str) -> str:
    """What keeps a grader from using a solution; empty where nothing does."""
    if "\\boxed{" in text and unclosed(text):
        return "the braces of \\boxed{ do not close"
    marked = _marked(text) or [(True, text)]
    read = [(firm, _read(said)) for firm, said in marked]
    if any(one is None for _, one in read):
        return "it holds nothing to compare"
    known = [(firm, one) for firm, one in read if one is not None and (firm or one.number is not None)]
    for firm, one in known[1:]:
        # Behind 答案是 a sentence may go on, so that only numbers tell.
        if not known[0][1].equals(one) and (firm or known[0][1].number is not None):
            return f"it contradicts itself ({known[0][1].text[:40]} and {one.text[:40]})"
    return ""


def _marked(text: str) -> list[tuple[bool, str]]:
    """What stands behind the marks of a solution, in order, and whether the mark is a firm one."""
    found = [(place, True, said) for place, said in _boxes(text)]
    for match in _LABELLED.finditer(text):
        said = match["hash"] or match["zh"] or match["en"] or ""
        if "\\boxed{" not in said:
            found.append((match.start(), match["hash"] is not None, said))
    return [(firm, said) for _, firm, said in sorted(found)]


def boxed(text: str) -> list[str]:
    r"""What the boxes of a text hold, in order; of a \boxed{ that does not close, and what follows it, nothing."""
    return [said for _, said in _boxes(text)]


def unclosed(text: str) -> bool:
    r"""Whether a \boxed{ does not close."""
    return len(_boxes(text)) < text.count("\\boxed{") - sum(said.count("\\boxed{") for _, said in _boxes(text))


def _boxes(text: str) -> list[tuple[int, str]]:
    """Contents of boxes, whose braces may nest, each with its place."""
    found, place = [], text.find("\\boxed{")
    while place >= 0:
        depth, start = 1, place + len("\\boxed{")
        end = start
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if depth:
            break
        found.append((place, text[start : end - 1]))
        place = text.find("\\boxed{", end)
    return found


def _plain(text: str) -> str:
    """A text without what only sets it: width, LaTeX, bold, runs of blanks, punctuation around it."""
    plain = unicodedata.normalize("NFKC", _MIXED.sub(" ", text)).replace("−", "-").replace("⁄", "/").replace("{,}", ",")
    plain = _BOLD.sub(r"\1", plain)
    plain = _FRACTION.sub(r"\1\2/\3\4", _LATEX.sub(r"\1", plain)).replace("\\%", "%")
    plain = _PERCENT.sub(lambda found: f"{found[1] or ''}%", " ".join(plain.split()))
    plain = _trimmed(_SPOKEN.sub(_written, _MINUS.sub("-", plain)))
    inner = _WRAPPED.fullmatch(plain)
    return _trimmed(inner[1]) if inner else plain


def _trimmed(text: str) -> str:
    """Without punctuation around it; the point of .5 stays."""
    begun = text.lstrip(_AROUND)
    cut = text[: len(text) - len(begun)]
    return ("." if begun[:1].isdigit() and cut.endswith(".") and not cut.endswith("..") else "") + begun.rstrip(_AROUND)


def _written(found: re.Match[str]) -> str:
    """Digits and scales in turns, in digits; what is no number stays."""
    value = _numeral(found[0])
    return found[0] if value is None else str(value.numerator) if value.denominator == 1 else str(float(value))


def _read(text: str) -> Solution | None:
    plain = _plain(text)
    if not any(each.isalnum() for each in plain):
        # A sign or a smile may be the solution of a made-up task; marks of punctuation alone are none.
        return Solution(plain) if any(unicodedata.category(each)[0] == "S" for each in plain) else None
    return Solution(plain.casefold().replace(" ", ""), _number(plain))


def _number(text: str) -> Fraction | None:
    if len(text) > 60:
        return None
    found = _NUMBER.fullmatch(text)
    if found is None:
        return _chinese(text)
    value = Fraction(found["digits"].replace(",", "").rstrip(".") or "0") * Fraction(10) ** int(found["power"] or 0)
    if found["under"]:
        under = Fraction(found["under"])
        if not under:
            return None
        value /= under
    value += int(found["whole"] or 0)
    for each in found["scale"]:
        value *= _SCALES[each]
    if (found["unit"] or "") == "%":
        value /= 100
    return -value if "-" in (found["sign"], found["inner"]) else value


def _chinese(text: str) -> Fraction | None:
    """A number written in Chinese numerals, with a unit or none."""
    found = _CHINESE.fullmatch(text)
    if found is None:
        return None
    whole, _, after = found["number"].partition("点")
    value = _numeral(whole)
    if value is None or any(each not in _DIGITS for each in after):
        return None
    if after:
        value += Fraction(int("".join(str(_DIGITS[each]) for each in after)), 10 ** len(after))
    if found["percent"]:
        value /= 100
    elif found["under"]:
        under = _numeral(found["under"])
        if not under:
            return None
        value /= under
    if found["whole"]:
        whole = _numeral(found["whole"])
        if whole is None or not found["under"]:
            return None
        value += whole
    return -value if found["sign"] else value


def _numeral(text: str) -> Fraction | None:
    """Value of 三百二十五, 一千零五十, 两万三, 二〇二四, 1万2千; None for what is no number (十百)."""
    if all(each in _DIGITS for each in text):
        return Fraction(int("".join(str(_DIGITS[each]) for each in text)))
    total, section, digit, last = Fraction(0), Fraction(0), None, 10**9
    parts = re.findall(r"\d+(?:\.\d+)?|\D", text)
    for each in parts:
        if each not in _SCALES:
            if digit:
                return None
            digit = Fraction(_DIGITS.get(each, each))
            continue
        scale = _SCALES[each]
        if scale >= 10**4:
            section += digit or 0
            if not total + section:
                return None
            total = (total + section) * scale if scale == 10**8 else total + section * scale
            section = Fraction(0)
        elif section and scale >= last:
            return None
        else:
            section += (digit or 1) * scale
        digit, last = None, scale
    # 两万三 is 23,000 and 三百二 is 320, while 三百零二 is 302 and 1万2000 is 12,000.
    is_short = len(parts) > 1 and parts[-2] in _SCALES and len(parts[-1]) == 1
    return Fraction(total + section + (digit or 0) * (last // 10 if is_short else 1))
