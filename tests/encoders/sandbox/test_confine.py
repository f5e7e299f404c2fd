"""A confined process tries what a taken-over parser would try: nothing of it may work."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from encoders.sandbox.layers import ALL_LAYERS, Layer
from encoders.sandbox.needed_paths import needed_paths
from encoders.sandbox.probe import describe_layers, is_confined, layers_in_force
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess

ATTEMPTS = """
import ctypes, json, os, signal, socket
from pathlib import Path
from encoders.sandbox.confine import confine_process
from encoders.sandbox.shown_files import shown_files
from encoders.tiling.isolation.reader_limits import ReaderLimits
slide, other, parent = Path({slide!r}), Path({other!r}), {parent}
confined = confine_process(shown_files(slide, None), ReaderLimits(), parent, frozenset({layers!r}))
assert confined.files.entry.read_bytes() == b"mine"
def connect(family, address):
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address)
def fork():
    if os.fork() == 0:
        os._exit(0)
attempts = {{
    "passwd": lambda: Path("/etc/passwd").read_bytes(),
    "other slide": lambda: other.read_bytes(),
    "beside": lambda: (confined.files.entry.parent / other.name).read_bytes(),
    "list folders": lambda: os.listdir("/var"),
    "list others": lambda: os.listdir(other.parent),
    "environment of the parent": lambda: Path(f"/proc/{{parent}}/environ").read_bytes(),
    "memory of the parent": lambda: open(f"/proc/{{parent}}/mem", "rb"),
    "own command line": lambda: Path("/proc/self/cmdline").read_bytes(),
    "device": lambda: open("/dev/zero", "rb"),
    "write beside": lambda: open(confined.files.entry.parent / "new", "wb"),
    "write the slide": lambda: open(confined.files.entry, "r+b"),
    "delete the slide": lambda: confined.files.entry.unlink(),
    "write a library": lambda: open(os.path.dirname(json.__file__) + "/new.py", "wb"),
    "tcp": lambda: connect(socket.AF_INET, ("127.0.0.1", {port})),
    "unix": lambda: connect(socket.AF_UNIX, {unix!r}),
    "abstract unix": lambda: connect(socket.AF_UNIX, {abstract!r}),
    "signal the parent": lambda: os.kill(parent, 0),
    "fork": fork,
    "execute": lambda: os.execv("/bin/true", ["true"]),
}}
worked = []
for name in {only!r} or attempts:
    attempt = attempts[name]
    try:
        attempt()
        worked.append(name)
    except OSError:
        pass
seen = [path for path in ("/etc/passwd", str(other), f"/proc/{{parent}}") if os.path.exists(path)]
print(json.dumps([sorted(confined.layers), worked, seen, confined.degraded]))
"""


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[tuple[int, str, str]]:
    """What listens: a TCP port, a path and an abstract name."""
    path, name = str(tmp_path / "api.sock"), f"\0eyepiece-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        with socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind(name)
            abstract.listen()
            yield tcp.getsockname()[1], path, name


def attempt_all(
    folder: Path, sockets: tuple[int, str, str], layers: frozenset[Layer], only: tuple[str, ...] = ()
) -> tuple[set[str], set[str], list[str], list[str]]:
    """The layers in force, what worked, which foreign paths could be seen, and which limits were refused."""
    slide, other = folder / "mine" / "slide", folder / "others" / "secret"
    for path, content in ((slide, b"mine"), (other, b"secret")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    port, unix, abstract = sockets
    script = ATTEMPTS.format(
        slide=str(slide),
        other=str(other),
        parent=os.getpid(),
        layers=sorted(layers),
        port=port,
        unix=unix,
        abstract=abstract,
        only=only,
    )
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    granted, worked, seen, degraded = json.loads(result.stdout)
    return set(granted), set(worked), seen, degraded


def require_granted(granted: set[str], wanted: frozenset[Layer]) -> None:
    if refused := wanted - granted:
        pytest.skip(f"this platform does not grant {', '.join(sorted(refused))}")


def test_with_every_layer_nothing_can_be_opened_reached_or_even_seen(
    tmp_path: Path, sockets: tuple[int, str, str]
) -> None:
    granted, worked, seen, degraded = attempt_all(tmp_path, sockets, ALL_LAYERS)

    require_granted(granted, ALL_LAYERS)
    assert (worked, seen, degraded) == (set(), [], [])


def test_in_a_container_without_namespaces_nothing_can_be_opened_or_reached(
    tmp_path: Path, sockets: tuple[int, str, str]
) -> None:
    layers: frozenset[Layer] = frozenset({"landlock", "call_filter"})

    granted, worked, _, degraded = attempt_all(tmp_path, sockets, layers)

    require_granted(granted, layers)
    assert (worked, degraded) == (set(), [])


def test_a_root_of_its_own_alone_hides_every_file(tmp_path: Path, sockets: tuple[int, str, str]) -> None:
    granted, worked, seen, degraded = attempt_all(tmp_path, sockets, frozenset({"own_root"}))

    require_granted(granted, frozenset({"own_root"}))
    assert worked <= {"signal the parent", "fork"}
    assert seen == []
    assert degraded == ["The reader may use sockets and signal other processes."]


def test_without_any_layer_it_is_said_that_files_are_open(tmp_path: Path, sockets: tuple[int, str, str]) -> None:
    granted, worked, _, degraded = attempt_all(tmp_path, sockets, frozenset(), ("passwd", "other slide"))

    assert (granted, worked) == (set(), {"passwd", "other slide"})
    assert "The reader may open files that are not the slide's." in degraded


def test_the_real_child_has_its_pipes_its_ring_and_the_slide_open_and_nothing_else(
    tmp_path: Path, sample_slide: Path
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("this platform does not list what a process has open")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    descriptor = os.open(secret, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        with ReaderProcess(sample_slide, ReaderLimits(deadline_s=60)) as reader:
            folder = Path(f"/proc/{reader.pid}/fd")
            opened = [os.readlink(path) for path in folder.iterdir()]
    except PermissionError:
        pytest.skip("a process in its own user namespace hides what it has open here")
    finally:
        os.close(descriptor)

    strangers = [name for name in opened if not name.startswith(("pipe:", "/dev/null", "/memfd:eyepiece-tiles"))]
    assert {Path(name).name for name in strangers} <= {sample_slide.name}


def test_the_data_folder_beside_the_environment_is_not_among_what_is_needed() -> None:
    checkout = Path(__file__).resolve().parents[3]
    needed = needed_paths([])

    assert checkout / "encoders" in needed
    assert not [path for path in needed if (checkout / "data" / "store").is_relative_to(path)]


def test_a_folder_of_libraries_that_holds_the_slide_is_not_shown() -> None:
    inside = needed_paths([])[0]

    assert inside not in needed_paths([inside / "slide.svs"])


def test_the_probe_finds_what_is_in_force_and_words_for_it() -> None:
    script = "from encoders.sandbox.probe import main; main(frozenset())"

    assert layers_in_force((sys.executable, "-P", "-c", script)) == frozenset()
    assert layers_in_force((sys.executable, "-c", "raise SystemExit(1)")) is None
    assert is_confined(ALL_LAYERS)
    assert not is_confined(frozenset({"call_filter"}))
    assert describe_layers(frozenset()).endswith("a hostile parser is not kept from any file")
