# Shared by the scripts of this folder; sourced, not run.
#
# Sets ROOT and goes there, so that every script works from any folder.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

JOBS=$(nproc 2>/dev/null || echo 2)

# The distribution's python: it is the one that has the distribution's modules.
PYTHON=/usr/bin/python3
[ -x "$PYTHON" ] || PYTHON=python3
export PYTHONDONTWRITEBYTECODE=1

say() { printf '== %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# configure_preset PRESET: quiet when all is well.
configure_preset() {
    local log=build/$1.configure.log
    mkdir -p build
    if ! cmake --preset "$1" >"$log" 2>&1; then
        cat "$log" >&2
        return 1
    fi
}

# build_preset PRESET [ninja argument ...]: configures and builds, says little when all is well.
build_preset() {
    local preset=$1
    shift
    configure_preset "$preset" || return 1
    ninja -C "build/$preset" -j "$JOBS" --quiet "$@"
}

# c_files [path ...]: the C sources of the tree that are known to git or new, without ignored ones.
c_files() {
    git ls-files --cached --others --exclude-standard -- "${@:-.}" | { grep -E '\.[ch]$' || true; } |
        while IFS= read -r file; do
            if [ -f "$file" ]; then printf '%s\n' "$file"; fi
        done
}
