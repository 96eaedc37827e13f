"""The manifest of `examples/clusters` against what dask-kubernetes' operator takes.

Its definition comes with the package dask-kubernetes, which zarrloc itself does not need.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

EXAMPLE = Path(__file__).parents[2] / "examples" / "clusters" / "kubernetes.yaml"
CRD = "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"


def _strict(schema: Any) -> Any:
    """The schema, refusing the fields it does not know, which Kubernetes drops without a word."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        found = {"type": ["integer", "string"]}
    return found


def _schema() -> tuple[str, Any]:
    spec = importlib.util.find_spec("dask_kubernetes")
    if spec is None or spec.origin is None:
        pytest.skip("dask-kubernetes, which holds the operator's definition, is not installed")
    crd = yaml.safe_load((Path(spec.origin).parent / CRD).read_text())
    (version,) = [one for one in crd["spec"]["versions"] if one["served"]]
    schema = _strict(version["schema"]["openAPIV3Schema"])
    # What every object of Kubernetes has besides.
    schema["properties"] |= {"metadata": {"type": "object"}, "apiVersion": {}, "kind": {}}
    return f"{crd['spec']['group']}/{version['name']}", schema


def test_the_operator_takes_the_manifest() -> None:
    version, schema = _schema()
    manifest = yaml.safe_load(EXAMPLE.read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == (version, "DaskCluster")
    faults = [
        f"{'/'.join(map(str, fault.absolute_path))}: {fault.message}"
        for fault in Draft202012Validator(schema).iter_errors(manifest)
    ]
    assert not faults
    manifest["spec"]["worker"]["replica"] = manifest["spec"]["worker"].pop("replicas")
    (fault, *_) = Draft202012Validator(schema).iter_errors(manifest)
    assert "replica" in fault.message


def test_its_workers_start_with_options_that_dask_has() -> None:
    spec = yaml.safe_load(EXAMPLE.read_text())["spec"]
    for part in (spec["worker"], spec["scheduler"]):
        (container,) = part["spec"]["containers"]
        _, command, *arguments = container["args"]
        told = subprocess.run(
            [sys.executable, "-m", f"distributed.cli.dask_{command}", "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for option in (one for one in arguments if one.startswith("--")):
            assert f"{option} " in told or f"{option}/" in told, option
