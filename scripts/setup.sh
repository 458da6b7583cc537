#!/usr/bin/env bash
# Make .venv with every pinned requirement. Does nothing when the pins and pyproject.toml are those of the last time.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
    local name
    for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "setup: needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python" >&2
    return 1
}

[ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
key=$(.venv/bin/python - requirements/dev.txt pyproject.toml <<'PY'
import hashlib, pathlib, sys
print(hashlib.sha256(b"\0".join(pathlib.Path(name).read_bytes() for name in sys.argv[1:])).hexdigest()[:16])
PY
)
stamp=".venv/.setup-$key"
[ -e "$stamp" ] && exit 0

echo "setup: installing the pinned requirements into .venv"
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
# uv installs the pins ten times faster; where it cannot (an index that only pip is set up for), pip does.
awk '/^uv==/ {found = 1} found {print} found && !/\\$/ {exit}' requirements/dev.txt >.venv/uv.txt
"${pip[@]}" --require-hashes -r .venv/uv.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements/dev.txt 2>.venv/uv.log ||
    "${pip[@]}" --require-hashes -r requirements/dev.txt
"${pip[@]}" --no-deps --no-build-isolation -e .
rm -f .venv/.setup-*
touch "$stamp"
