"""What CloudNativePG makes of a Cluster and its Databases, as far as others see it.

One server under the names that they know, with the roles, databases and rules for entering of the manifests. It has no
standbys: nothing is replicated here, and what the operator does when one dies is not rehearsed.
"""

from containers import SECURITY

USER = 26
CONFIGURATION = "cloudnative-pg"


def operate(objects, stored):
    """The objects with each Cluster replaced by what runs; what its pods need to read goes to the stored."""
    databases = [thing["spec"] for thing in objects if thing["kind"] == "Database"]
    made = []
    for thing in objects:
        if thing["kind"] != "Cluster":
            made.append(thing)
            continue
        spec = thing["spec"]
        rules = ["local all all trust", *spec["postgresql"]["pg_hba"]]
        stored["configMap", CONFIGURATION] = {
            "pg_hba.conf": "\n".join([*rules, ""]).encode(),
            "databases.sh": "\n".join(["#!/bin/sh", "set -eu", *statements(spec, databases), ""]).encode(),
        }
        made += [server(thing["metadata"]["name"], spec), *services(thing["metadata"]["name"], spec)]
    return made


def statements(spec, databases):
    first = spec["bootstrap"]["initdb"]
    roles = {first["owner"]: {"name": first["owner"], "passwordSecret": first["secret"]}}
    roles |= {role["name"]: role for role in spec["managed"]["roles"]}
    for role in sorted(roles.values(), key=lambda role: "inRoles" in role):
        groups = f" IN ROLE {', '.join(role['inRoles'])}" if "inRoles" in role else ""
        yield sql(
            f"CREATE ROLE {role['name']} LOGIN PASSWORD '$(cat /passwords/{role['passwordSecret']['name']})'{groups}"
        )
    for database in [{"name": first["database"], "owner": first["owner"]}, *databases]:
        yield sql(f"CREATE DATABASE {database['name']} OWNER {database['owner']}")


def sql(statement):
    return f'psql --quiet --set ON_ERROR_STOP=1 --username postgres --dbname postgres --command "{statement}"'


def server(name, spec):
    settings = {"hba_file": "/configuration/pg_hba.conf", "listen_addresses": "*", **spec["postgresql"]["parameters"]}
    secrets = [spec["bootstrap"]["initdb"]["secret"], *(role["passwordSecret"] for role in spec["managed"]["roles"])]
    asks = {
        "exec": {"command": ["pg_isready", "--quiet"]},
        "periodSeconds": 1,
        "timeoutSeconds": 3,
        "failureThreshold": 60,
    }
    container = {
        "name": "postgres",
        "image": spec["imageName"],
        "args": [word for key, value in settings.items() for word in ("-c", f"{key}={value}")],
        "env": [
            {"name": "PGDATA", "value": "/data/pgdata"},
            {"name": "POSTGRES_PASSWORD", "value": "nobody-logs-in-with-this"},
            {"name": "POSTGRES_INITDB_ARGS", "value": "--encoding=UTF8 --locale=C"},
        ],
        "ports": [{"name": "sql", "containerPort": 5432}],
        "resources": spec["resources"],
        "securityContext": SECURITY,
        "startupProbe": asks,
        "readinessProbe": asks,
        "livenessProbe": asks,
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "configuration", "mountPath": "/configuration"},
            {"name": "databases", "mountPath": "/docker-entrypoint-initdb.d"},
            {"name": "passwords", "mountPath": "/passwords"},
            {"name": "run", "mountPath": "/var/run/postgresql"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    passwords = [{"secret": {"name": s["name"], "items": [{"key": "password", "path": s["name"]}]}} for s in secrets]
    one = {"name": CONFIGURATION, "defaultMode": 0o555}
    pod = {
        "containers": [container],
        "securityContext": {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER},
        "terminationGracePeriodSeconds": 30,
        "volumes": [
            {"name": "configuration", "configMap": one | {"items": [{"key": "pg_hba.conf", "path": "pg_hba.conf"}]}},
            {"name": "databases", "configMap": one | {"items": [{"key": "databases.sh", "path": "databases.sh"}]}},
            {"name": "passwords", "projected": {"defaultMode": 0o440, "sources": passwords}},
            {"name": "run", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    labels = spec["inheritedMetadata"]["labels"] | {"cnpg.io/cluster": name, "cnpg.io/instanceRole": "primary"}
    return {
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        },
    }


def services(cluster, spec):
    for service in spec["managed"]["services"]["additional"]:
        assert service["selectorType"] == "rw", service
        selector = {"cnpg.io/cluster": cluster, "cnpg.io/instanceRole": "primary"}
        ports = [{"name": "postgres", "port": 5432, "targetPort": "sql"}]
        yield {
            "kind": "Service",
            "metadata": {"name": service["serviceTemplate"]["metadata"]["name"]},
            "spec": {"selector": selector, "ports": ports},
        }
