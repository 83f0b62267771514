"""A pod, and the thread that is its kubelet."""

import itertools
import os
import signal
import subprocess
import threading
import time

from containers import Container, Probe, known

# What is done here, and what is passed over: placing pods, and the API server's own part.
FIELDS = {
    "containers",
    "initContainers",
    "volumes",
    "securityContext",
    "restartPolicy",
    "terminationGracePeriodSeconds",
}
FIELDS |= {"automountServiceAccountToken", "enableServiceLinks", "priorityClassName", "serviceAccountName"}
FIELDS |= {"topologySpreadConstraints"}
BACKOFF_MAX_S = 10  # the kubelet's is five minutes, for which nobody wants to wait here
POLL_S = 0.1
NUMBERS = itertools.count(2)


class Pod:
    def __init__(self, name, workload, template, play):
        number = next(NUMBERS)
        self.name, self.play = name, play
        self.workload = workload["metadata"]["name"]
        self.once = workload["kind"] == "Job"
        self.claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        self.spec, self.labels = template["spec"], template["metadata"]["labels"]
        known(self.spec, FIELDS, name)
        security = self.spec["securityContext"]
        self.user, self.group = security["runAsUser"], security["runAsGroup"]
        self.files_group = security.get("fsGroup", self.group)
        self.space = f"pod{number}"
        self.address = f"10.244.{number // 250}.{number % 250 + 1}"
        self.folder = play.folder / self.space
        self.first = [Container(spec, self) for spec in self.spec.get("initContainers", [])]
        (self.main,) = (Container(spec, self) for spec in self.spec["containers"])
        self.current = None
        self.ready = self.alive = self.done = self.ending = False
        self.restarts = 0
        self.ended = threading.Event()

    def ports(self):
        return {port["name"]: port["containerPort"] for port in self.main.spec.get("ports", [])}

    def start(self):
        self.folder.mkdir()
        self.play.network.join(self)
        threading.Thread(target=self.live, daemon=True).start()
        return self

    def live(self):
        try:
            for container in [*self.first, *([self.main] if self.once else [])]:
                self.until_it_succeeds(container)
            self.done = self.once and not self.ending
            while not self.once and not self.ending:
                self.serve()
        except Exception as error:  # noqa: BLE001 - nobody sees how a thread ends
            self.play.fault(f"{self.name}: {error if isinstance(error, RuntimeError) else repr(error)}")
        finally:
            self.ready = False
            self.play.network.leave(self)
            self.ended.set()

    def until_it_succeeds(self, container):
        while not self.ending:
            self.current = container
            code = container.start().wait()
            if code == 0 or self.ending:
                return
            if self.spec.get("restartPolicy") == "Never":
                raise RuntimeError(f"{container.name} ended with {code}")
            self.back_off()

    def back_off(self):
        self.restarts += 1
        time.sleep(min(self.restarts, BACKOFF_MAX_S))

    def serve(self):
        """One life of the container: it is asked what its probes want to know until it ends."""
        self.current = self.main
        process = self.main.start()
        startup, readiness, liveness = (
            Probe(self.main, f"{name}Probe") for name in ("startup", "readiness", "liveness")
        )
        while process.poll() is None:
            if not startup.succeeded:
                startup.ask()
            else:
                readiness.ask(often=not self.ready)
                liveness.ask()
                self.alive = liveness.succeeded
                self.set_ready(readiness.succeeded and not readiness.failed and not self.ending)
            for name, probe in (("startup", startup), ("liveness", liveness)):
                if probe.failed and not self.ending:
                    self.play.fault(f"{self.name}: its {name} probe failed")
                    self.main.signal(signal.SIGKILL)
                    process.wait()
            time.sleep(POLL_S)
        self.set_ready(False)
        if not self.ending:
            self.play.tell(f"{self.name} ended with {process.returncode}")
            self.back_off()

    def set_ready(self, ready):
        if ready != self.ready:
            self.ready = ready
            self.play.network.renew()
            if not self.ending:
                self.play.tell(f"{self.name} is {'ready' if ready else 'NOT ready'}")

    def stop(self):
        """As when it is deleted: out of the Services, preStop, SIGTERM, SIGKILL after the grace period. How long."""
        began, grace_s = time.monotonic(), self.spec["terminationGracePeriodSeconds"]
        self.ending = True
        self.set_ready(False)
        if hook := self.main.spec.get("lifecycle", {}).get("preStop"):
            self.main.execute(hook["exec"]["command"], grace_s)
        self.main.signal(signal.SIGTERM)
        try:
            code = self.main.process.wait(began + grace_s - time.monotonic())
            if code:
                self.play.fault(f"{self.name} ended with {code} when it was asked to end")
        except subprocess.TimeoutExpired:
            self.play.fault(f"{self.name} did not end within its grace period of {grace_s} s")
            self.main.signal(signal.SIGKILL)
        self.ended.wait()
        return time.monotonic() - began

    def die(self):
        """As when its node vanishes: at once, and its connections are told nothing."""
        self.ending = True
        subprocess.run(["ip", "-n", self.space, "link", "set", "eth0", "down"], check=True)
        self.main.signal(signal.SIGKILL)

    def volume(self, name):
        """A folder with what the volume holds, made when it is first asked for."""
        kept = name in self.claims
        folder = self.play.folder / f"claim-{name}-{self.name}" if kept else self.folder / f"volume-{name}"
        if folder.exists():
            return folder
        folder.mkdir()
        folder.chmod(0o2775)
        os.chown(folder, 0, self.files_group)
        volume = {} if kept else next(v for v in self.spec["volumes"] if v["name"] == name)
        known(volume, {"name", "emptyDir", "configMap", "secret", "projected"}, f"{self.name}, volume {name}")
        everything = volume.get("projected") or volume.get("configMap") or volume.get("secret") or {}
        for source in everything.get("sources", [volume]):
            for kind in ("configMap", "secret"):
                if kind in source:
                    self.put(folder, kind, source[kind], everything.get("defaultMode", 0o644))
        return folder

    def put(self, folder, kind, reference, mode):
        data = self.play.data(kind, reference.get("name") or reference["secretName"])
        for item in reference.get("items") or [{"key": key, "path": key} for key in data]:
            file = folder / item["path"]
            file.write_bytes(data[item["key"]])
            # With an fsGroup the group may read what otherwise only the owner could.
            file.chmod(mode | (mode >> 3 & 0o070))
            os.chown(file, 0, self.files_group)
