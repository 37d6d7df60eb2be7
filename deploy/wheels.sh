#!/bin/sh
# Wheels of all distributions of this tree, as `make dist` makes them.
# From its root: wheels.sh FOLDER ENVIRONMENT (made, with the tools that build)
set -eu
python3 -m venv "$2"
"$2/bin/pip" install -q -c constraints.txt build
for project in . kernels kernels_cpu plugins/*; do
	if [ -f "$project/pyproject.toml" ]; then
		PIP_CONSTRAINT="$PWD/constraints.txt" "$2/bin/python" -m build --outdir "$1" "$project"
	fi
done
rm "$1"/*.tar.gz
