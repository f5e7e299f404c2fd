"""Compiles the slide reader's one C file while a wheel is built; without a compiler OpenCV does its work, slower.

Linux on x86-64 only: there libjpeg-turbo and AVX2 are what the file was measured with.
"""

import os
import platform
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("encoders/tiling/slide_readers/compiled_mean.c")
MODULE = SOURCE.with_suffix(".abi3.so")
PLATFORM = "linux_x86_64"


def _is_meant_for_this_python() -> bool:
    """CPython with its stable interface, which a build without the global lock does not have."""
    is_cpython = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
    return is_cpython and sysconfig.get_platform().replace("-", "_") == PLATFORM


class CompileMean(BuildHookInterface):
    """Leaves the module beside its source, where an editable installation finds it too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Makes the wheel one for this platform and any CPython from 3.11 on, or leaves it pure."""
        if not _is_meant_for_this_python():
            return
        problem = self._compile()
        if problem:
            (Path(self.root) / MODULE).unlink(missing_ok=True)  # an older source's
            self.app.display_warning(f"{SOURCE} is not compiled, reading slides takes 4 % longer: {problem}")
            return
        build_data["artifacts"].append(f"/{MODULE}")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{PLATFORM}"

    def _compile(self) -> str:
        """What went wrong; empty when nothing did."""
        module = Path(self.root) / MODULE
        # Another process may have the old one open, and a new one is there whole or not at all.
        part = module.with_suffix(f".{os.getpid()}")
        compiler = shlex.split(os.environ.get("CC") or "cc")
        options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
        try:
            command = [*compiler, *options, str(SOURCE), "-o", str(part)]
            done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"{shlex.join(compiler)} ended with {done.returncode}. {done.stderr.strip()[:500]}"
            part.replace(module)
        except OSError as error:
            return str(error)
        finally:
            part.unlink(missing_ok=True)
        return ""
