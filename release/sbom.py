"""What an installation consists of as CycloneDX 1.4 (JSON), by which scanners know it again."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Sequence
from typing import Any

from packages import Package, installed, project

_SPDX = {
    "0BSD", "AGPL-3.0", "AGPL-3.0-only", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "GPL-2.0-only",
    "GPL-3.0-only", "ISC", "LGPL-2.1-only", "LGPL-3.0-only", "MIT", "MIT-0", "MPL-2.0", "OFL-1.1", "PSF-2.0", "Python-2.0",
    "Unlicense", "Zlib", "ZPL-2.1",
}  # fmt: skip


def bom(packages: Sequence[Package]) -> dict[str, Any]:
    """The document; the same packages give the same one."""
    told = project()
    own = f"pkg:pypi/mlops-llm@{told['version']}"
    component = {
        "type": "application", "bom-ref": own, "name": "mlops-llm", "version": told["version"], "purl": own,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }  # fmt: skip
    refs = {one.name: f"pkg:pypi/{one.name}@{one.version}" for one in packages}
    made: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.4",
        "version": 1,
        "metadata": {"component": component},
        "components": [_component(one, refs[one.name]) for one in packages],
        "dependencies": [
            {"ref": own, "dependsOn": sorted(refs[one.name] for one in packages if one.wanted_by)},
            *({"ref": refs[one.name], "dependsOn": sorted(refs[each] for each in one.needs)} for one in packages),
        ],
    }
    return {**made, "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(made, sort_keys=True))}"}


def _component(one: Package, ref: str) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "library", "bom-ref": ref, "name": one.name, "version": one.version, "purl": ref}
    if one.licence in _SPDX:
        made["licenses"] = [{"license": {"id": one.licence}}]
    elif " AND " in one.licence or " OR " in one.licence:
        made["licenses"] = [{"expression": one.licence}]
    elif one.licence:
        made["licenses"] = [{"license": {"name": one.licence}}]
    if one.home:
        made["externalReferences"] = [{"type": "website", "url": one.home}]
    return made


if __name__ == "__main__":
    json.dump(bom(installed()[0]), sys.stdout, indent=1, ensure_ascii=False)
