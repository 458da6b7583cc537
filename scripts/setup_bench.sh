#!/usr/bin/env bash
# Make .venv-bench with what the benchmarks compare with. Without it they run, and say what is missing.
set -uo pipefail
cd "$(dirname "$0")/.."

key=$(cksum <requirements/bench.txt | tr ' ' -)
stamp=".venv-bench/.setup-$key"
[ -e "$stamp" ] && exit 0

echo "setup: installing Feast and Spark into .venv-bench"
install() {
    .venv/bin/python -m venv --clear .venv-bench || return
    .venv/bin/uv pip install --quiet --python .venv-bench/bin/python --require-hashes -r requirements/bench.txt \
        2>.venv/uv.log && return
    .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements/bench.txt
}
if install; then
    touch "$stamp"
else
    echo "setup: they cannot be installed here; the tables will say so" >&2
fi
