"""What should not be in a text: control characters, marks of templates, credentials, personal data.

Texts without any suspicious mark, nearly all of them, cost one search.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from mlops_llm.tracking.secrets import mask


class Suspect(NamedTuple):
    """Something found in a text."""

    rule: str
    """A key of `findings.RULES`."""
    what: str
    """What it is, masked where it is somebody's."""


CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
"""Control characters but tab and line breaks, marks that turn the direction of writing, byte order marks."""
SURROGATE = re.compile("[\ud800-\udfff]")
LEFTOVER = re.compile(
    r"<\|im_start\|>(?:(?:system|user|assistant|tool)\n?)?|<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|<\|begin_of_text\|>|"
    r"<\|start_header_id\|>(?:\w{1,20}<\|end_header_id\|>)?|<\|end_header_id\|>|<\|(?:user|assistant|system|end|observation)\|>|"
    r"<(?:start_of_turn>(?:user|model)?|end_of_turn>)|<｜[\w▁ ]{1,30}｜>|\[/?INST\]|<</?SYS>>|\A\s*<s>|</s>\s*\Z|"
    r"(?m:^)#{2,3} ?(?:Instruction|Input|Response|指令|输入|输出|回答|回复) ?[:：]"
)
"""What chat templates and prompt formats write around texts: ChatML, Llama 2 and 3, Gemma, DeepSeek, GLM, Phi, Alpaca."""
_SECRET = re.compile(
    r"(?i)sk-|hf_|gh[pousr]_|github_pat|AKIA|xox[abprs]-|AIza|eyJ|PRIVATE KEY|key|token|secret|passw|passphrase|pwd|pass=|"
    r"credential|bearer|://|密码|口令|密钥"
)
_TOLD = re.compile(
    r"(?i)((?:密码|口令|密钥|password|passwd|passphrase|pwd|secret|token|api[_ -]?key)['\"]?\s*(?:是|为|is|[:=：])\s*['\"]?)"
    r"((?=[^\s'\",;。，；]*\d)[\x21-\x7e]{6,})"
)
"""What people write in a sentence: a word for a credential, and something with a digit in it."""
_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])([A-Za-z0-9._%+-]{1,64})@((?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24})(?![A-Za-z0-9-])"
)
_RESERVED = re.compile(r"(?i)(^|\.)(example\.(com|org|net)|example|invalid|test|localhost)$")
"""Names kept for documentation (RFC 2606)."""
_MOBILE = re.compile(r"(?<![0-9.])(?:\+?86[- ]?)?(1[3-9][0-9])[- ]?([0-9]{4})[- ]?([0-9]{4})(?![0-9])")
_IDENTITY = re.compile(
    r"(?<![0-9])[1-9][0-9]{5}(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
)
_CARD = re.compile(r"(?<![0-9.])(?:[3-6][0-9]{15,18}|[3-6][0-9]{3}(?:[ -][0-9]{4}){3}(?:[ -]?[0-9]{1,3})?)(?![0-9])")
_UNPRINTABLE = re.compile(f"{CONTROL.pattern[:-1]}\ud800-\udfff]")
_MARKS = (
    "\ufffd", "@", "<|", "<｜", "inst]", "sys>>", "<s>", "</s>", "_of_turn>", "##", "sk-", "hf_", "gh", "akia", "xox",
    "aiza", "eyj", "key", "token", "secret", "passw", "passphrase", "pwd", "pass=", "credential", "bearer", "://",
    "密码", "口令", "密钥",
)  # fmt: skip
"""Of everything looked for in letters, a piece in lower case."""
_NUMBERS = re.compile(r"1[3-9][0-9][- ]?[0-9]{4}[- ]?[0-9]{4}|[0-9]{15}|(?:[0-9]{4}[- ]){3}[0-9]{4}")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_LONGEST = 200_000
"""Characters of a text that are searched for credentials; beyond them they are not looked for."""


def clean(text: str) -> bool:
    """Whether a text holds nothing that `suspects` would look at; the common case, and quick."""
    if not text.isprintable() and _UNPRINTABLE.search(text):
        return False
    lowered = text.lower()
    for mark in _MARKS:
        if mark in lowered:
            return False
    return _NUMBERS.search(text) is None


def suspects(text: str) -> Iterator[Suspect]:
    """All that is suspicious in a text, each once for its kind."""
    lone = SURROGATE.search(text)
    if lone:
        yield Suspect("surrogate", f"half a character (U+{ord(lone[0]):04X}) at character {lone.start() + 1}")
    control = CONTROL.search(text)
    if control:
        yield Suspect("control", f"{_named(control[0])} at character {control.start() + 1}")
    if "\ufffd" in text:
        yield Suspect("replacement", f"{text.count(chr(0xFFFD))} times �, first at character {text.index(chr(0xFFFD)) + 1}")
    leftover = LEFTOVER.search(text)
    if leftover:
        yield Suspect("leftover", f"holds {leftover[0].strip()!r}")
    if _SECRET.search(text) and (hidden := _hidden(text[:_LONGEST])):
        yield Suspect("secret", hidden)
    for what in personal(text):
        yield Suspect("personal", what)


def personal(text: str) -> Iterator[str]:
    """Personal data in a text, masked: e-mail, Chinese mobile and identity numbers, bank cards."""
    for found in _MAIL.finditer(text):
        if not _RESERVED.search(found[2]):
            yield f"an e-mail address ({found[1][:1]}***@{found[2][:1]}***)"
            break
    for found in _MOBILE.finditer(text):
        yield f"a mobile number ({found[1]}****{found[3][2:]})"
        break
    identities = [found[0] for found in _IDENTITY.finditer(text) if is_identity(found[0])]
    if identities:
        yield f"an identity number ({identities[0][:3]}***)"
    for found in _CARD.finditer(text):
        digits = re.sub("[ -]", "", found[0])
        if digits not in identities and is_card(digits):
            yield f"a bank card number ({digits[:2]}***{digits[-2:]})"
            break


def is_identity(number: str) -> bool:
    """Whether the last character of an 18-character Chinese identity number agrees with the rest (GB 11643, ISO 7064)."""
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], _WEIGHTS, strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def is_card(digits: str) -> bool:
    """Whether a card number's last digit agrees with the rest (Luhn, ISO/IEC 7812), and the digits are not all alike."""
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0 and len(set(digits)) > 2


def _hidden(text: str) -> str:
    """The line around the first credential, masked; empty where there is none."""
    masked = mask(_TOLD.sub(r"\1***", text))
    if masked == text:
        return ""
    for line in masked.splitlines():
        if "***" in line and line not in text:
            place = line.index("***")
            return f"looks like a credential: {line[max(0, place - 20) : place + 3]}"
    return "looks like a credential: ***"


def _named(character: str) -> str:
    names = {0: "NUL", 0x1B: "ESC", 0xFEFF: "a byte order mark"}
    return names.get(ord(character), f"U+{ord(character):04X}")
