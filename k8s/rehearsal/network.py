"""Addresses, names, Services and network policies: what kube-proxy, CoreDNS and the network plug-in do.

The rehearsal's own network namespace is the node. Every pod hangs on it by a pair of devices, and whatever goes from
pod to pod is forwarded by it, where the policies are.
"""

import subprocess
import threading
from pathlib import Path

from dnslib import QTYPE, RCODE, RR, A
from dnslib.server import BaseResolver, DNSLogger, DNSServer

NAMESPACE = "stampede"
DOMAIN = f"{NAMESPACE}.svc.cluster.local"
DNS = "10.96.0.10"
GATEWAY = "169.254.1.1"
DENIED = "{ type ipv4_addr . ipv4_addr . inet_service; flags dynamic; size 4096; }"


def run(*command, stdin=None):
    done = subprocess.run(command, text=True, capture_output=True, input=stdin, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def matches(selector, labels):
    """As a LabelSelector does: all of it, and the empty one everybody."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}, selector
    for requirement in selector.get("matchExpressions", []):
        assert requirement["operator"] == "In", requirement
        if labels.get(requirement["key"]) not in requirement["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def peers(rule, side, pod):
    """Whether a rule of a policy speaks of this pod. Peers in other namespaces are not rehearsed: there are none."""
    own = [peer for peer in rule.get(side, []) if "namespaceSelector" not in peer and "ipBlock" not in peer]
    return side not in rule or any(matches(peer["podSelector"], pod.labels) for peer in own)


def ports(rule, pod):
    named = pod.ports()
    return {
        named.get(entry["port"], entry["port"]) for entry in rule.get("ports", [{"port": p} for p in named.values()])
    }


def allowed(policies, source, target):
    """Ports of the target that the source may open: what both sides let through."""

    def side(pod, other, direction, key):
        chosen = [policy for policy in policies if direction in policy["policyTypes"]]
        chosen = [policy for policy in chosen if matches(policy["podSelector"], pod.labels)]
        if not chosen:
            return set(target.ports().values())
        rules = [rule for policy in chosen for rule in policy.get(direction.lower(), []) if peers(rule, key, other)]
        return {port for rule in rules for port in ports(rule, target)}

    return side(source, target, "Egress", "to") & side(target, source, "Ingress", "from")


def one_of(pods, port):
    """A new connection goes to any of them, and stays there."""
    choice = ", ".join(f"{n} : {pod.address}" for n, pod in enumerate(pods))
    return f"dnat to numgen random mod {len(pods)} map {{ {choice} }} : {pods[0].ports()[port]}"


class Network:
    """All of it, made anew whenever a pod comes, goes, or gets ready."""

    def __init__(self, objects, doors):
        self.policies = [thing["spec"] for thing in objects if thing["kind"] == "NetworkPolicy"]
        self.services = [thing for thing in objects if thing["kind"] == "Service"]
        with_address = [thing for thing in self.services if thing["spec"].get("clusterIP") != "None"]
        self.addresses = {thing["metadata"]["name"]: f"10.96.1.{n}" for n, thing in enumerate(with_address, start=1)}
        # Ports of this machine, and what is behind each: a workload and the name of its port.
        self.doors = doors
        self.pods = []
        self.names = {}
        self.lock = threading.RLock()
        run("ip", "link", "set", "lo", "up")
        run("ip", "addr", "add", f"{DNS}/32", "dev", "lo")
        for setting in ("ip_forward", "conf/all/route_localnet"):
            Path("/proc/sys/net/ipv4", setting).write_text("1")
        # Who tried to open what no policy allows.
        run("nft", "-f", "-", stdin=f"add table ip rehearsal\nadd set ip rehearsal denied {DENIED}\n")
        DNSServer(Names(self), address=DNS, logger=DNSLogger(logf=lambda line: None)).start_thread()

    def join(self, pod):
        """A device in the pod's namespace, and the way to it."""
        inside = ["ip", "-n", pod.space]
        with self.lock:
            run("ip", "netns", "add", pod.space)
            run(*inside, "link", "add", "eth0", "type", "veth", "peer", "name", pod.space, "netns", "1")
            run(*inside, "addr", "add", f"{pod.address}/32", "dev", "eth0")
            for device in ("lo", "eth0"):
                run(*inside, "link", "set", device, "up")
            run(*inside, "route", "add", GATEWAY, "dev", "eth0")
            run(*inside, "route", "add", "default", "via", GATEWAY, "dev", "eth0")
            run("ip", "addr", "add", f"{GATEWAY}/32", "dev", pod.space)
            run("ip", "link", "set", pod.space, "up")
            run("ip", "route", "add", pod.address, "dev", pod.space)
            self.pods.append(pod)
            self.renew()

    def leave(self, pod):
        with self.lock:
            self.pods.remove(pod)
            self.renew()

    def backends(self, service):
        selector = {"matchLabels": service["spec"]["selector"]}
        early = service["spec"].get("publishNotReadyAddresses", False)
        return [pod for pod in self.pods if matches(selector, pod.labels) and (pod.ready or early)]

    def renew(self):
        with self.lock:
            names = {}
            for service in self.services:
                name = service["metadata"]["name"]
                of_pods = self.backends(service)
                headless = name not in self.addresses
                names[f"{name}.{DOMAIN}"] = [pod.address for pod in of_pods] if headless else [self.addresses[name]]
                if headless:
                    names |= {f"{pod.name}.{name}.{DOMAIN}": [pod.address] for pod in of_pods}
            run("nft", "-f", "-", stdin="\n".join(self.rules()))
            # Last: whoever finds a pod by its name may already go there.
            self.names = names

    def rules(self):
        """One table, replaced as a whole. Connections that stand are not cut by it, as they are not by a plug-in."""
        chains = {
            "forward": "filter hook forward priority 0; policy drop;",
            "prerouting": "nat hook prerouting priority -100;",
            "output": "nat hook output priority -100;",
            "postrouting": "nat hook postrouting priority 100;",
        }
        for chain, what in chains.items():
            yield f"add chain ip rehearsal {chain} {{ type {what} }}"
            yield f"flush chain ip rehearsal {chain}"

        yield "add rule ip rehearsal forward ct state established,related accept"
        for source in self.pods:
            for target in self.pods:
                open_ports = allowed(self.policies, source, target) if source is not target else None
                if open_ports:
                    these = ", ".join(str(port) for port in sorted(open_ports))
                    yield (
                        f"add rule ip rehearsal forward ip saddr {source.address} ip daddr {target.address} "
                        f"tcp dport {{ {these} }} accept"
                    )
        yield "add rule ip rehearsal forward tcp flags syn add @denied { ip saddr . ip daddr . tcp dport } drop"

        for service in self.services:
            of_pods = [pod for pod in self.backends(service) if pod.ready]
            address = self.addresses.get(service["metadata"]["name"])
            for port in service["spec"]["ports"] if of_pods and address else []:
                to = one_of(of_pods, port["targetPort"])
                yield f"add rule ip rehearsal prerouting ip daddr {address} tcp dport {port['port']} {to}"
        for door, (workload, port) in self.doors.items():
            if of_pods := [pod for pod in self.pods if pod.workload == workload and pod.ready]:
                yield f"add rule ip rehearsal output ip daddr 127.0.0.1 tcp dport {door} {one_of(of_pods, port)}"
        yield "add rule ip rehearsal postrouting ip saddr 127.0.0.1 masquerade"

    def denied(self):
        """Arrows that pods tried which are here now, and that no policy allows."""
        by_address = {pod.address: pod.workload for pod in self.pods}
        text = run("nft", "list", "set", "ip", "rehearsal", "denied")
        elements = text.split("elements = {")[1].split("}")[0].split(",") if "elements" in text else []
        triples = [[part.strip() for part in element.split(" . ")] for element in elements]
        known = [(a, b, port) for a, b, port in triples if a in by_address and b in by_address]
        return sorted({f"{by_address[a]} to {by_address[b]}, port {port.split()[0]}" for a, b, port in known})


class Names(BaseResolver):
    """The cluster's names and no others."""

    def __init__(self, network):
        self.network = network

    def resolve(self, request, handler):
        reply = request.reply()
        name = str(request.q.qname).rstrip(".").lower()
        addresses = self.network.names.get(name)
        if addresses is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif request.q.qtype == QTYPE.A:
            for address in addresses:
                reply.add_answer(RR(name, QTYPE.A, rdata=A(address), ttl=5))
        return reply
