# Sourced by the scripts beside it: steps with the seconds that each took, as a table at the end, however that comes.

began=$SECONDS
step_name=
step_began=$SECONDS
table=()

end_step() {
    [ -z "$step_name" ] || table+=("$(printf '%6d s  %s' "$((SECONDS - step_began))" "$step_name")")
}
step() {
    end_step
    step_name=$1 step_began=$SECONDS
    printf '\n==> %s  (%d s)\n' "$1" "$((SECONDS - began))"
}
run() {
    printf '+ %s\n' "$*"
    "$@"
}
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

finish() {
    local status=$?
    # What still runs in the background.
    jobs -p | xargs -r kill 2>/dev/null || true
    [ "$status" = 0 ] || step_name="$step_name: red ($status)"
    end_step
    printf '\n'
    printf '%s\n' "${table[@]}"
    printf '%6d s  in all\n' "$((SECONDS - began))"
    return "$status"
}
trap finish EXIT
