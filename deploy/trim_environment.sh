#!/bin/sh
# Takes out of an image's environment what no process of a server reads: packages' own tests, what modules were compiled
# from, debugging symbols, and uv's lock. With `small` also what is there for compilers and editors, grammars of languages
# to be shown in colours, and what Pillow has for AVIF and for letters: OpenSlide's package takes of it what wraps pixels.
#
#   trim_environment.sh ENVIRONMENT [small]
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
    if [ "${2:-}" = small ]; then
        find "$packages" \( -name '*.pyi' -o -name '*.a' -o -path '*/numpy/*.h' \) -delete
        find "$packages"/pygments/lexers -type f ! -name '__init__*' ! -name '_mapping*' -delete
        rm -f "$packages"/PIL/_avif*.so "$packages"/PIL/_imagingft*.so \
            "$packages"/pillow.libs/libavif* "$packages"/pillow.libs/libharfbuzz* "$packages"/pillow.libs/libfreetype*
    fi
done
rm -f "$environment/.lock"
