"""Whether the answer names the right class."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.interval import Intervals, bootstrap
from mlops_llm.eval.metric import Item, Need, Scores, Sums, check
from mlops_llm.eval.words import named, plain
from mlops_llm.record import Grid

UNKNOWN = "(unknown)"
"""Column of answers that name no class, or several."""


@component("metric", "label")
@dataclass
class Label:
    """Share of answers that name the row's class (accuracy), and F1 averaged over classes (macro), as scikit-learn counts it.

    An answer that is a class, punctuation around it apart, is of that class; else one that names a single class. One that
    names none or several is of no class, and wrong. Tables: how often each class was taken for which (confusion), and
    precision, recall and F1 of each.
    """

    names: ClassVar[tuple[str, ...]] = ("label_accuracy", "label_macro_f1")
    higher_is_better: ClassVar[bool | None] = True
    most: ClassVar[float | None] = 1.0
    needs: ClassVar[Need] = Need.label

    classes: list[str] = field(default_factory=list)
    """All classes, if rows do not have each of them; empty takes those of the rows."""

    def check(self, items: Sequence[Item]) -> None:
        """See that each row has a label, and one of the classes where they are given.

        Raises:
            UserError: one has not.
        """
        check(items, self.needs)
        self._places(items)

    def settled(self, items: Sequence[Item]) -> Label:
        """With the classes of these rows."""
        return replace(self, classes=self._places(items)[0])

    def score(self, items: Sequence[Item]) -> Scores:
        """1 or 0 of each answer, accuracy, macro F1 and the tables.

        Raises:
            UserError: there are no answers, or a row has no label.
        """
        self.check(items)
        import numpy

        classes, right = self._places(items)
        said = [predicted(item.answer, classes) for item in items]
        count, wide = len(classes), len(classes) + 1
        cells = numpy.array([true * wide + (count if each is None else each) for true, each in zip(right, said, strict=True)])

        def confusion(places: Any) -> Any:
            return numpy.bincount(cells[places], minlength=count * wide).reshape(count, wide)

        whole = confusion(slice(None))
        found = [float(true == each) for true, each in zip(right, said, strict=True)]
        total = {"label_accuracy": sum(found) / len(found), "label_macro_f1": macro(f1(whole))}
        drawn = partial(bootstrap, len(items), lambda places: macro(f1(confusion(places))))
        intervals = Intervals({"label_macro_f1": drawn} if len(items) > 1 else {})
        signature = f"classes:{','.join(classes)}|found:whole answer, else the only one named"
        sums = {"label_macro_f1": Sums(_counts(right, said, count), _macro)}
        return Scores(total, {"label_accuracy": found}, signature, intervals, _tables(classes, whole), sums)

    def _places(self, items: Sequence[Item]) -> tuple[list[str], list[int]]:
        """The classes, and the place among them of each row's."""
        labels = [plain(str(item.label)) for item in items]
        spelled: dict[str, str] = {}
        for each in self.classes or sorted(str(item.label) for item in items):
            spelled.setdefault(plain(each), each.strip())
        for place, label in enumerate(labels, 1):
            if label not in spelled:
                what = f"the label of row {place} of {len(items)}, '{items[place - 1].label}', is none of the classes"
                raise UserError(what, "metric.label.classes", f"name it too; there are: {', '.join(spelled.values())}")
        places = {each: place for place, each in enumerate(spelled)}
        return list(spelled.values()), [places[each] for each in labels]


def predicted(answer: str, classes: Sequence[str]) -> int | None:
    """Place of the class that an answer is or names, see `Label`; None where that cannot be told."""
    bare = _bare(answer)
    for place, each in enumerate(classes):
        if bare and bare == _bare(each):
            return place
    found = named(answer, classes)
    return found.pop() if len(found) == 1 else None


def _bare(text: str) -> str:
    """A text without what stands around it: blanks, quotes, full stops, asterisks."""
    bare = plain(text)
    marks = {each for each in bare if unicodedata.category(each)[0] == "P"}
    return bare.strip("".join(marks) + " ") or bare


def f1(confusion: Any) -> tuple[Any, Any]:
    """F1 of each class, 0 where it was never found, and whether the class occurs at all.

    Args:
        confusion: classes x (classes, unknown): rows are true, columns answered.
    """
    import numpy

    hits = numpy.diagonal(confusion)
    both = confusion.sum(1) + confusion[:, :-1].sum(0)
    return 2 * hits / numpy.maximum(both, 1), both > 0


def _counts(right: Sequence[int], said: Sequence[int | None], classes: int) -> Any:
    """Of each answer what F1 adds up: for each class whether it was found, and how often it occurs in row and answer."""
    import numpy

    counts = numpy.zeros((len(right), 2 * classes))
    for place, (true, each) in enumerate(zip(right, said, strict=True)):
        counts[place, classes + true] += 1
        if each is not None:
            counts[place, classes + each] += 1
        if each == true:
            counts[place, true] = 1
    return counts


def _macro(added: Any) -> float:
    import numpy

    hits, both = added.reshape(2, -1)
    return macro((2 * hits / numpy.maximum(both, 1), both > 0))


def macro(of_classes: tuple[Any, Any]) -> float:
    """The mean of F1 over the classes that occur, in rows or in answers."""
    values, occurs = of_classes
    return float(values[occurs].mean())


def _tables(classes: Sequence[str], confusion: Any) -> dict[str, Grid]:
    rows = [[name, *map(int, row)] for name, row in zip(classes, confusion, strict=True)]
    each, answered, values = [], confusion[:, :-1].sum(0), f1(confusion)[0]
    for place, name in enumerate(classes):
        hits, true, said = int(confusion[place, place]), int(confusion[place].sum()), int(answered[place])
        precision, recall = (round(hits / of, 4) if of else None for of in (said, true))
        each.append([name, true, precision, recall, round(float(values[place]), 4)])
    return {
        "confusion": Grid("classes (rows) and what was answered (columns)", ["class", *classes, UNKNOWN], rows),
        "classes": Grid("each class", ["class", "rows", "precision", "recall", "f1"], each),
    }
