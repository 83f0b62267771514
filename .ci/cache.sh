# Sourced by .ci/run: what was compiled of registries' crates, kept outside the clone for the next run on this machine.
#
#   STAMPEDE_CI_CACHE=DIR  another folder than ~/.cache/stampede-ci
#   STAMPEDE_CI_CACHE=off  compile everything
#
# A folder a key. A crate of a registry is the same wherever the clone is; whether it is what a build wants (features,
# profile) cargo decides itself, and compiles what is not. Ours are never kept.

cache=${STAMPEDE_CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stampede-ci}
cache_keys_max=3
cache_target=${CARGO_TARGET_DIR:-target}

# After the flags are set. The manifest holds profiles, and features of what all share.
cache_key() {
    { rustc -vV && printf '%s\n' "${RUSTFLAGS:-}" "${CARGO_BUILD_TARGET:-}" && cat Cargo.lock Cargo.toml; } |
        sha256sum | cut -c 1-16
}

cache_restore() {
    if [ "$cache" = off ]; then
        printf 'STAMPEDE_CI_CACHE=off: every crate is compiled\n'
        return
    fi
    cache_kept=$cache/$(cache_key)
    if [ -e "$cache_target/.rustc_info.json" ]; then
        printf '%s was built in before, and is used as it is\n' "$cache_target"
    elif [ -d "$cache_kept" ]; then
        mkdir -p "$cache_target"
        # Copies with their times, by which cargo knows what is fresh. No links: what is compiled here must not change there.
        cp -a --reflink=auto "$cache_kept/." "$cache_target"
        touch "$cache_kept"
        printf 'compiled crates of registries: from %s (%s)\n' "$cache_kept" "$(du -sh "$cache_kept" | cut -f 1)"
    else
        printf 'compiled crates of registries: none in %s, so they are compiled and kept there\n' "$cache_kept"
    fi
}

cache_keep() {
    if [ "$cache" = off ] || [ -d "$cache_kept" ]; then return; fi
    mkdir -p "$cache"
    local new part folder ours
    new=$(mktemp -d "$cache/.new-XXXXXX")
    for part in "" ${CARGO_BUILD_TARGET:+"$CARGO_BUILD_TARGET/"}; do
        folder=$new/${part}debug
        mkdir -p "$folder"
        cp -a --reflink=auto "$cache_target/${part}debug/"{.fingerprint,build,deps} "$folder"
        # All that a crate left ends with the same hash as its fingerprint. (`cargo clean --workspace` leaves out a target.)
        for ours in "$folder"/.fingerprint/stampede*; do
            rm -rf "$folder"/{.fingerprint,build,deps}/*-"${ours##*-}"{,.*}
        done
    done
    cp -a "$cache_target/.rustc_info.json" "$new"
    if [ -n "$(find "$new" -name '*stampede*' -print -quit)" ]; then
        printf 'compiled crates of registries: not kept, because ours cannot be told from them\n'
        rm -rf "$new"
        return
    fi
    # Another run may have been faster.
    mv -T "$new" "$cache_kept" 2>/dev/null || rm -rf "$new"
    printf 'compiled crates of registries: kept in %s (%s)\n' "$cache_kept" "$(du -sh "$cache_kept" | cut -f 1)"
    # The newest keys; and what a run that was killed has left.
    find "$cache" -mindepth 1 -maxdepth 1 -name '.new-*' -mmin +120 -exec rm -rf {} +
    find "$cache" -mindepth 1 -maxdepth 1 -type d -not -name '.new-*' -printf '%T@ %p\n' | sort -rn |
        tail -n "+$((cache_keys_max + 1))" | cut -d ' ' -f 2- | xargs -r -d '\n' rm -rf
}
