# The menu. Every recipe is one line of meaning; the work is done by `cargo stampede`.

# show this menu
default:
    @just --list

# start everything and stay (Ctrl-C stops it)
up *args:
    cargo stampede up {{args}}

# what runs, where, and whether it is ready
status:
    cargo stampede status

# stop a platform that was started in the background
down:
    cargo stampede down

# buy two tickets and print every step
buy *args:
    cargo stampede buy {{args}}

# send a stampede of buyers
load *args:
    cargo stampede load {{args}}

# what could not be handled (list), and sending it again (replay 17, replay --all)
dead-letters *args:
    cargo stampede dead-letters {{args}}

# check what must always hold
verify *args:
    cargo stampede verify {{args}}

# kill and freeze random processes under load, then verify (--seed N, --minutes N)
chaos *args:
    cargo stampede chaos {{args}}

# compare the books of payments with the provider's
reconcile:
    cargo stampede reconcile

# every test, the whole platform included (-p orders: one crate, --lib: its unit tests)
test *args:
    cargo stampede test {{args}}

# a cluster on this machine with kind: three nodes, each a zone
kind-up:
    cargo stampede kind up

# build the images and load them into its nodes
kind-load:
    cargo stampede kind load

# apply secrets and manifests, wait until everything is ready, make three shows
kind-deploy:
    cargo stampede kind deploy

# buy, send a stampede of buyers, verify
kind-test:
    cargo stampede kind test

# delete the cluster and everything in it
kind-down:
    cargo stampede kind down

# what decides a merge: format, lints, layers, licences, documentation, tests
ci:
    bash .ci/run

# our patterns beside the best libraries of their kind, as ratios (what: resilience; --write keeps the table in docs/)
bench what="resilience" *args:
    cargo stampede bench {{what}} {{args}}

# what takes too long for every merge: first starts, loom models, long property runs, every test 20 times, random faults, benchmarks
nightly:
    bash .ci/nightly

# a fresh clone to a platform that is ready: seconds, and whether a crate is compiled twice
first-start *args:
    .ci/first-start {{args}}

# container images of everything: static programs, nothing is pulled (--archive DIR needs no engine, --try starts each)
images *args:
    cargo stampede images {{args}}

# format the code
fmt:
    cargo fmt --all

# lint the code as the CI does
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# which crate may lean on which
layers:
    cargo stampede check-layers
    cargo stampede check

# renew the checked queries of a folder against the empty database DATABASE_URL (needs sqlx-cli; payments: --lib --bins)
prepare folder targets="--all-targets":
    cd {{folder}} && SQLX_OFFLINE=false sqlx migrate run --source migrations
    cd {{folder}} && SQLX_OFFLINE=false cargo sqlx prepare -- {{targets}}

# renew the JSON Schemas of events and commands (refuses a change that breaks a reader)
schemas:
    RENEW_SCHEMAS=1 cargo test -q -p stampede-launcher -p stampede-contracts --test it

# check a platform against its contract with generated requests (--examples 20, --url …)
contract *args:
    python3 -m venv target/contract
    target/contract/bin/pip install -q --disable-pip-version-check -r .ci/contract/requirements.txt
    target/contract/bin/python .ci/contract {{args}}

# the manifests against the rules of the house and the schemas of Kubernetes, without a cluster (needs kubectl)
manifests:
    cargo test -q -p stampede-launcher -p stampede-manifests
    python3 -m venv target/manifests
    target/manifests/bin/pip install -q --disable-pip-version-check -r k8s/requirements.txt
    target/manifests/bin/python k8s/check.py

# an overlay without a cluster: every pod, a purchase, a stampede, the verifier (as root; --update, --overlay ha --lose nats-0)
rehearse *args:
    cargo stampede images --archive target/images
    python3 -m venv target/manifests
    target/manifests/bin/pip install -q --disable-pip-version-check -r k8s/requirements.txt
    $(test "$(id -u)" = 0 || echo sudo) target/manifests/bin/python k8s/rehearsal {{args}}

# renew k8s/rendered, where a review sees what a change of the manifests does
rendered:
    RENEW_RENDERED=1 cargo test -q -p stampede-launcher -p stampede-manifests --test it the_rendered_files
