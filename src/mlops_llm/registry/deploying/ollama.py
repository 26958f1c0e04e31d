"""A Modelfile for Ollama, with the model's chat template in the language of Go's text/template.

Syntax: https://docs.ollama.com/modelfile and its parser (parser/parser.go), whose quirks are minded here: a text within three
quotation marks keeps line feeds and tabs, and loses every other character that Go calls unprintable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlops_llm.registry.deploying.turns import NEXT, START, Turns

_LAST = "$last"
"""Variable of the template: who spoke before."""


def modelfile(source: str, template: str | None, remarks: Sequence[str], stops: Sequence[str], context: int | None) -> str:
    """Write a Modelfile.

    Args:
        source: the folder or the GGUF, seen from the Modelfile.
        template: in Go's language; None leaves Ollama its own choice.
        remarks: for whoever reads the file.
        stops: texts at which an answer ends.
        context: tokens of a prompt and its answer; None leaves Ollama its own choice.
    """
    lines = [*(f"# {' '.join(each.split())}" for each in remarks), f"FROM {source}"]
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    lines += [f"PARAMETER stop {_quoted(each)}" for each in stops]
    if context:
        lines.append(f"PARAMETER num_ctx {context}")
    return "\n".join(lines) + "\n"


def go(turns: Turns, drop: str = "") -> str:
    """A chat template in Go's language.

    Args:
        turns: what it writes.
        drop: the mark of a text's beginning, where Ollama puts it there by itself.
    """
    leads = {after: _leads(turns, after, drop) for after in (*turns.speakers, NEXT)}
    remembers = any(len(set(each.values())) > 1 for each in leads.values())
    branches = [
        f'{{{{ {"else " if place else ""}if eq .Role "{role}" }}}}'
        f"{_either(leads[role])}{{{{ .Content }}}}{_literal(turns.ends.get(role, ''))}"
        for place, role in enumerate(turns.speakers)
    ]
    return "".join(
        [
            f'{{{{ {_LAST} := "" }}}}' if remembers else "",
            "{{ range .Messages }}",
            *branches,
            "{{ end }}",
            f"{{{{ {_LAST} = .Role }}}}" if remembers else "",
            "{{ end }}",
            _either(leads[NEXT]),
        ]
    )


def _leads(turns: Turns, after: str, drop: str) -> dict[str, str]:
    """Who spoke before -> what a turn begins with."""
    found = {before: lead for before, to in turns.gaps if to == after and (lead := turns.lead(before, after)) is not None}
    if START in found:
        found[START] = found[START].removeprefix(drop)
    return found


def _either(leads: dict[str, str]) -> str:
    """One text, or one of several, by who spoke before."""
    usual = Counter(leads.values()).most_common(1)[0][0]
    others = [(before, lead) for before, lead in leads.items() if lead != usual]
    if not others:
        return _literal(usual)
    words = [
        f'{{{{ {"else " if place else ""}if eq {_LAST} "{before}" }}}}{_literal(lead)}'
        for place, (before, lead) in enumerate(others)
    ]
    return f"{''.join(words)}{{{{ else }}}}{_literal(usual)}{{{{ end }}}}"


def _literal(text: str) -> str:
    """A text as a template of Go's has it: as it is, or as a constant where the template or the Modelfile would change it."""
    is_plain = all(each.isprintable() or each == "\n" for each in text)
    if is_plain and "{{" not in text and '"""' not in text and not text.endswith(("{", '"')) and not text.startswith('"'):
        return text
    return f'{{{{ "{"".join(map(_escaped, text))}" }}}}'


def _escaped(character: str) -> str:
    """A character as a constant of Go's has it."""
    known = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    if character in known:
        return known[character]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _quoted(text: str) -> str:
    """A value of a Modelfile."""
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'
