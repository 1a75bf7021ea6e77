#!/usr/bin/python3
"""Prints the software bill of materials of an environment, CycloneDX 1.5 as JSON.

packaging/sbom.py ENVIRONMENT

Components are the distributions that pip installed there, and the OpenSSL and libuv that two of them have inside.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

# Libraries in C that wheels have inside, as far as they tell their version: owner, name, version.
_BUNDLED = """
import json
from cryptography.hazmat.backends.openssl import backend
from uvloop.loop import libuv_get_version
libuv = libuv_get_version()
print(json.dumps([
    ["cryptography", "openssl", backend.openssl_version_text().split()[1]],
    ["uvloop", "libuv", f"{libuv >> 16}.{libuv >> 8 & 255}.{libuv & 255}"],
]))
"""


def bill(environment: Path) -> dict[str, Any]:
    """The whole document."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    found = sorted(distributions(path=[str(packages)]), key=_name)
    names = {_name(one) for one in found}
    components = [_component(one) for one in found if _name(one) != "authmilter"]
    (ours,) = (one for one in found if _name(one) == "authmilter")
    depends = {_purl(one): sorted(_needs(one) & names) for one in found}
    purls = {_name(one): _purl(one) for one in found}
    for owner, name, version in _bundled(environment):
        purls[name] = f"pkg:generic/{name}@{version}"
        components.append(
            {"type": "library", "bom-ref": purls[name], "name": name, "version": version, "purl": purls[name]}
        )
        depends[purls[owner]].append(name)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(purls.values()))}",
        "version": 1,
        "metadata": {
            "timestamp": _now().isoformat().replace("+00:00", "Z"),
            "component": {**_component(ours), "type": "application"},
        },
        "components": components,
        "dependencies": [
            {"ref": reference, "dependsOn": [purls[name] for name in needs]} for reference, needs in depends.items()
        ],
    }


def _now() -> datetime:
    """The time of the source, where a build that can be repeated says so (SOURCE_DATE_EPOCH)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC).replace(microsecond=0)


def _component(one: Distribution) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _purl(one),
        "name": one.metadata["Name"],
        "version": one.version,
        "purl": _purl(one),
    }
    licence = _licence(one)
    return {**component, "licenses": [{"license": {"name": licence}}]} if licence else component


def _licence(one: Distribution) -> str:
    """As the distribution words it: an SPDX expression in new ones, else its classifiers, else its first line."""
    fields = one.metadata
    if "License-Expression" in fields:
        return fields["License-Expression"]
    classified = [
        text.rpartition(" :: ")[2] for text in fields.get_all("Classifier") or () if text.startswith("License ::")
    ]
    texts = fields.get_all("License") or [""]
    return ", ".join(classified) or texts[0].strip().partition("\n")[0]


def _needs(one: Distribution) -> set[str]:
    """Names that it requires without a condition; those of extras that are present do no harm in a bill."""
    return {_canonical(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]) for text in one.requires or ()}


def _bundled(environment: Path) -> list[tuple[str, str, str]]:
    done = subprocess.run(  # noqa: S603  the environment's own interpreter
        [environment / "bin/python", "-I", "-B", "-c", _BUNDLED], capture_output=True, text=True, check=True
    )
    return [(owner, name, version) for owner, name, version in json.loads(done.stdout)]


def _name(one: Distribution) -> str:
    return _canonical(one.metadata["Name"])


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _purl(one: Distribution) -> str:
    return f"pkg:pypi/{_name(one)}@{one.version}"


if __name__ == "__main__":
    json.dump(bill(Path(sys.argv[1])), sys.stdout, indent=1)
    sys.stdout.write("\n")
