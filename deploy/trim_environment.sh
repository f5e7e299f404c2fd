#!/bin/sh
# Takes out of an image's environment what no process of a server reads: packages' own tests, what modules were compiled
# from, debugging symbols, and uv's lock. With `without-pictures` Pillow too: of what the API needs it is fpdf2 alone that
# can use it, for pictures in a PDF, and a report has none.
#
#   trim_environment.sh ENVIRONMENT [without-pictures]
set -eu
environment=$1
for packages in "$environment"/lib/python3*/site-packages; do
    find "$packages" -depth -type d -name tests -exec rm -rf {} +
    # torch's are programs, 120 MB in its CPU build.
    rm -rf "$packages"/torch/test "$packages"/torch/bin/test_* "$packages"/torch/bin/*Test
    # Examples, and dictionaries of terms for structured reports, which are written by nobody here.
    rm -rf "$packages"/pydicom/data/test_files "$packages"/pydicom/sr
    # Each of fontTools' compiled modules has its Python file beside it, which is as good for a report of some pages.
    if [ -d "$packages/fontTools" ]; then
        find "$packages/fontTools" \( -name '*.so' -o -name '*.c' -o -name '*.pyx' -o -name '*.pxd' \) -delete
    fi
    # Symbols: 12 MB of uvloop, 8 MB of the others. Left as they are where there is no strip.
    for package in uvloop obstore cryptography h5py; do
        if [ -d "$packages/$package" ] && command -v strip > /dev/null; then
            find "$packages/$package" -name '*.so' -exec strip {} +
        fi
    done
    if [ "${2:-}" = without-pictures ]; then
        rm -rf "$packages"/PIL "$packages"/pillow.libs "$packages"/pillow-*.dist-info
    fi
done
rm -f "$environment/.lock"
