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
import time
import urllib.request
import uuid

import yaml

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
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
# Until inventory has created the blocks of a show.
SELLABLE_WITHIN_S = 60
WORKING_CARD = "4242424242424242"
ACCEPTED = ["2xx", "401", "402", "403", "404", "409"]


def fetch(url, token=None, body=None):
    headers = {"content-type": "application/json", "idempotency-key": str(uuid.uuid4())}
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


def buy(url, session, shows, card):
    """Holds seats, buys one and joins a lobby. Returns the IDs of all that, and of the first two shows, by the names of their
    parameters."""

    def section(show):
        until = time.monotonic() + SELLABLE_WITHIN_S
        while "availability" not in (section := fetch(f"{url}/v1/shows/{show}")["sections"][0]):
            if time.monotonic() > until:
                sys.exit(f"{show} cannot be sold {SELLABLE_WITHIN_S} s after it was created")
            time.sleep(0.1)
        return section["section_id"]

    def hold(show):
        return fetch(f"{url}/v1/shows/{show}/holds", session, {"section": section(show), "quantity": 1})["hold_id"]

    # A session may hold seats of a show once, so the generated holds have a show of their own.
    bought, next_bought, *held = [hold(show) for show in shows[2:]]
    buyer = {"name": "Ada Lovelace", "email": "ada@example.org"}
    order = {"hold_id": bought, "buyer": buyer, "payment": {"card_token": card}}
    order = fetch(f"{url}/v1/orders", session, order)
    place = fetch(f"{url}/v1/shows/{shows[1]}/lobby", session, {})
    sections = [section(show) for show in shows[:2]]
    return {
        "path.show_id": shows[:2],
        "query.section": sections,
        "body.section": sections,
        "path.hold_id": held,
        "body.hold_id": [next_bought],
        "path.order_id": [order["order_id"]],
        "path.ticket_id": [ticket["ticket_id"] for ticket in order["tickets"]],
        "path.lobby_ticket": [place["lobby_ticket"]],
    }


def known(values, tokens):
    """The settings by which most generated requests have these values of parameters, and these tokens."""
    lines = ["[auth.openapi]"]
    lines += [f"{name} = {{ bearer = {json.dumps(token)} }}" for name, token in tokens.items()]
    lines += ["[dictionaries]"]
    lines += [f"{name.replace('.', '_')} = {{ values = {json.dumps(of)} }}" for name, of in values.items()]
    lines += ["[parameters]"]
    for name in values:
        lines.append(f'"{name}" = {{ dictionary = "{name.replace(".", "_")}", probability = 0.7 }}')
    return "\n".join(lines)


def accepts(operation, *refusals):
    """The settings for an operation whose valid requests may be refused for what a schema cannot say."""
    return f"""
[[operations]]
include-operation-id = "{operation}"
checks.positive_data_acceptance.expected-statuses = {json.dumps([*ACCEPTED, *refusals])}
"""


def public_api(url, operator, cards):
    """What schemathesis cannot generate for /openapi.json: tokens, IDs, and a date for the next show."""
    shows = [create_show(url, operator, f"show-{n}", n == 1) for n in range(8)]
    session = fetch(f"{url}/v1/sessions", body={})["token"]
    values = {"body.payment.card_token": cards, "body.starts_at": ["2099-12-31T20:00:00Z"]}
    values |= buy(url, session, shows, cards[0])
    # Which cards work, which seats are in one block, and which keys were used for another request.
    orders_and_holds = accepts("place_order", "422") + accepts("place_hold", "422")
    return known(values, {"session": session, "operator": operator}) + orders_and_holds


def provider_api(key, cards):
    """The same for the provider's."""
    return known({"body.card_token": cards}, {"api_key": key}) + accepts("authorise")


def operations(contract):
    """Every operation of a contract."""
    paths = (fetch(contract) if isinstance(contract, str) else yaml.safe_load(contract.read_text()))["paths"]
    return {f"{method.upper()} {path}" for path, item in paths.items() for method in item if method in METHODS}


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
    for operation in sorted(operations(contract)):
        counts = answered[operation]
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
