"""Modelfiles as Ollama reads them: its parser, and the part of Go's text/template that ours use, told once more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_ACTION = re.compile(r'\{\{ ((?:"(?:[^"\\]|\\.)*"|[^"}])*) \}\}', re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')


def parse(text: str) -> list[tuple[str, str]]:
    """Instructions with their values, as Ollama's parser/parser.go has them: unprintable characters are lost but for blanks."""
    found, place = [], 0
    while place < len(text):
        line, _, _ = text[place:].partition("\n")
        if not line.strip() or line.startswith("#"):
            place += len(line) + 1
            continue
        name, _, rest = line.partition(" ")
        if name == "PARAMETER":
            name, _, rest = rest.partition(" ")
        start = place + len(line) - len(rest)
        if rest.startswith('"""'):
            stop = re.compile(r'"""(?=[ \t]*(\n|$))').search(text, start + 3)
            assert stop, "the value does not end"
            value, place = text[start + 3 : stop.start()], stop.end() + 1
        else:
            value, place = rest.strip().strip('"'), place + len(line) + 1
        assert name in ("FROM", "TEMPLATE", "stop", "num_ctx"), name
        found.append((name, "".join(each for each in value if each.isprintable() or each in "\n\t\r")))
    return found


def collated(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Messages as Ollama gives them to a template: neighbours of one role are joined."""
    found = list[dict[str, str]]()
    for each in messages:
        if found and found[-1]["role"] == each["role"]:
            found[-1]["content"] += "\n\n" + each["content"]
        else:
            found.append(dict(each))
    return found


def execute(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """What a template of Go's makes of a conversation."""
    nodes, end = _block(list(_tokens(template)), 0, ())
    assert end == ""
    return "".join(_run(nodes[0], {"messages": collated(messages)}))


def _tokens(template: str) -> Iterator[tuple[str, str]]:
    place = 0
    for found in _ACTION.finditer(template):
        text = template[place : found.start()]
        assert "{{" not in text and not text.endswith("{"), text
        yield "text", text
        yield "do", found[1]
        place = found.end()
    assert "{{" not in template[place:]
    yield "text", template[place:]


def _block(tokens: list[tuple[str, str]], at: int, ends: tuple[str, ...]) -> tuple[tuple[list[Any], int], str]:
    """Nodes up to one of `ends`, the place after it, and that end."""
    nodes = list[Any]()
    while at < len(tokens):
        kind, said = tokens[at]
        at += 1
        if kind == "text":
            nodes.append(("text", said))
        elif said == "end" or said.startswith("else"):
            assert said.split()[0] in ends, said
            return (nodes, at), said
        elif said == "range .Messages":
            (body, at), _ = _block(tokens, at, ("end",))
            nodes.append(("range", body))
        elif said.startswith("if "):
            node, at = _branch(tokens, at, said[3:])
            nodes.append(node)
        else:
            nodes.append(("do", said))
    return (nodes, at), ""


def _branch(tokens: list[tuple[str, str]], at: int, condition: str) -> tuple[Any, int]:
    (then, at), end = _block(tokens, at, ("end", "else"))
    if end == "end":
        return ("if", condition, then, []), at
    if end.startswith("else if "):
        node, at = _branch(tokens, at, end[8:])
        return ("if", condition, then, [node]), at
    (other, at), _ = _block(tokens, at, ("end",))
    return ("if", condition, then, other), at


def _run(nodes: Sequence[Any], state: dict[str, Any]) -> Iterator[str]:
    for node in nodes:
        if node[0] == "text":
            yield node[1]
        elif node[0] == "range":
            for each in state["messages"]:
                state["dot"] = each
                yield from _run(node[1], state)
            state.pop("dot", None)
        elif node[0] == "if":
            yield from _run(node[2] if _holds(node[1], state) else node[3], state)
        elif found := re.fullmatch(r"(\$\w+) (:=|=) (.+)", node[1]):
            assert (found[1] in state) == (found[2] == "="), "declared once, and before it is set"
            state[found[1]] = _value(found[3], state)
        else:
            yield _value(node[1], state)


def _holds(condition: str, state: dict[str, Any]) -> bool:
    name, first, second = _WORD.findall(condition)
    assert name == "eq"
    return bool(_value(first, state) == _value(second, state))


def _value(word: str, state: dict[str, Any]) -> str:
    if word.startswith('"'):
        return re.sub(r"\\(u[0-9a-f]{4}|U[0-9a-f]{8}|.)", _unescaped, word[1:-1])
    if word.startswith("$"):
        return str(state[word])
    return str(state["dot"][{".Role": "role", ".Content": "content"}[word]])


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] in "uU" and len(code) > 1:
        return chr(int(code[1:], 16))
    return {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}[code]
