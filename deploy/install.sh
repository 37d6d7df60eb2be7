#!/bin/sh
# A virtual environment with torch and our wheels, and nothing of the sources.
# install.sh WHEELS ENVIRONMENT [EXTRAS], EXTRAS as otel,object-store.
# Where PIP_EXTRA_INDEX_URL names an index with another build of torch, that build is installed.
set -eu
python3 -m venv "$2"
pins="$1/constraints.txt"
"$2/bin/pip" install -q --no-cache-dir -c "$pins" "$(grep '^torch==' "$pins")"
core=$(echo "$1"/rtp_core-*.whl)
rest=$(ls "$1"/*.whl | grep -v /rtp_core-)
# shellcheck disable=SC2086 # one wheel a word
"$2/bin/pip" install -q --no-cache-dir -c "$pins" $rest "$core${3:+[$3]}"
