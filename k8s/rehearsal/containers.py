"""A container: a process that is number 1 in namespaces of its own, in a root that has only what its image has."""

import http.client
import os
import shlex
import subprocess
import time
from pathlib import Path

from network import DNS, DOMAIN
from standins import image

FIELDS = {"name", "image", "command", "args", "env", "envFrom", "ports", "volumeMounts", "securityContext", "resources"}
FIELDS |= {"imagePullPolicy", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"}
PROBE_FIELDS = {"httpGet", "exec", "periodSeconds", "timeoutSeconds", "failureThreshold"}
# What every container is given here, and so has to ask for.
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
DEVICES = ("null", "zero", "full", "random", "urandom")


def known(thing, fields, where):
    unknown = set(thing) - fields
    if unknown:
        raise ValueError(f"{where}: the rehearsal does not know {', '.join(sorted(unknown))}")


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Container:
    def __init__(self, spec, pod):
        self.spec, self.pod, self.name = spec, pod, f"{pod.name}/{spec['name']}"
        known(spec, FIELDS, self.name)
        if spec["securityContext"] != SECURITY:
            raise ValueError(f"{self.name}: its securityContext is not {SECURITY}")
        self.image = image(spec["image"], pod.play.binaries)
        self.lives = 0
        self.process = None

    def start(self):
        self.lives += 1
        command = self.spec.get("command") or self.image.entry
        script = "\n".join(self.root(self.pod.folder / f"root-{self.spec['name']}-{self.lives}"))
        enter = ["nsenter", f"--net=/run/netns/{self.pod.space}"]
        enter += [
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "/bin/sh",
            "-ec",
            script,
            "sh",
        ]
        log = self.pod.play.log(self.pod, self.spec["name"])
        self.process = subprocess.Popen(
            [*enter, *command, *self.spec.get("args", [])],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        return self.process

    def root(self, root):
        """Lines of a shell that make the root: files of the image, volumes, and what a runtime brings."""

        def at(path):
            return shlex.quote(f"{root}{path}")

        yield "image_path=$PATH; export PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        yield f"hostname {shlex.quote(self.pod.name)}"
        yield "mount --make-rprivate /"
        yield f"mkdir {at('')} && mount -t tmpfs -o mode=755 tmpfs {at('')}"
        for folder in ("/proc", "/dev", "/dev/shm", "/etc", "/tmp", "/var", "/run"):
            yield f"mkdir {at(folder)}"
        yield f"ln -s /run {at('/var/run')}"
        for path, there in self.image.files.items():
            source = shlex.quote(str(there))
            if there.is_symlink() and there.is_dir():
                yield f"ln -s {shlex.quote(os.readlink(there))} {at(path)}"
            elif there.is_dir():
                yield f"mkdir {at(path)} && mount --rbind {source} {at(path)}"
            else:
                yield f"mkdir -p {at(str(Path(path).parent))} && touch {at(path)} && mount --bind {source} {at(path)}"
        for device in DEVICES:
            yield f"touch {at('/dev/' + device)} && mount --bind /dev/{device} {at('/dev/' + device)}"
        yield f"mount -t tmpfs -o size=64m,mode=1777 tmpfs {at('/dev/shm')}"
        yield f"mount -t proc proc {at('/proc')}"
        hosts = f"127.0.0.1 localhost\\n{self.pod.address} {self.pod.name}\\n"
        yield f"printf {shlex.quote(hosts)} > {at('/etc/hosts')}"
        search = f"{DOMAIN} svc.cluster.local cluster.local"
        yield f"printf 'search {search}\\nnameserver {DNS}\\noptions ndots:5\\n' > {at('/etc/resolv.conf')}"
        # Images of others know their user by a name.
        yield f"echo user:x:{self.pod.user}:{self.pod.group}::/:/bin/sh > {at('/etc/passwd')}"
        for mount in self.spec.get("volumeMounts", []):
            known(mount, {"name", "mountPath", "readOnly"}, self.name)
            path = mount["mountPath"].replace("/var/run/", "/run/")
            volume = shlex.quote(str(self.pod.volume(mount["name"])))
            yield f"mkdir -p {at(path)} && mount --bind {volume} {at(path)}"
            if mount.get("readOnly"):
                yield f"mount -o remount,bind,ro {at(path)}"
        yield f"mount -o remount,ro {at('')}"
        yield "export PATH=$image_path"
        who = f"--userspec={self.pod.user}:{self.pod.group} --groups={self.pod.files_group}"
        yield f'exec /usr/bin/setpriv --no-new-privs /usr/sbin/chroot {who} {at("")} "$@"'

    def environment(self):
        values = {"PATH": self.image.path, "HOSTNAME": self.pod.name}
        for source in self.spec.get("envFrom", []):
            known(source, {"configMapRef"}, self.name)
            data = self.pod.play.data("configMap", source["configMapRef"]["name"])
            values |= {key: text.decode() for key, text in data.items()}
        fields = {"metadata.name": self.pod.name, "status.podIP": self.pod.address}
        for entry in self.spec.get("env", []):
            source = entry.get("valueFrom", {})
            known(source, {"fieldRef", "secretKeyRef"}, self.name)
            if "fieldRef" in source:
                values[entry["name"]] = fields[source["fieldRef"]["fieldPath"]]
            elif "secretKeyRef" in source:
                reference = source["secretKeyRef"]
                values[entry["name"]] = self.pod.play.data("secret", reference["name"])[reference["key"]].decode()
            else:
                values[entry["name"]] = entry["value"]
        return values

    def first(self):
        """The process that is number 1 in there, if there is one."""
        return next(iter(children(self.process.pid)), None)

    def signal(self, number):
        if first := self.first():
            os.kill(first, number)

    def execute(self, command, timeout_s):
        """In there, as a probe or a hook does. Whether it succeeded."""
        first = self.first()
        if first is None:
            return False
        enter = ["nsenter", f"--target={first}", "--net", "--mount", "--pid", "--ipc", "--root", "--wd=/"]
        enter += [f"--setuid={self.pod.user}", f"--setgid={self.pod.group}", "--"]
        try:
            done = subprocess.run(
                [*enter, *command], env=self.environment(), capture_output=True, timeout=timeout_s, check=False
            )
            return done.returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def memory(self):
        """Bytes that all its processes hold (PSS)."""
        total, waiting = 0, children(self.process.pid)
        while waiting:
            one = waiting.pop()
            waiting += children(one)
            try:
                text = Path(f"/proc/{one}/smaps_rollup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
        return total


class Probe:
    """Asked at its period, and what its thresholds make of the answers."""

    def __init__(self, container, name):
        self.container, self.probe = container, container.spec[name]
        known(self.probe, PROBE_FIELDS, f"{container.name}, {name}")
        self.failures, self.next, self.succeeded = 0, 0.0, False

    @property
    def failed(self):
        return self.failures >= self.probe["failureThreshold"]

    def ask(self, often=False):
        now = time.monotonic()
        if now < self.next:
            return
        # While a container is not ready it is asked every second: its pod may be waited for.
        self.next = now + (min(1, self.probe["periodSeconds"]) if often else self.probe["periodSeconds"])
        if self.answers():
            self.failures, self.succeeded = 0, True
        else:
            self.failures += 1

    def answers(self):
        timeout_s = self.probe["timeoutSeconds"]
        if "exec" in self.probe:
            return self.container.execute(self.probe["exec"]["command"], timeout_s)
        get, pod = self.probe["httpGet"], self.container.pod
        connection = http.client.HTTPConnection(pod.address, pod.ports()[get["port"]], timeout=timeout_s)
        try:
            connection.request("GET", get["path"])
            return connection.getresponse().status in range(200, 400)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
