"""Builds the two Python environments, `.venv` and `.venv-vllm`; done in an instant when they are up to date.

This file must parse on any old Python, or "your Python is too old" would be a syntax error; the work is in
`environments.py` beside it.
"""

import os
import sys

# vllm 0.32.0 and torch 2.13.0 have builds for these.
if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    sys.stderr.write(
        "Eyepiece needs Python 3.11 to 3.14 and this is {}.{}: install one and name it, e.g. "
        "`make demo PYTHON=python3.11`.\n".format(*sys.version_info[:2])
    )
    sys.exit(2)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # not there under PYTHONSAFEPATH=1

from environments import main

sys.exit(main(sys.argv[1:]))
