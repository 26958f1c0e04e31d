from __future__ import annotations

import copy
import gzip
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from mlops_llm import digest
from mlops_llm.data.read import read
from mlops_llm.models import tiny
from mlops_llm.models.digested import digest_now

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
leaves = st.one_of(st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False), texts)
values = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=2)), max_leaves=4
)
rows = st.dictionaries(texts, values, min_size=1, max_size=3)


def turned(value):
    """The same value with the keys of every object in reverse order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(each) for each in value] if isinstance(value, list) else value


def paths(value, path=()):
    """Where the leaves and the empty containers of a value are."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [each for key, part in inner for each in paths(part, (*path, key))]
    return found or [path]


def with_other(value, path):
    """A copy of a value in which one leaf is another."""
    if not path:
        return {"other": value}
    changed = copy.copy(value)
    changed[path[0]] = with_other(value[path[0]], path[1:])
    return changed


class TestRows:
    @given(rows)
    def test_key_order_does_not_matter(self, row):
        assert digest.row(turned(row)) == digest.row(row)

    @given(rows, st.data())
    def test_every_nested_value_matters(self, row, data):
        path = data.draw(st.sampled_from(paths(row)))
        assert digest.row(with_other(row, path)) != digest.row(row)

    @given(rows, rows)
    def test_rows_are_equal_exactly_when_their_digests_are(self, one, other):
        same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
        assert (digest.row(one) == digest.row(other)) == same

    def test_kinds_of_values_differ(self):
        kinds = [1, 1.0, "1", True, [1], {"1": 1}, None, "null", "", [], {}, 0, False, 0.0, -0.0, "true"]
        assert len({digest.row({"a": each}) for each in kinds}) == len(kinds)

    def test_where_a_value_stands_matters(self):
        forms = [
            {"a": "b", "c": ""},
            {"a": "", "c": "b"},
            {"ab": "", "c": ""},
            {"a": {"c": "b"}},
            {"a": ["b", "c"]},
            {"a": ["c", "b"]},
        ]
        assert len({digest.row(each) for each in forms}) == len(forms)

    @given(st.lists(rows, min_size=2, max_size=3), st.data())
    def test_order_and_number_of_rows_matter(self, table, data):
        order = data.draw(st.permutations(range(len(table))))
        moved = [table[place] for place in order]
        assume([digest.row(each) for each in moved] != [digest.row(each) for each in table])
        assert digest.canonical(moved) != digest.canonical(table)
        assert digest.canonical(table[:-1]) != digest.canonical(table)
        assert digest.canonical([*table, table[0]]) != digest.canonical(table)

    @given(st.lists(rows, max_size=3))
    def test_canonical_is_the_digest_of_the_rows_digests(self, table):
        each = [json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")) for row in table]
        parts = [hashlib.sha256(text.encode("utf-8")).digest() for text in each]
        assert digest.canonical(table) == hashlib.sha256(b"".join(parts)).hexdigest()

    def test_file_layout_does_not_matter(self, tmp_path):
        table = [{"prompt": "你好\n", "response": "b", "metadata": {"x": [1, None]}}, {"prompt": "c", "response": "é"}]
        lines = "\n".join(json.dumps(row) for row in table)
        contents = {
            "a.jsonl": lines.encode(),
            "b.jsonl": "\n\n".join(json.dumps(turned(row), ensure_ascii=False) for row in table).encode() + b"\r\n",
            "c.json": json.dumps(table, indent=3).encode(),
            "d.jsonl.gz": gzip.compress(lines.encode()),
            "e.jsonl": b"\xef\xbb\xbf" + lines.encode(),
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        sources = [read(str(tmp_path / name)) for name in contents]
        assert {source.canonical for source in sources} == {digest.canonical(table)}
        assert len({source.raw for source in sources}) == len(contents)

    def test_raw_and_text_are_plain_sha256(self, tmp_path):
        content = "中文\r\n".encode() * 400_000
        (tmp_path / "x").write_bytes(content)
        assert digest.raw(tmp_path / "x") == hashlib.sha256(content).hexdigest()
        assert digest.text("中文") == hashlib.sha256("中文".encode()).hexdigest()


class TestSeen:
    pair = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(-100, 2**31 - 1)), max_size=5).map(
        lambda both: ([a for a, _ in both], [b for _, b in both])
    )

    @given(st.lists(pair, max_size=4), st.lists(pair, max_size=4))
    def test_equal_exactly_when_ids_and_labels_are(self, one, other):
        assert (digest.seen(one) == digest.seen(other)) == (one == other)

    def test_borders_between_rows_and_between_ids_and_labels_matter(self):
        forms = [[([1, 2], [3, 4])], [([1], [3]), ([2], [4])], [([1, 3], [2, 4])], [([1, 2], [3, -100])], [], [([], [])]]
        assert len({digest.seen(each) for each in forms}) == len(forms)


def independent(folder: Path) -> str:
    """The digest of weights as its docstring defines it, read by safetensors itself."""
    total, names = hashlib.sha256(), {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as handle:
            names |= dict.fromkeys(handle.keys(), file)
    for name in sorted(names):
        with safe_open(names[name], framework="np") as handle:
            part = handle.get_slice(name)
            total.update(f"{name}\0{part.get_dtype()}\0{tuple(part.get_shape())}\0".encode())
            total.update(handle.get_tensor(name).tobytes())
    return total.hexdigest()


def by_hand(folder: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> Path:
    """Write a safetensors file from its definition, in the given order of tensors."""
    header, place = {}, 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + len(content)]}
        place += len(content)
    head = json.dumps(header).encode()
    folder.mkdir(parents=True)
    body = b"".join(content for _, _, content in tensors.values())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)
    return folder


@pytest.fixture
def tensors():
    random = np.random.default_rng(0)
    return {
        "embed": random.normal(size=(700, 512)).astype(np.float32),  # longer than one block of reading
        "layer.0.w": random.normal(size=(3, 4)).astype(np.float16),
        "layer.0.b": np.arange(5),
        "mask": np.array([[True, False]]),
        "empty": np.zeros((0, 2), np.float32),
        "scalar": np.array(2.5),
    }


class TestWeights:
    def test_like_an_independent_computation_over_one_file_or_several(self, tensors, tmp_path):
        names = list(tensors)
        layouts = {"one": [names], "turned": [names[::-1]], "two": [names[:2], names[2:]], "each": [[name] for name in names]}
        seen = set()
        for layout, files in layouts.items():
            folder = tmp_path / layout
            folder.mkdir()
            for place, part in enumerate(files):
                save_file(
                    {name: tensors[name] for name in part}, folder / f"model-{place}.safetensors", metadata={"format": layout}
                )
            (folder / "model.safetensors.index.json").write_text("{}")
            seen.add(digest.weights(folder))
            assert digest.weights(folder) == independent(folder)
        assert len(seen) == 1

    def test_like_an_independent_computation_over_a_real_model(self):
        assert digest.weights(tiny.folder()) == independent(tiny.folder())

    def test_order_of_tensors_in_the_file_does_not_matter(self, tmp_path):
        a, b = ("F32", [2], b"12345678"), ("F32", [1], b"abcd")
        assert digest.weights(by_hand(tmp_path / "x", {"a": a, "b": b})) == digest.weights(
            by_hand(tmp_path / "y", {"b": b, "a": a})
        )

    def test_name_dtype_shape_and_every_byte_matter(self, tmp_path):
        a, b = ("F32", [2], b"12345678"), ("F32", [2], b"abcdefgh")
        forms = [
            {"a": a, "b": b},
            {"a": b, "b": a},
            {"a": a, "c": b},
            {"a": a},
            {"a": ("F32", [2], b"12345670"), "b": b},
            {"a": ("F32", [1, 2], a[2]), "b": b},
            {"a": ("F32", [2, 1], a[2]), "b": b},
            {"a": ("I32", [2], a[2]), "b": b},
            {"a": ("F16", [4], a[2]), "b": b},
            {"a": ("BF16", [4], a[2]), "b": b},
            {"a": ("F32", [4], a[2] + b[2]), "b": ("F32", [0], b"")},
        ]
        found = {digest.weights(by_hand(tmp_path / str(place), form)) for place, form in enumerate(forms)}
        assert len(found) == len(forms)

    @given(st.integers(0, 15), st.integers(1, 255))
    def test_any_byte_matters(self, tmp_path_factory, place, change):
        content = bytearray(range(16))
        changed = content.copy()
        changed[place] ^= change
        folder = tmp_path_factory.mktemp("bytes")
        one = digest.weights(by_hand(folder / "x", {"a": ("U8", [16], bytes(content))}))
        assert digest.weights(by_hand(folder / "y", {"a": ("U8", [16], bytes(changed))})) != one

    def test_a_folder_without_weights(self, tmp_path):
        (tmp_path / "pytorch_model.bin").write_bytes(b"x")
        with pytest.raises(FileNotFoundError):
            digest.weights(tmp_path)

    def test_a_file_that_is_cut_off(self, tmp_path):
        folder = by_hand(tmp_path / "x", {"a": ("U8", [16], bytes(range(16)))})
        file = folder / "model.safetensors"
        whole = file.read_bytes()
        for length in (len(whole) - 1, 20, 5, 0):
            file.write_bytes(whole[:length])
            with pytest.raises(ValueError):
                digest.weights(folder)

    @pytest.mark.parametrize("content", [b"\xff" * 64, struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"[]"])
    def test_a_file_of_something_else(self, tmp_path, content):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError):
            digest.weights(tmp_path)


def test_pickled_weights_are_told_apart_without_being_opened(tmp_path: Path) -> None:
    found = set()
    for name, said in (("one", b"a"), ("same", b"a"), ("other", b"b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pytorch_model.bin").write_bytes(said)
        found.add(digest_now(tmp_path / name))
    assert len(found) == 2
