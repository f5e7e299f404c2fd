"""`eyepiece up`: everything on one machine. Redis → vLLM, encoder workers, API → ready → … → stop in reverse.

Where workers share vLLM's GPU they come before it: vLLM measures, while it starts, what others have left.

All state is under the data folder. Secrets reach the processes through their environment, never as arguments.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from encoders.nvidia_driver import visible_gpus
from model_store.packaged_models import open_or_install
from server.commands.checks import check_disk, check_gpu, check_memory, check_port
from server.commands.data_folder import close_to_other_users, locked_data_folder
from server.commands.environments import read_vllm_environment, vllm_python
from server.commands.exposure import describe_access, refuse_failed, refuse_open_address
from server.commands.gpu_shares import GpuShares, plan_shares
from server.commands.llm import SHUTDOWN_TIMEOUT_S, builds_of, require_vllm
from server.commands.outcome import CommandError, ExitCode
from server.commands.tensor_parallel import refuse_size
from server.machine.addresses import local_host, url_of
from server.machine.component_states import CrashLoopFile
from server.machine.liveness import Liveness, makes_tokens
from server.machine.redis_server import NoServer, answers, choose_server, free_loopback_port, prepare_redis
from server.machine.service_notice import tell_systemd
from server.machine.supervise import Change, Component, ComponentError, Supervisor
from server.machine.up_state import UpStateFile
from server.settings import Settings
from server.storage.private_files import keep_secret

# A 7B model on a GPU loads, compiles and captures for minutes; a component that dies is noticed at once.
READY_TIMEOUT_S = 1800.0
REDIS_READY_TIMEOUT_S = 120.0  # a large append-only file is read first
PROBE_TIMEOUT_S = 1.0
KILL_MARGIN_S = 10.0
# Of a second each, two seconds apart: a process that has not answered for a minute is taken for hung.
QUIET_PROBES = 20
# One token behind whatever vLLM has to do; three minutes without any are longer than a full queue keeps it.
TOKEN_TIMEOUT_S = 60.0
TOKEN_EVERY_S = 10.0
QUIET_TOKENS = 3
_ADVICE_TO_CUT = re.compile(r"[:.;]?\s*(make a backup.*)?[^:.;]*(redis|valkey)-check-(aof|rdb).*")


@dataclass(frozen=True)
class UpOptions:
    """`notify_fd` gets the line `ready` when the server is, and its end of file when it is not going to be."""

    workers: int = 1
    notify_fd: int | None = None


def up(settings: Settings, options: UpOptions) -> None:
    """Runs until SIGINT or SIGTERM.

    Raises:
        CommandError: refused before starting, or a component could not be brought up.
        ModelError: the model is not installed.
    """
    os.umask(0o077)  # what the processes write is for this user only
    refuse_open_address(settings)
    refuse_unusable_ports(settings, options.workers)
    refuse_failed(check_disk(settings.data_dir))
    refuse_failed(check_memory())
    refuse_failed(check_gpu(settings))
    shares = shares_here(settings, options.workers)
    with locked_data_folder(settings.data_dir):
        if warning := close_to_other_users(settings):
            sys.stderr.write(f"{warning}\n")
        require_vllm_unless_elsewhere(settings)
        for served in settings.served_models:
            model = open_or_install(settings.installed_models_dir, served.name)
            if served.name in settings.models_to_start:
                refuse_size(model, settings.tensor_parallel_size, builds_of(vllm_python()))
        try:
            _supervise(settings, options, shares)
        except ComponentError as error:
            raise CommandError(str(error), ExitCode.FAILED) from error


def require_vllm_unless_elsewhere(settings: Settings) -> None:
    """Refuses when vLLM is to be started here and is not installed.

    Raises:
        CommandError: it is not.
    """
    if not settings.llm_is_external:
        require_vllm(vllm_python(), settings.device)


def shares_here(settings: Settings, workers: int) -> GpuShares:
    """Who computes where on this machine; CommandError when it does not fit."""
    starts_on_gpu = not settings.llm_is_external and read_vllm_environment(vllm_python()).cuda_version is not None
    gpus = len(visible_gpus())
    vllms = len(settings.models_to_start)
    llm_gpus = settings.tensor_parallel_size * vllms if starts_on_gpu else 0
    if starts_on_gpu and vllms > 1 and gpus < llm_gpus:
        raise CommandError(
            f"{vllms} models need {llm_gpus} GPUs for their vLLMs, and there are {gpus}: start fewer, or start vLLMs "
            "yourself (`eyepiece llm`) and name their addresses in EYEPIECE_MODELS.",
            ExitCode.USAGE,
        )
    return plan_shares(settings, workers, gpus, llm_gpus=min(gpus, llm_gpus))


def refuse_unusable_ports(settings: Settings, workers: int) -> None:
    """Every port that the settings fix can be had, once, by the process that it is for.

    Raises:
        CommandError: it cannot; the text names the setting.
    """
    for is_elsewhere, port_of, url in (
        (settings.redis_is_external and settings.redis_port, "EYEPIECE_REDIS_PORT", "EYEPIECE_REDIS_URL"),
        (settings.llm_is_external and settings.llm_port, "EYEPIECE_LLM_PORT", "EYEPIECE_LLM_URL"),
    ):
        if is_elsewhere:
            raise CommandError(
                f"{port_of} is for a server that `eyepiece up` starts, and {url} names another one: unset one of them.",
                ExitCode.USAGE,
            )
    last = settings.worker_port + workers - 1
    if settings.worker_port and last > 65535:
        raise CommandError(
            f"The ports of {workers} workers from EYEPIECE_WORKER_PORT on end at {last}, past the last port: "
            "choose a lower one.",
            ExitCode.USAGE,
        )
    worker_ports = range(settings.worker_port, last + 1) if settings.worker_port else ()
    first_llm, vllms = settings.llm_port, len(settings.models_to_start)
    wanted = [
        ("EYEPIECE_PORT", settings.host, settings.port),
        ("EYEPIECE_REDIS_PORT", "127.0.0.1", settings.redis_port),
        *(("EYEPIECE_LLM_PORT", "127.0.0.1", first_llm + number) for number in range(vllms if first_llm else 0)),
        *(("EYEPIECE_WORKER_PORT", settings.worker_host, port) for port in worker_ports),
    ]
    owners: dict[int, str] = {}
    for name, host, port in wanted:
        if not port:
            continue
        if port in owners:
            raise CommandError(f"{owners[port]} and {name} both ask for port {port}: change one.", ExitCode.USAGE)
        owners[port] = name
        choose = "choose another one with --port" if name == "EYEPIECE_PORT" else f"choose another one in {name}"
        refuse_failed(check_port(host, port, choose))


def _supervise(settings: Settings, options: UpOptions, shares: GpuShares) -> None:
    plan = Plan(settings, logs=settings.data_dir.resolve() / "logs")
    plan.logs.mkdir(mode=0o700, exist_ok=True)
    crash_loops = CrashLoopFile(plan.crash_loop_file)
    printer = _Printer()
    facts = {
        "url": url_of(settings.host, settings.port),
        "model": settings.default_model,
        "models": [served.name for served in settings.served_models],
        "logs": str(plan.logs),
    }
    state_file = UpStateFile(settings.data_dir, facts)
    is_ready = False

    def report(change: Change) -> None:
        printer(change)
        try:
            crash_loops(change)
        except OSError as error:  # a full disk ends no process that runs
            print(f"         {plan.crash_loop_file} cannot be written: {error.strerror}", flush=True)
        note_state()

    def note_state() -> None:
        state = "stopping" if supervisor.stop_requested else "running" if is_ready else "starting"
        state_file.write(supervisor.components(), plan.addresses, state=state, secrets=plan.secret_files)

    with state_file, Supervisor(report) as supervisor:
        note_state()
        if not settings.redis_is_external:
            supervisor.start(plan.redis())
            try:
                if not supervisor.wait_until_ready(["redis"], REDIS_READY_TIMEOUT_S):
                    return
            except ComponentError as error:
                raise CommandError(redis_story(error, settings.data_dir), ExitCode.FAILED) from error
        print("vLLM takes longest: about a minute for the demo model, several for a large one.", flush=True)
        if start_in_turn(supervisor, plan.start_order(shares)):
            access = describe_access(settings)
            print(
                f"Eyepiece is ready at {url_of(settings.host, settings.port)}; {access}; Ctrl-C stops it.", flush=True
            )
            is_ready = True
            note_state()
            _notify(options.notify_fd)
            tell_systemd("READY=1")
            supervisor.run()
            tell_systemd("STOPPING=1")


def start_in_turn(supervisor: Supervisor, groups: Sequence[Sequence[Component]]) -> bool:
    """Starts each group when the one before is ready; True when all are, False when a signal came first.

    Raises:
        ComponentError: one could not be brought up.
    """
    for group in groups:
        for component in group:
            supervisor.start(component)
        if not supervisor.wait_until_ready([it.name for it in group], READY_TIMEOUT_S):
            return False
    return True


def redis_story(error: ComponentError, data_dir: Path) -> str:
    """The error without the server's own advice: to cut the file is to lose what is behind the cut."""
    lines = [_ADVICE_TO_CUT.sub("", line) for line in str(error).splitlines()]
    folder = data_dir / "redis"
    advice = (
        f"Copy {folder} before anything else. To go on without it, move it away: conversations are lost, slides are "
        "not, and what waits is queued again by itself."
    )
    return "\n".join([*lines, advice])


def _notify(descriptor: int | None) -> None:
    if descriptor is not None:
        os.write(descriptor, b"ready\n")
        os.close(descriptor)


@dataclass
class Plan:
    """The components for these settings; `environment` grows by what each tells the later ones.

    `addresses` has where each listens, `secret_files` where its password or key lies, both by its name.
    """

    settings: Settings
    logs: Path
    environment: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    secret_files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.settings
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},  # it is for `up` alone
            "PYTHONSAFEPATH": "1",  # a folder `server` in the working directory must not be imported
            "EYEPIECE_DATA_DIR": str(settings.data_dir.resolve()),
            "EYEPIECE_HOST": settings.host,
            "EYEPIECE_PORT": str(settings.port),
            "EYEPIECE_MODEL": settings.model,
            "EYEPIECE_MODELS": settings.models,
            "EYEPIECE_WORKER_HOST": settings.worker_host,
            "EYEPIECE_CRASH_LOOP_FILE": str(self.crash_loop_file),
        }

    @property
    def crash_loop_file(self) -> Path:
        """What the supervisor tells the API."""
        return self.settings.crash_loop_file or self.logs / "crash_loops.json"

    @property
    def llm_key_file(self) -> Path:
        """The key of the vLLM that is started here, unless EYEPIECE_LLM_API_KEY says one."""
        return self.settings.data_dir.resolve() / "vllm" / "key"

    def redis(self) -> Component:
        """A server of our own on a loopback port."""
        folder = self.settings.data_dir.resolve() / "redis"
        try:
            program = choose_server(folder)
        except NoServer as error:
            raise CommandError(str(error), ExitCode.USAGE) from error
        launch = prepare_redis(program, folder, port=self.settings.redis_port)
        self.environment["EYEPIECE_REDIS_URL"] = launch.url
        self.addresses["redis"] = launch.url.rpartition("@")[2].partition("/")[0]
        self.secret_files["redis"] = str(folder / "password")
        quiet = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TZ")}
        component = self._component("redis", launch.command, quiet, lambda: answers(launch.url))
        return replace(component, liveness=Liveness(component.is_ready, QUIET_PROBES))

    def llm(self) -> list[Component]:
        """For each model whose address nobody named, vLLM on a loopback port."""
        settings, names = self.settings, self.settings.models_to_start
        if not names:
            return []
        self.environment["EYEPIECE_LLM_API_KEY"] = self._llm_key()
        first = settings.llm_port
        ports = {name: first + index if first else free_loopback_port() for index, name in enumerate(names)}
        if len(settings.served_models) == 1:
            self.environment["EYEPIECE_LLM_URL"] = url_of("127.0.0.1", ports[names[0]])
            return [self._vllm("vllm", names[0], ports[names[0]])]
        urls = {it.name: it.url or url_of("127.0.0.1", ports[it.name]) for it in settings.served_models}
        self.environment["EYEPIECE_MODELS"] = ",".join(f"{name}={url}" for name, url in urls.items())
        started = [self._vllm(f"vllm-{name}", name, port) for name, port in ports.items()]
        gpus = len(visible_gpus())
        if not gpus:
            return started
        places = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))).split(",")
        size = settings.tensor_parallel_size  # each gets GPUs of its own (`shares_here` refuses when there are fewer)
        own = [",".join(places[index * size : (index + 1) * size]) for index in range(len(names))]
        return [_with(it, CUDA_VISIBLE_DEVICES=its) for it, its in zip(started, own, strict=True)]

    def _vllm(self, name: str, model: str, port: int) -> Component:
        self.addresses[name] = f"127.0.0.1:{port}"
        command = _eyepiece("llm", "--host", "127.0.0.1", "--port", str(port))
        is_ready = http_probe("127.0.0.1", port, "/health")
        environment = {**self.environment, "EYEPIECE_MODEL": model}
        component = self._component(name, command, environment, is_ready, SHUTDOWN_TIMEOUT_S)
        makes_one = makes_tokens("127.0.0.1", port, self.environment["EYEPIECE_LLM_API_KEY"], TOKEN_TIMEOUT_S)
        liveness = Liveness(makes_one, QUIET_TOKENS, every_s=TOKEN_EVERY_S)
        # SIGKILL would leave vLLM's engine process behind (seen with 0.32.0); on SIGTERM it takes it along.
        return replace(component, death_signal=signal.SIGTERM, liveness=liveness)

    def start_order(self, shares: GpuShares) -> list[list[Component]]:
        """All but Redis, in groups: each is ready before the next is started, and stopped after it.

        The API comes with or after vLLM in any case, so that it stops first and its streams end.
        """
        llm = [_with(it, EYEPIECE_LLM_GPU_MEMORY=f"{shares.llm:g}") for it in self.llm()]
        workers = [
            _with(it, EYEPIECE_DEVICE=device, EYEPIECE_WORKER_GPU_MEMORY=f"{shares.worker:g}")
            for it, device in zip(self.encoder_workers(len(shares.devices)), shares.devices, strict=True)
        ]
        return [workers, [*llm, self.api()]] if shares.is_shared else [[*llm, *workers, self.api()]]

    def encoder_workers(self, count: int) -> list[Component]:
        """`count` workers; each says at a port of its own when it is warm."""
        first = self.settings.worker_port
        ports = [first + index if first else free_loopback_port() for index in range(count)]
        return [self._encoder_worker(f"worker-{number}", port) for number, port in enumerate(ports, 1)]

    def _llm_key(self) -> str:
        if said := self.settings.llm_api_key.get_secret_value():
            return said
        self.llm_key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.secret_files["vllm"] = str(self.llm_key_file)
        return keep_secret(self.llm_key_file)

    def _encoder_worker(self, name: str, port: int) -> Component:
        environment = {**self.environment, "EYEPIECE_WORKER_PORT": str(port)}
        self.addresses[name] = url_of(self.settings.worker_host, port).removeprefix("http://")
        is_ready = http_probe(self.settings.worker_host, port, "/readyz")
        grace_s = float(self.settings.shutdown_grace_s)
        component = self._component(name, _eyepiece("worker"), environment, is_ready, grace_s)
        is_alive = http_probe(self.settings.worker_host, port, "/livez")
        return replace(component, liveness=Liveness(is_alive, QUIET_PROBES))

    def api(self) -> Component:
        """The API; ready when everything behind it is."""
        is_ready = http_probe(self.settings.host, self.settings.port, "/readyz")
        self.addresses["api"] = url_of(self.settings.host, self.settings.port).removeprefix("http://")
        grace_s = self.settings.drain_notice_s + self.settings.shutdown_grace_s
        component = self._component("api", _eyepiece("api"), self.environment, is_ready, grace_s)
        is_alive = http_probe(self.settings.host, self.settings.port, "/livez")
        return replace(component, liveness=Liveness(is_alive, QUIET_PROBES))

    def _component(
        self,
        name: str,
        command: tuple[str, ...],
        environment: Mapping[str, str],
        is_ready: Callable[[], bool],
        drain_s: float = 0.0,
    ) -> Component:
        log = self.logs / f"{name}.log"
        return Component(name, command, dict(environment), log, is_ready, drain_s + KILL_MARGIN_S)


class _Printer:
    """One line for each change of a component, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, change: Change) -> None:
        elapsed_s = time.monotonic() - self._started
        detail = f": {change.detail}" if change.detail else ""
        print(f"{elapsed_s:6.1f} s  {change.name:<9} {change.state}{detail}", flush=True)


def http_probe(host: str, port: int, path: str) -> Callable[[], bool]:
    """Asks the server that listens on `host` whether GET `path` answers 200 now."""

    def answers_200() -> bool:
        connection = HTTPConnection(local_host(host), port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    return answers_200


def _with(component: Component, **variables: str) -> Component:
    return replace(component, environment={**component.environment, **variables})


def _eyepiece(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "server", *arguments)
