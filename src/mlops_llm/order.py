"""Putting in order what needs each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class CircleError(ValueError):
    """Some wait for each other."""

    def __init__(self, names: Sequence[str]) -> None:
        """Keep the circle.

        Args:
            names: each needs the next one; the last is the first again.
        """
        super().__init__(" -> ".join(names))
        self.names = list(names)


def ordered(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Names, each after those that it needs; those that need nothing of each other stay as they stand.

    Args:
        needs: name -> names that come before it, all of them names here.

    Raises:
        CircleError: some wait for each other.
    """
    done: dict[str, None] = {}

    def visit(name: str, waiting: tuple[str, ...]) -> None:
        if name in waiting:
            raise CircleError([*waiting[waiting.index(name) :], name])
        if name not in done:
            for each in needs[name]:
                visit(each, (*waiting, name))
            done[name] = None

    for each in needs:
        visit(each, ())
    return list(done)
