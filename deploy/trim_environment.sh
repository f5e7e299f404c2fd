#!/bin/sh
# Takes out of an image's environment what no process of a server reads: folders of packages' own tests, and uv's lock.
#
#   trim_environment.sh ENVIRONMENT
set -eu
environment=$1
for packages in "$environment"/lib/python3*/site-packages; do
    find "$packages" -depth -type d -name tests -exec rm -rf {} +
done
rm -f "$environment/.lock"
