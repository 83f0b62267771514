"""What is played of an overlay: its objects, the data of its ConfigMaps and Secrets, and its doors."""

import base64
import os
import subprocess
from pathlib import Path

import yaml
from cloudnative import operate

REPOSITORY = Path(__file__).resolve().parents[2]
# Kinds that are played, and kinds of which there is nothing to play: nobody is refused, placed, evicted or scaled here.
PLAYED = {"Deployment", "StatefulSet", "Job", "Cluster", "ConfigMap", "Service", "NetworkPolicy"}
LEFT_OUT = {"Namespace", "ServiceAccount", "PodDisruptionBudget", "PriorityClass", "CronJob", "Database"}


def read(overlay, stampede, folder):
    """The overlay with the component `load`, and secrets made for it."""
    here = folder / "overlay"
    here.mkdir()
    there = os.path.relpath(REPOSITORY / "k8s", here)
    kustomization = {"resources": [f"{there}/overlays/{overlay}"], "components": [f"{there}/components/load"]}
    (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    objects = [thing for thing in yaml.safe_load_all(output("kubectl", "kustomize", here)) if thing]
    unknown = {thing["kind"] for thing in objects} - PLAYED - LEFT_OUT
    if unknown:
        raise ValueError(f"the rehearsal does not know {', '.join(sorted(unknown))}")

    stored = {}
    for thing in yaml.safe_load_all(output(stampede, "secrets", "--state", folder / "state")):
        if thing and thing["kind"] == "Secret":
            data = {key: base64.b64decode(text) for key, text in thing["data"].items()}
            stored["secret", thing["metadata"]["name"]] = data
    for thing in objects:
        if thing["kind"] == "ConfigMap":
            data = {key: text.encode() for key, text in thing["data"].items()}
            stored["configMap", thing["metadata"]["name"]] = data
    objects = operate(objects, stored)
    return objects, stored, doors(objects)


def doors(objects):
    """What a port of this machine leads to: as deploy/kind/cluster.yaml says, or, without NodePorts, as forwarded."""
    kind = yaml.safe_load((REPOSITORY / "deploy/kind/cluster.yaml").read_text())
    behind = {
        port["nodePort"]: (thing["spec"]["selector"]["app.kubernetes.io/name"], port["targetPort"])
        for thing in objects
        if thing["kind"] == "Service"
        for port in thing["spec"]["ports"]
        if "nodePort" in port
    }
    if not behind:
        return {8080: ("gateway", "http"), 8081: ("psp-sim", "tokens")}
    mappings = [port for node in kind["nodes"] for port in node.get("extraPortMappings", [])]
    return {port["hostPort"]: behind[port["containerPort"]] for port in mappings}


def output(*command):
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout
