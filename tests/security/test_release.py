"""What is released: wheel, sdist, a bill of materials that a scanner reads, licences, checksums."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "release"))
audit, build, licences, packages, sbom = map(importlib.import_module, ("audit", "build", "licences", "packages", "sbom"))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed: nothing can be built")
    folder: Path = tmp_path_factory.mktemp("dist") / "dist"
    assert build.main(folder) == 0 and build.main(folder) == 2, "a second time the folder is not empty"
    return folder


def test_everything_is_there_and_is_what_its_checksum_says(released: Path) -> None:
    sums = dict(reversed(line.split("  ")) for line in (released / "SHA256SUMS").read_text().splitlines())
    assert {each.name for each in released.iterdir()} == {*sums, "SHA256SUMS"} and len(sums) == 4
    assert all(hashlib.sha256((released / name).read_bytes()).hexdigest() == told for name, told in sums.items())
    (wheel,), (source,) = released.glob("*.whl"), released.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert "mlops_llm/models/code.py" in names and not [each for each in names if "fuzz/" in each or "tests/" in each]
    with tarfile.open(source) as packed:
        assert any(each.endswith("/LICENSE") for each in packed.getnames())


def test_the_bill_of_materials_is_one(released: Path) -> None:
    (file,) = released.glob("*.cdx.json")
    told = json.loads(file.read_text("utf-8"))
    _validated(told)
    refs = [each["bom-ref"] for each in told["components"]]
    assert len(refs) == len(set(refs)) > 100 and {"torch", "mlflow", "transformers"} <= {
        each["name"] for each in told["components"]
    }
    known = {*refs, told["metadata"]["component"]["bom-ref"]}
    assert {each["ref"] for each in told["dependencies"]} == known
    assert all(set(each["dependsOn"]) <= known for each in told["dependencies"])
    assert told == sbom.bom(packages.installed()[0]), "the same packages give the same document"


def _validated(told: dict[str, Any]) -> None:
    """Against CycloneDX's own schema where its library is installed, and by its rules that matter here."""
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.4") and told["serialNumber"].startswith("urn:uuid:")
    for each in told["components"]:
        assert each["type"] == "library" and each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}"
    try:
        import cyclonedx
    except ImportError:
        return
    from jsonschema import Draft7Validator
    from referencing import Registry, Resource

    (schema,) = (Path(cyclonedx.__file__).parent / "schema").rglob("bom-1.4*.schema.json")
    rules = json.loads(schema.read_text("utf-8"))
    beside = {each.name: Resource.from_contents(json.loads(each.read_text("utf-8"))) for each in schema.parent.glob("*.json")}
    place = rules["$id"].rpartition("/")[0]
    known = Registry().with_resources((f"{place}/{name}", each) for name, each in beside.items())
    Draft7Validator(rules, registry=known).validate(told)


def test_licences_are_listed_and_those_that_ask_for_something_are_named() -> None:
    found, _ = packages.installed()
    written = (ROOT / "docs/licences.md").read_text("utf-8")
    listed = written.partition("## Direct")[0]
    for one in found:
        assert one.name in written, f"{one.name} is new: make licences"
        if licences.kind(one.licence)[0]:
            assert f"[{one.name}]" in listed, f"{one.name} ({one.licence}) asks for something: make licences"
    assert not [one.name for one in found if licences.kind(one.licence)[0] in ("GPL", "AGPL")], "users would have to know"


@pytest.mark.parametrize(
    ("licence", "family"),
    [
        ("MIT", ""), ("", "unknown"), ("GPL-3.0-or-later", "GPL"), ("GNU General Public License v3 (GPLv3)", "GPL"),
        ("LGPL-3.0-only", "LGPL"), ("GNU Library or Lesser General Public License (LGPL)", "LGPL"), ("AGPL-3.0", "AGPL"),
        ("MPL-2.0 AND MIT", "MPL"), ("MPL-2.0 AND (Apache-2.0 OR MIT)", "MPL"), ("GPL-2.0-only OR MIT", ""),
        ("(GPL-2.0-only OR MIT) AND MIT", ""), ("Apache Software License; GNU Affero General Public License v3", "AGPL"),
        ("Other/Proprietary License", "proprietary"),
    ],
)  # fmt: skip
def test_what_a_licence_asks_for(licence: str, family: str) -> None:
    assert licences.kind(licence)[0] == family


def test_an_audit_that_could_not_ask_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """pip-audit says "No known vulnerabilities found" where its database knows none of the packages."""
    monkeypatch.setattr(audit, "find_spec", lambda name: None)
    assert audit.main() == 2 and capsys.readouterr().err == "error: pip-audit is not installed; type: make audit\n"
    monkeypatch.setattr(audit, "find_spec", lambda name: name)
    skipped = [{"name": "jinja2", "skip_reason": "not found on PyPI"}]
    for answer in (([], "no route"), (skipped, ""), ([{"name": "jinja2", "version": "2.4.1", "vulns": []}], "")):
        with mock.patch.object(audit, "asked", lambda _="", answer=answer: answer):
            assert audit.main() == 0 and capsys.readouterr().out.startswith("NOT AUDITED: ")
    bad = {"name": "torch", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    with mock.patch.object(audit, "asked", lambda _="": ([bad, *skipped], "")):
        assert audit.main() == 1
    said = capsys.readouterr().out
    assert "torch 1: CVE-1, mended in 2" in said and "1 packages audited, 1 with known vulnerabilities; 1 are not in" in said
    with mock.patch.object(audit, "asked", lambda package="": ([bad] if package else [{"name": "torch", "vulns": []}], "")):
        assert audit.main() == 0 and capsys.readouterr().out == "1 packages audited, 0 with known vulnerabilities\n"
