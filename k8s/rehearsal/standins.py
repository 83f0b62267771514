"""What a container runs: our programs as their images have them, and programs of this machine for images of others."""

import os
import shutil
import sys
from pathlib import Path

OURS = "localhost/stampede/"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

# What the official image's entry point does, as far as these manifests need it: a cluster is made when there is none,
# the scripts in docker-entrypoint-initdb.d run on a server that nobody else reaches, and then it serves.
POSTGRES = """#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p -m 700 "$PGDATA"
    printf '%s\\n' "$POSTGRES_PASSWORD" > /tmp/password
    eval "initdb --username=postgres --pwfile=/tmp/password $POSTGRES_INITDB_ARGS"
    rm /tmp/password
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    pg_ctl -w start -o "$* -c listen_addresses='' -p 5432"
    for script in /docker-entrypoint-initdb.d/*; do
        PGPASSWORD=$POSTGRES_PASSWORD "$script"
    done
    pg_ctl -w -m fast stop
fi
exec postgres "$@"
"""


class Image:
    """Files of a root, by their path in it, and what is started when the manifest names no command."""

    def __init__(self, files, entry, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"):
        self.files, self.entry, self.path = files, entry, path


def image(name, binaries):
    if name.startswith(OURS):
        program = name.removeprefix(OURS).split(":")[0]
        binary = binaries / (program if program == "stampede" else f"stampede-{program}")
        return Image({"/app": binary, AUTHORITIES: Path(AUTHORITIES)}, ["/app"])
    if name.startswith("nats:"):
        return Image({"/usr/local/bin/nats-server": Path(sys.executable).parent / "nats-server"}, ["nats-server"])
    if name.startswith(("postgres:", "ghcr.io/cloudnative-pg/postgresql:")):
        return postgres()
    if name.startswith("axllent/mailpit:"):
        return mail()
    sys.exit(f"nothing stands for the image {name}")


def postgres():
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))
    if programs is None:
        sys.exit("there is no Postgres to stand for its image. On Debian:\n  sudo apt-get install postgresql")
    return Image(machine(), ["/bin/sh", "-c", POSTGRES, "entrypoint"], f"{programs}:/usr/bin:/bin")


def mail():
    """A server that forgets what it is told, and says that it is well on the port of mailpit's page."""
    packages = next(path for path in sys.path if Path(path, "aiosmtpd").is_dir())
    server = (
        "import http.server\n"
        "from aiosmtpd.controller import Controller\n"
        "from aiosmtpd.handlers import Sink\n"
        "class Page(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "    def log_message(self, *_):\n"
        "        pass\n"
        "Controller(Sink(), hostname='0.0.0.0', port=1025).start()\n"
        "http.server.ThreadingHTTPServer(('0.0.0.0', 8025), Page).serve_forever()\n"
    )
    python = Path(os.path.realpath(sys.executable))
    # A Python that lies in somebody's home folder cannot be read by another user; Debian's can.
    if not str(python).startswith("/usr/") and shutil.which("/usr/bin/python3"):
        python = Path("/usr/bin/python3")
    files = machine() | {"/packages": Path(packages)}
    return Image(files, ["/usr/bin/env", "PYTHONPATH=/packages", str(python), "-c", server], "/usr/bin:/bin")


def machine():
    """This machine's programs and libraries."""
    tops = [Path("/", name) for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64")]
    return {str(top): top for top in tops if top.exists()}
