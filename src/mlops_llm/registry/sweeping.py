"""Which checkpoints go so that the others fit a budget: nodes of the lineage in, plan and reasons out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

Content = tuple[int, int]
"""A file's content on a disk, whatever names it has: device and inode."""


@dataclass(frozen=True)
class Stored:
    """What is known of a content."""

    bytes: int
    names: int
    """How many names it has on the disk."""


@dataclass(frozen=True)
class Node:
    """A checkpoint."""

    id: str
    name: str
    run: str
    made_of: tuple[str, ...] = ()
    """Ids of what it was trained from, merged of, or lies on."""
    rests_on: tuple[str, ...] = ()
    """Those of them without which it is no model any more: the base of an adapter."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Name -> value, all of one run's checkpoints of the same rows; larger is better."""
    rebuildable: bool = False
    """It has a recipe that makes the same weights again, as long as what it was made of is there."""
    contents: Mapping[Content, int] = field(default_factory=dict)
    """Content -> how many of its names are this checkpoint's."""
    weights: str = ""
    """Digest; of those with the same one all but one are doubles."""
    kept: str = ""
    """Why it stays whatever the budget is: an alias points to it, its run is running."""


class Rank(IntEnum):
    """What goes first."""

    double = 0
    """Another checkpoint has the same weights."""
    dominated = 1
    """Another checkpoint of its run is at least as good in every number, and better in one."""
    rebuildable = 2
    """A command makes the same weights again."""
    unique = 3
    """Only a training could make something like it again."""


@dataclass(frozen=True)
class Going:
    """A checkpoint that goes."""

    node: Node
    rank: Rank
    freed: int
    """Bytes that are free once it and those before it are gone."""
    lost: str
    """What is lost, for a person."""


@dataclass(frozen=True)
class Sweep:
    """The plan."""

    going: tuple[Going, ...]
    kept: Mapping[str, str]
    """Id -> why it stays; of those that fit the budget, nothing."""
    before: int
    """Bytes of all checkpoints."""
    protected: int
    """Bytes that stay whatever the budget is."""

    @property
    def after(self) -> int:
        """Bytes that are left."""
        return self.before - sum(each.freed for each in self.going)


def sweep(nodes: Sequence[Node], stored: Mapping[Content, Stored], budget: int) -> Sweep:
    """Plan what goes: doubles first, then dominated checkpoints, rebuildable ones and unique ones, of each the largest first.

    Never what `kept` names, and nothing that this was made of or rests on.

    Args:
        nodes: all checkpoints whose files are here.
        stored: their contents.
        budget: bytes that all of them may have together.
    """
    kept, tally = protected(nodes), _Tally(stored)
    family = _Family(nodes, kept)
    before, free = sum(each.bytes for each in stored.values()), [each for each in nodes if each.id not in kept]
    of_all = _Tally(stored)
    can_go = sum(of_all.take(each) for each in free)
    taken, gone, left = list[tuple[Node, int]](), set[str](), before
    waiting = sorted(free, key=lambda each: (family.rank(each), -_size(each, stored), each.run, each.name))
    while waiting and left > budget:
        # What others that stay rest on comes after them.
        place = next((at for at, each in enumerate(waiting) if family.resting(each) <= gone), 0)
        node = waiting.pop(place)
        freed = tally.take(node)
        left -= freed
        gone.add(node.id)
        taken.append((node, freed))
    going = tuple(Going(node, family.rank(node), freed, family.lost(node, gone)) for node, freed in taken)
    return Sweep(going, kept, before, before - can_go)


def protected(nodes: Sequence[Node]) -> dict[str, str]:
    """Id -> why it stays: what is kept, and all that this was made of."""
    by_id = {each.id: each for each in nodes}
    found = {each.id: each.kept for each in nodes if each.kept}
    waiting = list(found)
    while waiting:
        child = by_id[waiting.pop()]
        for parent in (*child.made_of, *child.rests_on):
            if parent in by_id and parent not in found:
                found[parent] = f"{child.run}/{child.name} was made of it, and stays"
                waiting.append(parent)
    return found


def dominates(one: Node, other: Node) -> bool:
    """Whether a checkpoint of the same run is at least as good in every number that the other one has, and better in one."""
    if one.run != other.run or one.id == other.id or not other.numbers:
        return False
    if any(name not in one.numbers for name in other.numbers):
        return False
    pairs = [(one.numbers[name], value) for name, value in other.numbers.items()]
    return all(mine >= theirs for mine, theirs in pairs) and any(mine > theirs for mine, theirs in pairs)


class _Tally:
    """What deleting frees: content counts when its last name goes."""

    def __init__(self, stored: Mapping[Content, Stored]) -> None:
        self._stored, self._gone = stored, Counter[Content]()

    def take(self, node: Node) -> int:
        freed = 0
        for content, names in node.contents.items():
            before = self._gone[content]
            self._gone[content] += names
            if before < self._stored[content].names <= self._gone[content]:
                freed += self._stored[content].bytes
        return freed


class _Family:
    """Checkpoints by their run, their weights, and by what rests on them."""

    def __init__(self, nodes: Sequence[Node], kept: Collection[str]) -> None:
        self._ids = {each.id for each in nodes}
        self._of_run, self._resting = dict[str, list[Node]](), dict[str, set[str]]()
        for each in nodes:
            self._of_run.setdefault(each.run, []).append(each)
            for base in each.rests_on:
                self._resting.setdefault(base, set()).add(each.id)
        first = dict[str, Node]()
        for each in sorted(nodes, key=lambda each: (each.id not in kept, each.run, each.name)):
            first.setdefault(each.weights or each.id, each)
        self._same = {each.id: one for each in nodes if (one := first[each.weights or each.id]).id != each.id}
        self._better = {each.id: [one for one in self._of_run[each.run] if dominates(one, each)] for each in nodes}

    def rank(self, node: Node) -> Rank:
        if node.id in self._same:
            return Rank.double
        if self._better[node.id]:
            return Rank.dominated
        return Rank.rebuildable if node.rebuildable else Rank.unique

    def resting(self, node: Node) -> set[str]:
        """Ids of what is no model without this one."""
        return self._resting.get(node.id, set()) - {node.id}

    def lost(self, node: Node, gone: Collection[str]) -> str:
        same = self._same.get(node.id)
        if same and same.id not in gone:
            return f"nothing: {same.run}/{same.name} has the same weights"
        if node.rebuildable and all(each in self._ids and each not in gone for each in node.made_of):
            return "nothing: its recipe makes the same weights again"
        better = next((each for each in self._better[node.id] if each.id not in gone), None)
        if better:
            return f"weights; {better.name} of the same run is better in every number"
        return "weights; what it was made of goes too" if node.rebuildable else "weights that nothing makes again"


def _size(node: Node, stored: Mapping[Content, Stored]) -> int:
    return sum(stored[each].bytes for each in node.contents)
