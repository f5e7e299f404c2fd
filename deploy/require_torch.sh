#!/bin/sh
# Ends a build whose environment has another torch than it should: an image for CPUs with CUDA's has 4 GB too much, one
# for GPUs with the CPU's would serve from the CPU without a word.
#
#   require_torch.sh ENVIRONMENT cpu|cuda|none
set -eu
environment=$1 wanted=$2
found=$("$environment/bin/python" -c '
try:
    import torch
except ModuleNotFoundError:
    print("none")
else:
    print("cuda" if torch.version.cuda else "cpu")
')
if [ "$found" != "$wanted" ]; then
    echo "$environment should have torch for: $wanted. It has: $found." >&2
    exit 1
fi
