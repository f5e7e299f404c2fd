"""What commands change of the process that runs them."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """`eyepiece up` narrows it for all that it starts, and it is as it was for the tests that follow."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
