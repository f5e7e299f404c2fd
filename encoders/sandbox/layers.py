"""The three layers that keep a parsing child to its own files. Each works without the others.

    own_root      a mount namespace whose root holds the slide, the interpreter and its libraries, read-only
    landlock      the kernel's rules for the files of one process (Linux 5.13 and later, no privileges needed)
    call_filter   a seccomp filter that refuses sockets, signals, new processes and looks into other processes

With `own_root` a foreign file cannot even be named: one that exists and one that does not look the same. Landlock alone
refuses to open it, but lets a process ask whether it exists. With neither, `index_names` refuses what it can recognise.
"""

from typing import Literal, get_args

Layer = Literal["own_root", "landlock", "call_filter"]
ALL_LAYERS: frozenset[Layer] = frozenset(get_args(Layer))
FILE_LAYERS: frozenset[Layer] = frozenset({"own_root", "landlock"})
