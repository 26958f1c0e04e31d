"""What a chat template writes around what is said, read off by rendering conversations of marks.

Most templates write a fixed text between two turns, which depends on who spoke and who speaks next. Such a one can be told as
these texts alone, and so be written in any other language of templates; whether it is such a one is tried, not assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm.errors import first_line

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = (SYSTEM, USER, ASSISTANT)
START, NEXT = "", "next"
"""Before the first turn; and in place of a speaker, what the model continues."""
_NEEDED = ("u", "uau", "uauau")
_WITH_SYSTEM = ("su", "suau", "suauau")
_MORE = ("ua", "suaua", "s", "a", "sa", "uasu", "us", "uas")
"""Conversations that many templates refuse, and that some write otherwise: what does not fit is left out."""
_SAID = {
    SYSTEM: ("You sell cups.\n\n- Be brief: {braces} and {{more}}.", "你是一名客服。"),
    USER: ("What does it cost?", "您好，这款产品多少钱？\n\n有没有\t优惠？", 'He said """no""" <b>twice</b>.'),
    ASSISTANT: ("Nine euros.\nOr ten.", "您好！", "```python\nprint({})\n```"),
}


@dataclass(frozen=True)
class Turns:
    """A chat template as texts."""

    gaps: Mapping[tuple[str, str], str]
    """Who spoke and who speaks next -> what stands between what they say."""
    ends: Mapping[str, str]
    """Speaker -> the part of it that belongs to the turn that ends."""
    left_out: tuple[str, ...] = ()
    """What the template does besides, for a person."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Whose turns there are."""
        return tuple(role for role in ROLES if any(role == after for _, after in self.gaps))

    def lead(self, before: str, after: str) -> str | None:
        """What a turn, or what the model continues, begins with; None where that was not tried."""
        gap = self.gaps.get((before, after))
        return None if gap is None else gap[len(self.ends.get(before, "")) :]

    def render(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The text that the model continues; None where a pair of speakers was not tried."""
        text, before = "", START
        for each in messages:
            gap = self.gaps.get((before, each["role"]))
            if gap is None:
                return None
            text, before = text + gap + each["content"], each["role"]
        gap = self.gaps.get((before, NEXT))
        return None if gap is None else text + gap


class NotTurnsError(Exception):
    """The template is no such one; the message says why."""


def read(tokenizer: Any) -> Turns:
    """Read a chat template off what it renders.

    Args:
        tokenizer: with a chat template.

    Raises:
        NotTurnsError: it writes more than texts between turns.
    """
    gaps = dict[tuple[str, str], str]()
    for each in _NEEDED:
        _learn(gaps, _gaps(tokenizer, each), each)
    left_out = []
    try:
        _gaps(tokenizer, _WITH_SYSTEM[0])
    except NotTurnsError as error:
        left_out.append(f"a system text, which the model's own template does not take ({error})")
    else:
        for each in _WITH_SYSTEM:
            _learn(gaps, _gaps(tokenizer, each), each)
    for each in _MORE:
        trial = dict(gaps)
        try:
            _learn(trial, _gaps(tokenizer, each), each)
        except NotTurnsError:
            continue
        if all(_is_same(tokenizer, Turns(trial, {}), spoken) for spoken in _all(trial)):
            gaps = trial
    turns = Turns(gaps, _ends(tokenizer, gaps), tuple(left_out))
    other = next((spoken for spoken in _all(gaps) if not _is_same(tokenizer, turns, spoken)), None)
    if other:
        raise NotTurnsError(f"it writes a conversation of {len(other)} turns otherwise than its parts")
    return Turns(gaps, turns.ends, (*left_out, *_besides(tokenizer, turns)))


def _spoken(letters: str, said: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, str]]:
    """A conversation: `suau` is system, user, assistant, user."""
    roles = [{"s": SYSTEM, "u": USER, "a": ASSISTANT}[letter] for letter in letters]
    if said is None:
        return [{"role": role, "content": f"Mark{place}kraM"} for place, role in enumerate(roles)]
    return [{"role": role, "content": said[role][place % len(said[role])]} for place, role in enumerate(roles)]


def _rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, prompt: bool = True) -> str:
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))
    except Exception as error:
        raise NotTurnsError(first_line(error)) from error


def _gaps(tokenizer: Any, letters: str) -> list[tuple[tuple[str, str], str]]:
    """What stands between the marks of a conversation."""
    messages = _spoken(letters)
    rest, found, before = _rendered(tokenizer, messages), list[tuple[tuple[str, str], str]](), START
    for each in messages:
        gap, mark, rest = rest.partition(each["content"])
        if not mark or each["content"] in rest:
            times = "twice" if mark else "not in its place, or not at all"
            raise NotTurnsError(f"what the {each['role']} says is written {times}")
        found.append(((before, each["role"]), gap))
        before = each["role"]
    return [*found, ((before, NEXT), rest)]


def _learn(gaps: dict[tuple[str, str], str], found: Sequence[tuple[tuple[str, str], str]], letters: str) -> None:
    for pair, gap in found:
        if gaps.setdefault(pair, gap) != gap:
            what = f"{pair[0] or 'the beginning'} and {pair[1]}"
            raise NotTurnsError(f"what it writes between {what} depends on the rest of the conversation ({len(letters)} turns)")


def _ends(tokenizer: Any, gaps: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """Speaker -> what ends a turn: what is written after it where nothing follows, if every gap begins so."""
    ends = dict[str, str]()
    for role, letters in ((USER, "u"), (ASSISTANT, "ua")):
        messages = _spoken(letters)
        try:
            end = _rendered(tokenizer, messages, prompt=False).rpartition(messages[-1]["content"])[2]
        except NotTurnsError:
            continue
        if all(gap.startswith(end) for (before, _), gap in gaps.items() if before == role):
            ends[role] = end
    if (gap := gaps.get((SYSTEM, USER))) is not None:
        lead = gaps[ASSISTANT, USER][len(ends.get(ASSISTANT, "")) :]
        end = gap.removesuffix(lead)
        others = [gap for (before, _), gap in gaps.items() if before == SYSTEM]
        if lead and gap.endswith(lead) and all(each.startswith(end) for each in others):
            ends[SYSTEM] = end
    return ends


def _all(gaps: Mapping[tuple[str, str], str]) -> list[list[dict[str, str]]]:
    """Conversations of real texts whose pairs of speakers are all known."""
    asked = (*_NEEDED, *_WITH_SYSTEM, *_MORE, "uauauau", "suauauau")
    known = Turns(gaps, {})
    return [spoken for each in asked if known.render(spoken := _spoken(each, _SAID)) is not None]


def _is_same(tokenizer: Any, turns: Turns, spoken: Sequence[Mapping[str, str]]) -> bool:
    try:
        return _rendered(tokenizer, spoken) == turns.render(spoken)
    except NotTurnsError:
        return False


def _besides(tokenizer: Any, turns: Turns) -> list[str]:
    """What the template does that texts between turns cannot say, for a person."""
    from mlops_llm.models.template import shows_tools

    padded = [{"role": USER, "content": "  What?\n"}]
    told = []
    if not _is_same(tokenizer, turns, padded):
        told.append("blanks at the ends of what is said, which the model's own template takes off or changes")
    if shows_tools(tokenizer):
        told.append("tools and their calls, which the model's own template writes")
    return told
