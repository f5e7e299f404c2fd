#!/bin/sh
# Takes out of an image's environment what no process of a server reads: packages' own tests, and uv's lock.
#
#   trim_environment.sh ENVIRONMENT
set -eu
environment=$1
for packages in "$environment"/lib/python3*/site-packages; do
    find "$packages" -depth -type d -name tests -exec rm -rf {} +
    # torch's are programs, 120 MB in its CPU build.
    rm -rf "$packages"/torch/test "$packages"/torch/bin/test_* "$packages"/torch/bin/*Test
done
rm -f "$environment/.lock"
