"""Checks a running platform against its contract with requests that schemathesis generates from /openapi.json.

All checks of schemathesis run, also along the links between operations; with --all-succeed an operation that never
succeeds is a failure as well. Starts a platform of its own unless --url names one, whose quotas then have to be wide.
"""

import argparse
import collections
import datetime
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Quotas have tests of their own; here they would hide everything behind them.
LIFTED = {
    "SESSIONS_PER_MINUTE": 60_000,
    "SESSIONS_BURST": 1_000_000,
    "SESSION_REQUESTS_PER_SECOND": 100_000,
    "SESSION_REQUESTS_BURST": 1_000_000,
    "ADDRESS_REQUESTS_PER_SECOND": 100_000,
    "ADDRESS_REQUESTS_BURST": 1_000_000,
}
WORKING_CARD = "4242424242424242"
# A schema cannot distinguish cards, so a declined one (402) is as good as one that works.
ACCEPTED = ["2xx", "401", "402", "403", "404", "409"]


def fetch(url, token=None, body=None):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    # A proxy in the environment is not for calls to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    method = "GET" if body is None else "POST"
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)


class Platform:
    """A platform that this run starts and deletes, with wide quotas."""

    def __init__(self, binaries):
        self.stampede = binaries / "stampede"
        self.state = pathlib.Path(tempfile.mkdtemp(prefix="stampede-contract-"))
        lifted = [f"--set=gateway.{key}={value}" for key, value in LIFTED.items()]
        options = ["--no-build", "--random-ports", "--throw-away", "--detach", "--no-seed"]
        self.call("up", *options, "--binaries", str(binaries), *lifted)
        run = json.loads((self.state / "run.json").read_text())
        self.url = run["urls"]["gateway"]
        self.operator = self.secret("operator-token")
        self.provider, self.provider_key = run["urls"]["psp"], self.secret("psp-api-key")

    def secret(self, name):
        return (self.state / "secrets" / name).read_text().strip()

    def call(self, command, *options):
        subprocess.run([self.stampede, command, "--state", str(self.state), *options], cwd=ROOT, check=True)

    def end(self):
        self.call("down")
        shutil.rmtree(self.state)


def create_show(url, operator, slug, lobby):
    """Creates a show that is on sale, with a lobby that admits immediately or with none, and returns its ID."""
    now = datetime.datetime.now(datetime.timezone.utc)
    at = lambda minutes: (now + datetime.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    rules = {"opens_at": at(-2), "rate_per_second": 10_000, "slots_max": 100_000, "slot_seconds": 3_600}
    show = {
        "slug": f"{slug}-{int(now.timestamp())}",
        "title": "The contract",
        "venue": {"name": "The Cellar", "city": "Aarhus"},
        "starts_at": at(60 * 24 * 300),
        "sale_opens_at": at(-1),
        "currency": "EUR",
        "sections": [{"name": "Floor", "price": 4500, "seating": {"general_admission": 500}}],
        "lobby": rules if lobby else None,
    }
    return fetch(f"{url}/v1/ops/shows", operator, show)["show_id"]


def public_api(url, operator, cards):
    """What schemathesis cannot generate for /openapi.json: tokens, IDs of shows, and a date for the next one."""
    # A session may hold seats of one show once, so several are needed.
    shows = [create_show(url, operator, f"show-{n}", n % 4 == 0) for n in range(8)]
    session = fetch(f"{url}/v1/sessions", body={})["token"]
    return f"""
[auth.openapi]
session = {{ bearer = {json.dumps(session)} }}
operator = {{ bearer = {json.dumps(operator)} }}

[dictionaries]
shows = {{ values = {json.dumps(shows)} }}
cards = {{ values = {json.dumps(cards)} }}
starts = {{ values = ["2099-12-31T20:00:00Z"] }}

[parameters]
"path.show_id" = {{ dictionary = "shows", probability = 0.7 }}
"body.payment.card_token" = {{ dictionary = "cards", probability = 0.9 }}
"body.starts_at" = {{ dictionary = "starts", probability = 0.7 }}

[[operations]]
include-operation-id = "place_order"
checks.positive_data_acceptance.expected-statuses = {json.dumps(ACCEPTED)}
"""


def provider_api(key, cards):
    """The same for the provider's."""
    return f"""
[auth.openapi]
api_key = {{ bearer = {json.dumps(key)} }}

[dictionaries]
cards = {{ values = {json.dumps(cards)} }}

[parameters]
"body.card_token" = {{ dictionary = "cards", probability = 0.9 }}

[[operations]]
include-operation-id = "authorise"
checks.positive_data_acceptance.expected-statuses = {json.dumps(ACCEPTED)}
"""


def statuses(report):
    """Counts the statuses of each operation."""
    found = collections.defaultdict(collections.Counter)
    for line in report.read_text().splitlines():
        scenario = json.loads(line).get("ScenarioFinished")
        recorder = scenario["recorder"] if scenario else {}
        for case, interaction in recorder.get("interactions", {}).items():
            value, response = recorder["cases"][case]["value"], interaction["response"]
            if response:
                found[f"{value['method']} {value['path']}"][response["status_code"]] += 1
    return found


def holds(contract, url, configuration, options):
    """Whether the API at `url` passes all checks, and every operation of its contract succeeds."""
    with tempfile.TemporaryDirectory(prefix="stampede-contract-") as folder:
        settings, report = pathlib.Path(folder, "schemathesis.toml"), pathlib.Path(folder, "report.ndjson")
        hooks = pathlib.Path(__file__).with_name("hooks.py")
        settings.write_text(f"hooks = {json.dumps(str(hooks))}\nmax-stream-events = 1\n{configuration}")
        program = pathlib.Path(sys.executable).with_name("schemathesis")
        command = [program, "--config-file", settings, "run", contract, "--url", url, "--checks", "all"]
        command += ["--continue-on-failure", "-n", str(options.examples), "--report-ndjson-path", report]
        command += [f"--seed={options.seed}"] if options.seed is not None else []
        failed = subprocess.run(command, cwd=folder).returncode != 0
        answered = statuses(report)
    is_reached = True
    for operation, counts in sorted(answered.items()):
        if set(counts) <= {405}:
            continue  # A method that the contract does not have.
        succeeded = any(200 <= status < 300 for status in counts)
        is_reached &= succeeded
        counted = " ".join(f"{status}:{counts[status]}" for status in sorted(counts))
        print(f"{operation:45} {counted}{'' if succeeded else '  NEVER SUCCEEDED'}")
    return not failed and (is_reached or not options.all_succeed)


def check(options):
    platform = None if options.url else Platform(options.binaries.resolve())
    url, operator = (platform.url, platform.operator) if platform else (options.url, options.operator_token)
    try:
        tokens = fetch(f"{url}/v1/test-cards")["tokens_url"]
        cards = [fetch(tokens, body={"card_number": WORKING_CARD})["card_token"]]
        fine = holds(f"{url}/openapi.json", url, public_api(url, operator, cards), options)
        if platform:
            provider = provider_api(platform.provider_key, cards)
            fine &= holds(ROOT / "tools/psp-sim/contract.yaml", platform.provider, provider, options)
    finally:
        if platform:
            platform.end()
    return 0 if fine else 1


def main():
    parser = argparse.ArgumentParser(prog="python .ci/contract", description=__doc__.splitlines()[0])
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "target/debug", help="of a platform to start")
    parser.add_argument("--url", help="of a platform that runs")
    parser.add_argument("--operator-token", help="of that platform")
    parser.add_argument("--examples", type=int, default=200, help="generated for each operation")
    parser.add_argument("--all-succeed", action="store_true", help="fail if an operation never succeeds")
    parser.add_argument("--seed", type=int, help="of a run to repeat")
    sys.exit(check(parser.parse_args()))


main()
