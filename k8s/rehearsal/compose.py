"""What is played of deploy/compose.yaml, said in the words of Kubernetes: a service is a StatefulSet of one, its name a
headless Service, its env_file a Secret, and a network a policy that lets its members reach each other.

Order of start, restarts and limits are not compose's here. What is root in its container, because its image then makes
itself somebody else, is that from the beginning, and Postgres keeps its data in a folder that it can make itself.
"""

import subprocess
from pathlib import Path

import yaml
from containers import SECURITY

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OURS = 65532
POSTGRES = 70
# Listeners of others, and what their images write to beside their volumes.
PORTS = {
    "nats": {"client": 4222, "monitor": 8222},
    "postgres": {"sql": 5432},
    "mail": {"smtp": 1025, "web": 8025},
}
WRITTEN = {"postgres": ["/tmp", "/var/run/postgresql"], "mail": ["/tmp"]}
HEALTH = {"nats": ("/healthz", "monitor"), "mail": ("/readyz", "web")}


def read(stampede, folder):
    secrets = folder / "secrets"
    subprocess.run([stampede, "secrets", "--compose", secrets], check=True, stdout=subprocess.DEVNULL)
    text = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    objects, stored = [network(name) for name in text["networks"]], {}
    for name, service in text["services"].items():
        objects += [workload(name, service, stored, secrets), headless(name)]
    return objects, stored, doors(text["services"])


def network(name):
    members = {"matchLabels": {f"network/{name}": "joined"}}
    each = [{"podSelector": members}]
    rules = {"ingress": [{"from": each}], "egress": [{"to": each}]}
    spec = {"podSelector": members, "policyTypes": ["Ingress", "Egress"], **rules}
    return {"kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def headless(name):
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"service": name}, "ports": []}
    return {"kind": "Service", "metadata": {"name": name}, "spec": spec}


def doors(services):
    """`127.0.0.1:8080:8080`, and whose listener that is."""
    found = {}
    for name, service in services.items():
        for published in service.get("ports", []):
            _, here, there = published.split(":")
            found[int(here)] = (
                name,
                next(port for port, number in ports(name, service).items() if number == int(there)),
            )
    return found


def ports(name, service):
    """Of ours, what its settings tell it to listen on."""
    listeners = {key: address for key, address in service.get("environment", {}).items() if key.endswith("_LISTEN")}
    ours = {key.removesuffix("_LISTEN").lower(): int(address.split(":")[1]) for key, address in listeners.items()}
    return PORTS.get(name, ours)


def workload(name, service, stored, secrets):
    is_job = service.get("restart") == "on-failure"
    user = POSTGRES if name == "postgres" else OURS
    volumes, mounts = [], []
    for number, volume in enumerate(service.get("volumes", [])):
        source, path = volume.split(":")[:2]
        if source.startswith("."):
            mount(name, f"file{number}", source, path, stored, secrets, volumes, mounts)
        else:
            volumes.append({"name": source, "emptyDir": {}})
            mounts.append({"name": source, "mountPath": path})
    for number, path in enumerate(WRITTEN.get(name, [])):
        volumes.append({"name": f"written{number}", "emptyDir": {}})
        mounts.append({"name": f"written{number}", "mountPath": path})
    container = {
        "name": name,
        "image": service["image"],
        "env": environment(name, service, stored, secrets),
        "ports": [{"name": port, "containerPort": number} for port, number in ports(name, service).items()],
        "volumeMounts": mounts,
        "securityContext": SECURITY,
        "resources": {"requests": {"memory": "0Mi"}, "limits": {"memory": limit(service)}},
        **({} if is_job else probes(name, service)),
    }
    container |= {"command": service["entrypoint"]} if "entrypoint" in service else {}
    container |= {"args": service["command"]} if "command" in service else {}
    pod = {
        "containers": [container],
        "volumes": volumes,
        "securityContext": {"runAsUser": user, "runAsGroup": user, "fsGroup": user},
        "terminationGracePeriodSeconds": int(service.get("stop_grace_period", "10s").rstrip("s")),
    }
    labels = {"service": name} | {f"network/{network}": "joined" for network in service["networks"]}
    return {
        "kind": "Job" if is_job else "StatefulSet",
        "metadata": {"name": name},
        "spec": {"replicas": 1, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def environment(name, service, stored, secrets):
    lines = (secrets / Path(service["env_file"]).name).read_text().splitlines() if "env_file" in service else []
    stored["secret", name] = {key: text.encode() for key, _, text in (line.partition("=") for line in lines)}
    secret = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}} for key in stored["secret", name]
    ]
    pgdata = [{"name": "PGDATA", "value": "/var/lib/postgresql/data/own"}] if name == "postgres" else []
    return secret + pgdata + [{"name": k, "value": str(v)} for k, v in service.get("environment", {}).items()]


def mount(name, volume, source, path, stored, secrets, volumes, mounts):
    """A file or folder of this machine. Files of one folder are one volume, because a folder is what is mounted."""
    inside = source.removeprefix("./secrets")
    there = secrets / inside.lstrip("/") if inside != source else (DEPLOY / source).resolve()
    files = there.iterdir() if there.is_dir() else [there]
    data = {file.name: file.read_bytes() for file in files}
    target = path if there.is_dir() else str(Path(path).parent)
    same = next((mount["name"] for mount in mounts if mount["mountPath"] == target), None)
    if same:
        stored["configMap", f"{name}-{same}"] |= data
        return
    stored["configMap", f"{name}-{volume}"] = data
    volumes.append({"name": volume, "configMap": {"name": f"{name}-{volume}", "defaultMode": 0o755}})
    mounts.append({"name": volume, "mountPath": target})


def probes(name, service):
    often = {"periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 30}
    if name == "postgres":
        asked = {"exec": {"command": service["healthcheck"]["test"][1:]}} | often
        return {"startupProbe": asked, "readinessProbe": asked, "livenessProbe": asked}
    ready, live = HEALTH.get(name, ("/readyz", "admin")), HEALTH.get(name, ("/livez", "admin"))
    get = {
        what: {"httpGet": {"path": path, "port": port}} | often
        for what, (path, port) in {"r": ready, "l": live}.items()
    }
    return {"startupProbe": get["l"], "readinessProbe": get["r"], "livenessProbe": get["l"]}


def limit(service):
    return service["mem_limit"].replace("m", "Mi").replace("g", "Gi")
