#!/bin/sh
# Checks of all kernels, then the engine's benchmark, on the GPU of this machine. JSON is left in
# bench/results/, named by card, date and version. Arguments go to bench/gpu_engine.py, as in
#   bench/gpu.sh --sections decode,verify
# PYTHON names another interpreter; torch, triton and what rtp_core imports must be there.
set -u
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-python3}
PYTHONPATH=.:kernels${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH

name=$("$PYTHON" - <<'EOF'
import datetime
import re
import sys

import torch

from rtp_core import __version__

if not torch.cuda.is_available():
    sys.exit("bench/gpu.sh: torch finds no GPU on this machine; run it on one that has one")
card = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
print(f"gpu-{card}-{datetime.date.today()}-{__version__}")
EOF
) || exit 1

mkdir -p bench/results
status=0
"$PYTHON" kernels/check_gpu.py --json "bench/results/$name-kernels.json" || status=1
"$PYTHON" bench/gpu_engine.py --json "bench/results/$name-engine.json" "$@" || status=1
echo "results: bench/results/$name-kernels.json bench/results/$name-engine.json"
exit $status
