"""Rehearses an overlay without a cluster: every pod of it, a purchase, a stampede, and the verifier.

    python=target/manifests/bin/python                # of check.py
    sudo $python k8s/rehearsal
    sudo $python k8s/rehearsal --update               # every workload is replaced while buyers come
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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INSIDE = "STAMPEDE_REHEARSAL"
REPOSITORY = Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(prog="rehearsal", description="Rehearses an overlay without a cluster.")
    parser.add_argument("--overlay", default="kind", help="folder in k8s/overlays (default: kind)")
    parser.add_argument("--compose", action="store_true", help="deploy/compose.yaml in the place of an overlay")
    parser.add_argument("--binaries", type=Path, help="folder of static programs (default: what was built last)")
    parser.add_argument("--buyers", type=int, default=500, help="how many come (default: 500)")
    parser.add_argument("--rate", type=int, default=20, help="buyers a second (default: 20)")
    parser.add_argument("--update", action="store_true", help="replace every pod while they come")
    parser.add_argument("--lose", default="", help="pods that die while they come, by the beginning of their names")
    return parser.parse_args()


def binaries(given):
    """Static programs, as images hold them."""
    build = "This builds them:\n  cargo stampede images --archive target/images"
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
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
    lacking = [name for name in ("ip", "nft", "nsenter", "unshare", "setpriv", "kubectl") if not shutil.which(name)]
    if lacking:
        sys.exit(f"{', '.join(lacking)} is missing. On Debian:\n  sudo apt-get install iproute2 nftables util-linux")


def main():
    options = arguments()
    # Where Debian has nft and ip, which not everybody's path names.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    check_machine()
    if INSIDE not in os.environ:
        # The machine's network, mounts and processes are not touched, and nothing outlives the first process in there.
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.execvpe("unshare", [*unshare, sys.executable, *sys.argv], os.environ | {INSIDE: "1"})
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
    print(
        f"\n{'everything held' if not play.faults else f'{len(play.faults)} faults'}, {time.monotonic() - began:.0f} s"
    )
    return 1 if play.faults else 0


if __name__ == "__main__":
    sys.exit(main())
