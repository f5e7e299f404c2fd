"""What the page computes without a browser: tests of its modules in Node, which Playwright brings along."""

import asyncio
import shutil
from pathlib import Path

MODULES = Path(__file__).parent / "modules"


def node_program() -> str:
    """The machine's own, or Playwright's."""
    if found := shutil.which("node"):
        return found
    from playwright._impl._driver import compute_driver_executable

    return str(compute_driver_executable()[0])


async def test_the_modules_compute_what_their_tests_say() -> None:
    tests = sorted(map(str, MODULES.glob("*.test.mjs")))
    assert tests
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}

    ran = await asyncio.create_subprocess_exec(node_program(), "--test", *tests, **pipes)

    output, _ = await ran.communicate()
    assert ran.returncode == 0, output.decode()
