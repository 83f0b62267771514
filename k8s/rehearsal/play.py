"""The workloads of an overlay, and what is done with them."""

import itertools
import json
import random
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from decimal import Decimal

from network import Network
from pods import Pod
from standins import OURS

HTTP_CREATED = 201
READY_MAX_S = 90
# Buyers that come before anything happens to the platform.
BEFORE_S = 5


class Play:
    def __init__(self, binaries, folder, objects, stored, doors):
        self.binaries, self.folder, self.objects, self.stored = binaries, folder, objects, stored
        self.stampede = binaries / "stampede"
        self.began = time.monotonic()
        self.faults = []
        self.network = Network(objects, doors)
        # What the cluster keeps of a workload: its object and its pods.
        self.workloads = {}
        (folder / "logs").mkdir()

    def data(self, kind, name):
        return self.stored[kind, name]

    def log(self, pod, container):
        """Where a container's output goes: that of the stampede and of the verifier to whoever looks on."""
        return sys.stdout if pod.workload == "load" else open(self.folder / "logs" / f"{pod.name}.{container}", "a")

    def tell(self, text):
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def fault(self, text):
        self.faults.append(text)
        self.tell(f"! {text}")

    # The steps.

    def run(self, options):
        self.check_lost(options)
        if not self.faults:
            self.apply()
            self.until_ready()
        if not self.faults:
            self.sell(options)
            self.memory()
        for arrow in self.network.denied():
            self.fault(f"no policy allows what was tried: {arrow}")
        if not options.lose:
            for pod in itertools.chain(*self.running()):
                if pod.restarts:
                    self.fault(f"{pod.name} was started again {pod.restarts} times")

    def sell(self, options):
        token = {"OPERATOR_TOKEN": self.data("secret", "gateway")["OPERATOR_TOKEN"].decode()}
        shop = ["--url", "http://127.0.0.1:8080"]
        self.command("three shows", token, "seed", *shop)
        self.command("a purchase", {}, "buy", *shop, "--tokens-url", "http://127.0.0.1:8081/tokens")
        jobs = [thing for thing in self.objects if thing["kind"] == "Job" and thing["metadata"]["name"] == "load"]
        if jobs:
            self.stampede_from_within(jobs[0], options)
            return
        buyers = ["--buyers", options.buyers, "--rate", options.rate]
        self.command("a stampede", token, "load", *shop, *buyers, *self.kept())
        self.verify()

    def apply(self):
        """Everything at once, as `kubectl apply -k` does."""
        for thing in self.objects:
            kind, name = thing["kind"], thing["metadata"]["name"]
            if kind in ("Deployment", "StatefulSet"):
                self.workloads[name] = thing, [self.pod(thing, n).start() for n in range(thing["spec"]["replicas"])]
            elif kind == "Job" and name != "load":
                self.workloads[name] = thing, [self.pod(thing, 0).start()]

    def pod(self, thing, number):
        name = thing["metadata"]["name"]
        anything = "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        suffix = number if thing["kind"] == "StatefulSet" else anything
        return Pod(f"{name}-{suffix}", thing, thing["spec"]["template"], self)

    def running(self):
        return [pods for thing, pods in self.workloads.values() if thing["kind"] != "Job"]

    def until_ready(self):
        pods = [pod for _, of_workload in self.workloads.values() for pod in of_workload]
        end = time.monotonic() + READY_MAX_S
        while waiting := [pod.name for pod in pods if not (pod.ready and pod.alive or pod.done)]:
            if time.monotonic() > end or self.faults:
                self.fault(f"not ready: {', '.join(waiting)}")
                self.show_logs(waiting)
                return
            time.sleep(0.1)
        self.tell(f"{len(pods)} pods are ready or done")

    def show_logs(self, names):
        for log in sorted((self.folder / "logs").iterdir()):
            if log.name.startswith(tuple(names)):
                lines = log.read_text(errors="replace").splitlines()[-5:]
                print(f"--- {log.name}", *lines, sep="\n")

    def command(self, what, environment, *arguments):
        if self.faults:
            return
        arguments = [str(argument) for argument in arguments]
        self.tell(f"{what}: stampede {' '.join(arguments)}")
        done = subprocess.run([self.stampede, *arguments], env=environment, check=False)
        if done.returncode:
            self.fault(f"{what}: ended with {done.returncode}")

    def kept(self):
        return "--state", self.folder / "state", "--history", self.folder / "history.jsonl"

    def verify(self):
        """Straight to the pods, as through forwarded ports."""
        if self.faults:
            return
        postgres, nats = (
            next(pod for pod in self.network.pods if pod.workload == name and pod.ready)
            for name in ("postgres", "nats")
        )
        password = (self.folder / "secrets/passwords/verifier").read_text()
        environment = {
            "VERIFIER_DATABASE_URL": f"postgres://verifier:{password}@{postgres.address}/postgres?sslmode=disable",
            "NATS_PASSWORD": self.data("secret", "provision")["NATS_PASSWORD"].decode(),
        }
        self.command(
            "what must always hold", environment, "verify", "--nats-url", f"nats://{nats.address}:4222", *self.kept()
        )

    def stampede_from_within(self, job, options):
        """The component `load`: buyers, and then the verifier, within their policies."""
        if self.faults:
            return
        buyers = job["spec"]["template"]["spec"]["initContainers"][0]
        for flag, value in {"--buyers": options.buyers, "--rate": options.rate}.items():
            buyers["args"] = [f"{flag}={value}" if given.startswith(f"{flag}=") else given for given in buyers["args"]]
        self.tell(f"the component load: stampede {' '.join(buyers['args'])}")
        pod = self.pod(job, 0).start()
        self.disturb(options)
        pod.ended.wait()
        if pod.done:
            pause_s = longest_pause(pod.volume("state"))
            self.tell(f"the longest time without a purchase, while buyers came: {pause_s:.1f} s")

    def check_lost(self, options):
        """Before anything is started: each begins the name of a pod."""
        names = [t["metadata"]["name"] for t in self.objects if t["kind"] in ("Deployment", "StatefulSet")]
        for lost in filter(None, options.lose.split(",")):
            if not any(f"{name}-".startswith(lost) or lost.startswith(f"{name}-") for name in names):
                self.fault(f"no pod's name begins with {lost}; there are those of {', '.join(names)}")

    def disturb(self, options):
        """While buyers come: every service is replaced, or pods die."""
        if options.update or options.lose:
            time.sleep(BEFORE_S)
        if options.update:
            self.tell("every service is replaced, all at once")
            rolls = [threading.Thread(target=self.roll, args=(name,)) for name in self.workloads if self.is_ours(name)]
            for roll in rolls:
                roll.start()
            for roll in rolls:
                roll.join()
            self.tell("all of them are replaced")
        for beginning in filter(None, options.lose.split(",")):
            lost = next(pod for pod in itertools.chain(*self.running()) if pod.name.startswith(beginning))
            _, pods = self.workloads[lost.workload]
            self.tell(f"{lost.name} dies")
            pods.remove(lost)
            lost.die()

    def is_ours(self, name):
        """Whether an update of ours replaces it. The provider stands for somebody else, who has updates of his own."""
        thing, _ = self.workloads[name]
        images = [container["image"] for container in thing["spec"]["template"]["spec"]["containers"]]
        return thing["kind"] != "Job" and name != "psp-sim" and all(image.startswith(OURS) for image in images)

    def roll(self, name):
        """A rolling update: one more, then one less; of a StatefulSet one less, then one more, from its last."""
        thing, pods = self.workloads[name]
        less_first = thing["kind"] == "StatefulSet"
        for place in reversed(range(len(pods))):
            old = pods[place]
            if less_first:
                took_s = old.stop()
            pods[place] = self.pod(thing, place).start()
            self.wait(pods[place])
            time.sleep(thing["spec"].get("minReadySeconds", 0))
            if not less_first:
                took_s = old.stop()
            self.tell(f"{old.name} ended within {took_s:.1f} s")

    def wait(self, pod):
        end = time.monotonic() + READY_MAX_S
        while not pod.ready:
            if time.monotonic() > end:
                self.fault(f"{pod.name} did not get ready")
                self.show_logs([pod.name])
                return
            time.sleep(0.1)

    def memory(self):
        """What each container holds after all this, beside what its manifest says."""
        print(f"\n{'pod':<28}{'holds':>10}{'request':>10}{'limit':>10}   MiB (PSS)")
        total = 0
        for pod in itertools.chain(*self.running()):
            resources, held = pod.main.spec["resources"], pod.main.memory()
            wanted, most = (bytes_of(resources[which]["memory"]) for which in ("requests", "limits"))
            print(f"{pod.name:<28}{held / 2**20:>10.1f}{wanted / 2**20:>10.0f}{most / 2**20:>10.0f}")
            total += held
            if held > most:
                self.fault(f"{pod.name} holds more than its limit")
        print(f"{'all':<28}{total / 2**20:>10.1f}\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pod in itertools.chain(*self.running()):
            pod.ending = True
            if pod.current and pod.current.process:
                pod.current.process.kill()


def longest_pause(state):
    """Seconds between two purchases while buyers still came, as their history tells them."""
    history = next((state / "history").iterdir())
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    came = {}
    for line in (line for line in lines if line["step"] == "session"):
        # Who has to ask again came when it asked for the first time.
        came.setdefault(line["buyer"], at(line) - timedelta(milliseconds=line.get("took_ms", 0)))
    last = max(came.values())
    bought = sorted(at(line) for line in lines if line["step"] == "order" and line.get("status") == HTTP_CREATED)
    pauses = itertools.pairwise([*(time for time in bought if time < last), last])
    return max(((after - before).total_seconds() for before, after in pauses), default=0.0)


def at(line):
    return datetime.fromisoformat(line["at"])


def bytes_of(text):
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return int(Decimal(text[:-2]) * units[text[-2:]])
