"""Credentials are refused before anything is written, not masked afterwards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mlops_llm.errors import UserError

_NAME = re.compile(
    r"(^|[._-])((api|access|auth|private|secret|account)[_-]?key([_-]?secret)?|(auth|access|api|hub|hf|bearer)[_-]?token|token|"
    r"pwd|pass|credentials?)$|(secret|password|passwd|passphrase)$",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|"
    r"AKIA[A-Z0-9]{16}|LTAI[A-Za-z0-9]{12,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{30,}|"
    r"eyJ[\w-]{10,2000}\.eyJ[\w-]{10,}\.[\w-]{5,}|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----)"
)
_SPECIAL = re.compile(r"(^|[._-])(eos|bos|pad|unk|sep|cls|mask|image|audio|video)_token$")
"""Special tokens of a tokenizer are no credentials."""
_WORD = (
    r"(?:(?:api|access|auth|private|secret|account)[_-]?key(?:[_-]?secret)?|secret|(?<![a-z])pass|password|passwd|pwd|"
    r"passphrase|credentials?|(?<![a-z])(?<!eos_)(?<!bos_)(?<!pad_)(?<!unk_)(?<!sep_)(?<!cls_)token)"
)
_HIDDEN = (
    # name = "value", name: str = "value", "name": "value"
    re.compile(rf"(?i)({_WORD}[\"']?\s*(?::\s*\w+\s*=|[:=])\s*[\"'])([^\"'\n]{{4,}})"),
    # NAME=value of a shell or .env file
    re.compile(r"(?<![A-Z0-9_])([A-Z0-9_]{0,80}(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|PWD)=)([^\s\"'(),]{6,})"),
    # a line of YAML, or an assignment to a plain word
    re.compile(
        rf"(?im)^([+ -]?[ \t]*(?:- )?[\w.-]*{_WORD}:[ \t]++)"
        r"((?!(?:str|int|bool|float|None|null|True|False)\b)(?=[^\n]*[\d_-])[^\"'(){}\[\]=,#\n]{4,})$"
    ),
    re.compile(
        rf"(?im)^([+ -]?[ \t]*(?:export[ \t]+)?[\w.-]*{_WORD}[ \t]*[:=][ \t]*)"
        r"((?!str\b|None\b|null\b|True\b|False\b)[^\s\"'(){}\[\].,]{6,})$"
    ),
    re.compile(rf"(?im)^([+ -]?[\w.-]*{_WORD}=)([^\s\"'(){{}}\[\],]{{6,}})$"),
    # headers, command lines, connection strings, addresses
    re.compile(r"(?i)(\bbearer\s+)([\w.~+/-]{8,})"),
    re.compile(r"(?i)(\bauthorization[\"']?\s*[:=]\s*[\"']?\w+\s+)([^\s\"']{6,})"),
    re.compile(r"(\bcurl\b.{0,300}?\s(?:-u|--user)[ =]?[\"']?[^\s:\"']+:)([^\s\"']+)"),
    re.compile(rf"(?i)(\s--[\w-]*{_WORD}[ =])([^\s\"'-][^\s\"']+)"),
    re.compile(r"(?i)(\b(?:AccountKey|SharedAccessKey)=)([^;\s\"']{6,})"),
    re.compile(rf"(?i)([?&](?:[\w-]*{_WORD}|key|sig|signature)=)([^&\s\"']+)"),
    re.compile(r"((?<!\w)\w{1,20}://[^/\s:@]*:)([^/\s@]+(?=@))"),
)
"""What stands before a credential, and the credential. Runs are bounded, or begin at one place and are given back at none: a
line may have a million characters."""
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL)
_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_SHORTEST = 8


def refuse(values: Mapping[str, Any]) -> None:
    """Check flat settings (dotted key -> value).

    Raises:
        UserError: a key names a credential and has a value, or a value is one. The value is not repeated.
    """
    known = _values_of_variables()
    for key, value in values.items():
        leaf = key.rsplit(".", 1)[-1]
        for text in _texts(value):
            inside = [name for secret, name in known.items() if secret in text]
            if inside:
                raise UserError(
                    f"the value of the variable {inside[0]} would be written into the record", key, _instead(key, leaf)
                )
            number = leaf.lower().endswith("token") and re.fullmatch(r"\d{1,9}|true|false", text)
            named = _NAME.search(leaf) and not _SPECIAL.search(leaf) and not number
            if named or _VALUE.search(text) or _userinfo(text):
                raise UserError("looks like a credential, and settings are recorded", key, _instead(key, leaf))


def refuse_overrides(overrides: Iterable[str]) -> None:
    """Check command-line overrides before Hydra writes them to its run folder."""
    for key, equals, value in (item.lstrip("+~").partition("=") for item in overrides):
        if equals:
            refuse({key.partition("@")[0]: value.strip("'\"")})


def mask(text: str) -> str:
    """Replace what looks like a credential in free text, such as a patch, by `***`."""
    for value in _values_of_variables():
        text = text.replace(value, "***")
    text = _BLOCK.sub(lambda found: "***" + "\n" * found[0].count("\n"), text)
    text = _VALUE.sub("***", text)
    for pattern in _HIDDEN:
        text = pattern.sub(r"\1***", text)
    return text


def mask_address(address: str) -> str:
    """Drop user and password from an address, for printing."""
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _instead(key: str, leaf: str) -> str:
    setting = f"{key}_env" if _NAME.search(leaf) else "SETTING_env"
    return f"take it out; where a secret is needed, name the environment variable that holds it: {setting}=VARIABLE"


def _texts(value: Any) -> Iterator[str]:
    """All texts in a setting's value."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str) and value not in ("", "???"):
        yield value


def _userinfo(value: str) -> bool:
    return bool(re.search(r"(?<!\w)\w{1,20}://[^/\s:@]*:[^/\s@]+@", value))


def _values_of_variables() -> dict[str, str]:
    return {value: name for name, value in os.environ.items() if _VARIABLE.search(name) and len(value) >= _SHORTEST}
