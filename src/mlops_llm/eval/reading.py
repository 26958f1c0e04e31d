"""What a judge's answer says: a JSON object is looked for in it, mended where it must be, and every rating is checked.

An answer that was cut off is never read as a whole one, and a rating that is none is never guessed.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

VERSION = "1"
"""Of the rules in this file: answers that were read by others are not taken for the same."""
R = TypeVar("R")
_MARK = re.compile(r"<(/?)(think|thinking|thought|reasoning)>", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(?:/(\d{1,6})|分|points?|stars?|星)?", re.IGNORECASE)
_VALUES = ("score", "rating", "value", "分数", "得分", "评分")
"""Where a rating stands that is an object itself."""
_COMMENTS = ("comment", "reason", "explanation", "rationale", "feedback", "评语", "评价", "理由", "点评", "说明")
_LONGEST_COMMENT = 2000
_LONGEST = 1 << 16
"""Characters that are read besides thoughts: a server may send megabytes, and to mend them would take hours."""


class UnreadableError(ValueError):
    """An answer that cannot be read; the text says why, so that the judge can be asked again."""


@dataclass(frozen=True)
class Read(Generic[R]):
    """What an answer says."""

    value: R
    comment: str
    repaired: bool
    """It was no JSON as it came."""


@dataclass(frozen=True)
class _Found:
    value: dict[str, Any]
    repaired: bool


def read(text: str, meaning: Callable[[Mapping[str, Any]], R]) -> Read[R]:
    """Read an answer.

    Thoughts in `<think>` are passed over. Every object in the text that stands for itself is tried, be it alone, in a fence or
    amid prose; what is JSON goes before what must be mended.

    Args:
        text: the answer.
        meaning: makes the result of an object; raises UnreadableError for one that is none.

    Raises:
        UnreadableError: the answer ends in the middle, has no object, or none that means anything; or two that differ.
    """
    spoken = _spoken(text)
    parts = list(_objects(spoken))
    problem = UnreadableError("there is no JSON object in the answer")
    for mend in (False, True):
        results = list[Read[R]]()
        for part in parts:
            if (found := _mended(part) if mend else _strict(part)) is None:
                continue
            try:
                results.append(Read(meaning(found.value), _comment(found.value), found.repaired))
            except UnreadableError as error:
                problem = error
        if results:
            if any(each.value != results[-1].value for each in results):
                raise UnreadableError("the answer holds two JSON objects that differ")
            return results[-1]
    raise problem


def ratings(names: Mapping[str, Sequence[str]], most: int = 5) -> Callable[[Mapping[str, Any]], dict[str, float]]:
    """What reads an object as ratings.

    Args:
        names: dimension -> what else it may be called, such as its Chinese name.
        most: the best rating; the worst is 1.

    Returns:
        a function from an object to dimension -> rating, 1 to `most`; it raises UnreadableError where one is missing or none.
        Numbers may stand in texts (`4/5`, `4分`) or in objects with a score; further keys are passed over.
    """
    known = {_plain(each): name for name, others in names.items() for each in (name, *others) if each}

    def meaning(value: Mapping[str, Any]) -> dict[str, float]:
        inner = [each for each in value.values() if isinstance(each, Mapping)]
        found = dict[str, float]()
        for key, said in [*value.items(), *(pair for each in inner for pair in each.items())]:
            name = next((known[part] for part in _parts(str(key)) if part in known), None)
            if name is None:
                continue
            rating = _rating(said, most)
            if rating is None:
                raise UnreadableError(f"'{name}' is {_shown(said)}, not a number from 1 to {most}")
            if found.setdefault(name, rating) != rating:
                raise UnreadableError(f"'{name}' is rated twice, {found[name]:g} and {rating:g}")
        missing = [name for name in names if name not in found]
        if missing:
            raise UnreadableError(f"{', '.join(missing)} not rated")
        return {name: found[name] for name in names}

    return meaning


def alike(names: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """Two names of different dimensions that are read as one; None where all can be told apart.

    Args:
        names: as `ratings` takes them.
    """
    known = dict[str, tuple[str, str]]()
    for name, others in names.items():
        for each in (name, *others):
            owner, word = known.setdefault(_plain(each), (name, each))
            if each and owner != name:
                return word, each
    return None


def choice(keys: Sequence[str], choices: Mapping[str, Sequence[str]]) -> Callable[[Mapping[str, Any]], str]:
    """What reads an object as one of several choices.

    Args:
        keys: under which the choice may stand.
        choices: choice -> how it may be written.

    Returns:
        a function from an object to the choice; it raises UnreadableError where there is none.
    """
    fields = {_plain(key) for key in keys}
    known = {_plain(each): name for name, others in choices.items() for each in (name, *others)}

    def meaning(value: Mapping[str, Any]) -> str:
        said = next((each for key, each in value.items() if _plain(str(key)) in fields), None)
        found = known.get(_plain(said)) if isinstance(said, str) else None
        if found is None:
            raise UnreadableError(f"'{keys[0]}' is {_shown(said)}, none of {', '.join(choices)}")
        return found

    return meaning


def _spoken(text: str) -> str:
    """A text without what the model only thought."""
    text = _unthought(text)
    marks = list(_MARK.finditer(text))
    # A chat template may have written the opening mark itself.
    begins = max((mark.end() for mark in marks if mark[1]), default=0)
    brace = text.find("{", begins)
    if any(not mark[1] and begins <= mark.start() and (brace < 0 or mark.start() < brace) for mark in marks):
        raise UnreadableError("the answer ends before the model has finished thinking")
    if len(text) - begins > _LONGEST:
        raise UnreadableError(f"the answer has more than {_LONGEST:,} characters")
    return text[begins:]


def _unthought(text: str) -> str:
    """A text without its thoughts, from a mark to the next one that closes it; each character is looked at once."""
    marks = [(mark.start(), mark.end(), not mark[1], mark[2].lower()) for mark in _MARK.finditer(text)]
    closing = dict[str, list[int]]()
    for _, end, opens, name in reversed(marks):
        if not opens:
            closing.setdefault(name, []).append(end)
    kept, at = list[str](), 0
    for start, end, opens, name in marks:
        ends = closing.get(name, [])
        while ends and ends[-1] <= end:
            ends.pop()
        if opens and ends and start >= at:
            kept.append(text[at:start])
            at = ends[-1]
    return "".join((*kept, text[at:]))


def _objects(text: str) -> Iterator[str]:
    """The parts of a text from a brace to the one that closes it; braces within quotes are none.

    Raises:
        UnreadableError: the last one is not closed.
    """
    depth, start, is_quoted, is_escaped = 0, 0, False, False
    for place, each in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted:
            is_escaped, is_quoted = each == "\\", each != '"'
        elif each == "{":
            start = start if depth else place
            depth += 1
        elif depth and each == '"':
            is_quoted = True
        elif depth and each == "}":
            depth -= 1
            if not depth:
                yield text[start : place + 1]
    if depth:
        raise UnreadableError("the answer ends within its JSON object")


def _strict(part: str) -> _Found | None:
    """A part that is JSON; control characters within a text are let pass, as models write line breaks there."""
    return _loaded(part, False)


def _loaded(part: str, repaired: bool) -> _Found | None:
    try:
        return _Found(json.loads(part, strict=False, object_pairs_hook=_unique), repaired)
    except UnreadableError:
        raise
    except (ValueError, RecursionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict[str, Any]()
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise UnreadableError(f"'{key[:40]}' stands twice in the JSON object")
    return found


def _mended(part: str) -> _Found | None:
    """A whole part that is nearly JSON: full-width marks, quotes of Python, a comma too many, or what json_repair knows."""
    for text in (part, part.translate(str.maketrans("“”：，", '"":,'))):
        if found := _loaded(re.sub(r",\s*([}\]])", r"\1", text), True):
            return found
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            value = ast.literal_eval(text)
            if isinstance(value, dict):
                return _Found({str(key): each for key, each in value.items()}, True)
    with contextlib.suppress(ImportError, ValueError, RecursionError):
        value = importlib.import_module("json_repair").loads(part)
        if isinstance(value, dict):
            return _Found(value, True)
    return None


def _rating(said: Any, most: int) -> float | None:
    """A rating, or None for what is none: truth values, texts without a number, numbers out of range or of another scale."""
    if isinstance(said, Mapping):
        return next((_rating(said[key], most) for key in _VALUES if key in said), None)
    if isinstance(said, str):
        found = _NUMBER.fullmatch("".join(unicodedata.normalize("NFKC", said).split()))
        if not found or (found[2] and int(found[2]) != most):
            return None
        said = float(found[1])
    if isinstance(said, bool) or not isinstance(said, int | float) or not 1 <= said <= most or not math.isfinite(said):
        return None
    return float(said)


def _comment(value: Mapping[str, Any]) -> str:
    plain = {_plain(str(key)): each for key, each in value.items()}
    found = next((plain[key] for key in _COMMENTS if isinstance(plain.get(key), str)), "")
    return found.strip()[:_LONGEST_COMMENT]


def _plain(word: str) -> str:
    """A name as it is compared: neither width, case, blanks nor marks count, nor the ending of a Chinese quality."""
    word = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", word).casefold())
    return word.rstrip("性度") or word


def _parts(key: str) -> list[str]:
    """A key, and its parts where it has two names: `accuracy（准确性）`."""
    return [_plain(each) for each in (key, *re.split(r"[()/|:]", unicodedata.normalize("NFKC", key)))]


def _shown(said: Any) -> str:
    return json.dumps(said, ensure_ascii=False, default=str)[:40] if said is not None else "null"
