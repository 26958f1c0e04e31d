"""What goes for a budget, over random lineages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.registry.sweeping import Node, Rank, Stored, dominates, protected, sweep


@st.composite
def lineages(draw) -> tuple[list[Node], dict[tuple[int, int], Stored]]:
    """Checkpoints of a few runs, each made of some before it; contents with several names, some elsewhere."""
    count = draw(st.integers(1, 12))
    names = dict[tuple[int, int], int]()
    nodes = list[Node]()
    for number in range(count):
        earlier = [each.id for each in nodes]
        made_of = tuple(draw(st.lists(st.sampled_from(earlier), max_size=3, unique=True))) if earlier else ()
        rests_on = tuple(draw(st.lists(st.sampled_from(earlier), max_size=1))) if earlier else ()
        contents = draw(st.dictionaries(st.tuples(st.just(1), st.integers(1, 8)), st.integers(1, 2), max_size=3))
        for content, names_here in contents.items():
            names[content] = names.get(content, 0) + names_here
        nodes.append(
            Node(
                f"m{number}",
                f"checkpoint-{number}",
                draw(st.sampled_from(["a", "b", "c"])),
                made_of,
                rests_on,
                draw(st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 3).map(float))),
                draw(st.booleans()) and bool(made_of),
                contents,
                "",
                draw(st.sampled_from(["", "", "", "an alias points to it", "its run is running"])),
            )
        )
    stored = {each: Stored(draw(st.integers(0, 100)), total + draw(st.integers(0, 1))) for each, total in names.items()}
    return nodes, stored


def ancestors(nodes: list[Node], ids: set[str]) -> set[str]:
    """An independent walk: all that some were made of, themselves among them."""
    while True:
        more = {each for node in nodes if node.id in ids for each in (*node.made_of, *node.rests_on)} | ids
        if more == ids:
            return ids
        ids = more


def left(nodes: list[Node], stored: dict[tuple[int, int], Stored], gone: set[str]) -> int:
    """Bytes that are there when some are deleted, counted anew."""
    names = {content: each.names for content, each in stored.items()}
    for node in nodes:
        for content, count in node.contents.items() if node.id in gone else ():
            names[content] -= count
    return sum(stored[content].bytes for content, count in names.items() if count > 0)


@given(lineages(), st.integers(0, 900))
def test_no_protected_checkpoint_is_ever_in_a_plan(lineage, budget):
    nodes, stored = lineage
    plan = sweep(nodes, stored, budget)
    going = {each.node.id for each in plan.going}
    safe = ancestors(nodes, {each.id for each in nodes if each.kept})
    assert not going & safe and set(plan.kept) == safe == set(protected(nodes)) and all(plan.kept.values())
    assert plan.before == left(nodes, stored, set()) and plan.after == left(nodes, stored, going)
    assert plan.protected == left(nodes, stored, {each.id for each in nodes} - safe)
    assert plan.after <= budget or plan.after == plan.protected, "it stops only when it fits, or nothing is left to go"
    if plan.going:
        assert plan.after + plan.going[-1].freed > budget, "no more goes than must"


@given(lineages())
def test_what_carries_an_adapter_goes_after_it(lineage):
    nodes, stored = lineage
    order = [each.node.id for each in sweep(nodes, stored, -1).going]
    for place, name in enumerate(order):
        resting = {each.id for each in nodes if name in each.rests_on}
        assert resting <= set(order[:place])


@given(lineages())
def test_dominated_ones_go_before_rebuildable_ones_and_these_before_unique_ones(lineage):
    nodes, stored = lineage
    nodes = [Node(**{**each.__dict__, "rests_on": ()}) for each in nodes]
    plan = sweep(nodes, stored, -1)
    assert [each.rank for each in plan.going] == sorted(each.rank for each in plan.going)
    by_id = {each.id: each for each in nodes}
    for each in plan.going:
        better = [one for one in nodes if dominates(one, each.node)]
        assert (each.rank is Rank.dominated) == bool(better)
        gone = {one.node.id for one in plan.going}
        again = each.node.rebuildable and not set(each.node.made_of) & gone and set(each.node.made_of) <= set(by_id)
        assert each.lost.startswith("nothing") == again


@given(lineages(), st.lists(st.sampled_from(["a", "b", ""]), min_size=12, max_size=12))
def test_of_the_same_weights_one_stays_until_all_doubles_are_gone(lineage, weights):
    nodes, stored = lineage
    nodes = [Node(**{**each.__dict__, "rests_on": (), "weights": one}) for each, one in zip(nodes, weights, strict=False)]
    plan, gone = sweep(nodes, stored, -1), set()
    for each in plan.going:
        gone.add(each.node.id)
        alike = [one for one in nodes if one.weights and one.weights == each.node.weights and one.id != each.node.id]
        left = [one for one in alike if one.id not in gone]
        if each.rank is Rank.double:
            assert left, "the last one is no double"
        elif alike and not left:
            assert all(one.rank is Rank.double for one in plan.going if one.node in alike)
    assert [each.rank for each in plan.going] == sorted(each.rank for each in plan.going)


def test_a_double_is_what_nothing_keeps():
    kept, other = Node("1", "z", "r", weights="w", kept="an alias points to it", contents={(1, 1): 1}), Node(
        "2", "a", "q", weights="w", contents={(1, 2): 1})  # fmt: skip
    (going,) = sweep([kept, other], {(1, 1): Stored(5, 1), (1, 2): Stored(5, 1)}, 5).going
    assert (going.node, going.rank, going.lost) == (other, Rank.double, "nothing: r/z has the same weights")


def test_a_checkpoint_without_numbers_dominates_nothing_and_is_not_dominated():
    one, other = Node("1", "a", "r", numbers={"x": 1.0}), Node("2", "b", "r")
    assert not dominates(one, other) and not dominates(other, one)
    assert dominates(Node("3", "c", "r", numbers={"x": 2.0, "y": 0.0}), one)
    assert not dominates(Node("3", "c", "other", numbers={"x": 2.0}), one)
