"""`eyepiece status`: what runs, where it listens, where its secrets lie, what waits, and whether all is well.

On this machine from the note of `eyepiece up`, Redis and the API; of a server elsewhere what its API shows.
"""

import asyncio
import os
import shutil
import stat
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from redis.exceptions import RedisError

from server.commands.data_folder import holder_of
from server.commands.models import installed_names
from server.commands.outcome import CommandError, ExitCode
from server.commands.terminal import print_json, printable
from server.encoding.jobs import EncodeJobs, QueueDepth
from server.machine.up_state import is_current, read_state
from server.settings import Settings
from server.slides.slide_record import Priority
from server.storage.redis_client import connect_redis

_TIMEOUT_S = 5.0
_PRIORITIES: tuple[Any, ...] = ("urgent", "routine")


def status_here(settings: Settings, as_json: bool) -> ExitCode:
    """Prints what runs on this machine under the data folder; OK when all is well, UNREACHABLE when nothing runs.

    Raises:
        CommandError: the folder belongs to another user.
    """
    try:
        report = _report_here(settings)
    except PermissionError as error:
        sentence = f"{settings.data_dir} cannot be read: ask as the user that runs `eyepiece up`."
        raise CommandError(sentence, ExitCode.USAGE) from error
    return _finish(report, as_json)


def status_of(url: str, key: str, as_json: bool) -> ExitCode:
    """Prints what the API at `url` shows: readiness, queue, free disk, and with a key the models."""
    base = url.rstrip("/")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        report: dict[str, Any] = {"url": base, "readiness": _readiness(base)}
        report |= _measured(base)
        report["models"] = {"served": _served_models(base, headers)}
    except httpx.InvalidURL as error:
        raise CommandError("The URL is not valid; give one like http://127.0.0.1:8000.", ExitCode.USAGE) from error
    report["running"] = report["readiness"] is not None
    report["problems"] = [] if not report["running"] else list(_readiness_problems(report["readiness"]))
    report["why_not"] = f"Nothing answers at {base}."
    return _finish(report, as_json)


def _report_here(settings: Settings) -> dict[str, Any]:
    data_dir = settings.data_dir
    if data_dir.is_dir() and not os.access(data_dir, os.R_OK | os.X_OK):
        raise PermissionError
    report: dict[str, Any] = {
        "running": False,
        "data_dir": str(data_dir.absolute()),
        "disk": _disk(data_dir),
        "models": {"served": [], "installed": installed_names(settings.installed_models_dir)},
        "problems": [],
    }
    state, holder = read_state(data_dir), holder_of(data_dir)
    if state is None or not is_current(state):
        report["why_not"] = f"No `eyepiece up` runs on {data_dir}."
        if holder is not None:
            report |= {"running": True, "pid": holder}
            report["problems"] = [f"process {holder} has taken {data_dir} and has not said yet what it runs"]
        elif state is not None:
            started = _moment(state["started_at_epoch_s"])
            report["why_not"] += f" The last one (process {state['pid']}, of {started}) was killed."
        return report
    names = ("pid", "state", "url", "started_at_epoch_s", "processes", "secret_files", "logs")
    report |= {"running": True, **{name: state[name] for name in names}}
    report["models"]["served"] = _models_of(state)
    report["readiness"] = _readiness(state["url"])
    report["queue"] = asyncio.run(_queue(settings, state))
    report["problems"] = list(_problems(report, settings))
    return report


def _problems(report: dict[str, Any], settings: Settings) -> Iterator[str]:
    if report["state"] != "running":
        yield f"`eyepiece up` is {report['state']}"
    for process in report["processes"]:
        if process["state"] != "ready":
            detail = f": {process['detail']}" if process["detail"] else ""
            yield f"{process['name']} is {process['state']}{detail}; its log is {process['log']}"
    if report["readiness"] is None:
        yield f"the API does not answer at {report['url']}"
    else:
        yield from _readiness_problems(report["readiness"])
    if report["queue"] is None:
        yield "Redis does not answer, so what waits is not known"
    if report["disk"]["free_bytes"] < settings.disk_reserve_bytes:
        yield "the disk is almost full: uploads are refused (EYEPIECE_DISK_RESERVE_BYTES)"


def _readiness_problems(readiness: dict[str, Any]) -> Iterator[str]:
    checks = readiness.get("checks")
    for name, seen in checks.items() if isinstance(checks, dict) else ():
        if seen != "ok":
            yield f"{name} is {seen}"
    models = readiness.get("models")
    for name, seen in models.items() if isinstance(models, dict) and len(models) > 1 else ():
        if seen != "ok":
            yield f"the model {name} is {seen}"
    if readiness["http_status"] != 200:
        yield f"the API says {readiness.get('status', readiness['http_status'])}"


def _readiness(url: str) -> dict[str, Any] | None:
    """The body of /readyz and its HTTP status, None when nobody answers."""
    answer = _get(url, "/readyz")
    if answer is None:
        return None
    try:
        body = answer.json()
    except ValueError:
        body = {}
    return {**(body if isinstance(body, dict) else {}), "http_status": answer.status_code}


def _get(url: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response | None:
    try:
        return httpx.get(f"{url}{path}", headers=headers, timeout=_TIMEOUT_S, trust_env=False)
    except httpx.UnsupportedProtocol as error:
        raise httpx.InvalidURL(url) from error
    except httpx.HTTPError:
        return None


def _measured(url: str) -> dict[str, Any]:
    """Queue and free disk as the API measures them; what it does not show is None."""
    answer = _get(url, "/metrics")
    found: dict[tuple[str, str], float] = defaultdict(float)
    if answer is not None and answer.status_code == 200:
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                key = sample.name, sample.labels.get("priority", "")
                # The queues of all models together, and the job that has waited longest in any.
                is_age = sample.name == "eyepiece_jobs_oldest_queued_seconds"
                found[key] = max(found[key], sample.value) if is_age else found[key] + sample.value
    queue = {
        priority: {
            "queued": int(found["eyepiece_jobs_queued", priority]),
            "active": int(found["eyepiece_jobs_active", priority]),
            "oldest_queued_s": found.get(("eyepiece_jobs_oldest_queued_seconds", priority), 0.0),
        }
        for priority in _PRIORITIES
        if ("eyepiece_jobs_queued", priority) in found
    }
    free_bytes = found.get(("eyepiece_store_free_bytes", ""))
    return {"queue": queue or None, "disk": {"free_bytes": None if free_bytes is None else int(free_bytes)}}


def _served_models(url: str, headers: dict[str, str]) -> list[str] | None:
    answer = _get(url, "/v1/models", headers)
    try:
        return [str(model["id"]) for model in answer.json()["data"]] if answer is not None else None
    except (ValueError, KeyError, TypeError):
        return None  # it wants a key


def _models_of(state: dict[str, Any]) -> list[str]:
    """What the `eyepiece up` serves that wrote this, the default first; an older release's is one."""
    return list(state.get("models") or [state["model"]])


async def _queue(settings: Settings, state: dict[str, Any]) -> dict[str, Any] | None:
    """Asked of Redis itself: it answers when the API does not."""
    url = settings.redis_url.get_secret_value() if settings.redis_is_external else _own_redis_url(state)
    if url is None:
        return None
    mine = settings.model_copy(update={"redis_url": SecretStr(url), "models": ",".join(_models_of(state))})
    try:
        redis = connect_redis(mine)
    except ValueError:
        return None
    try:
        jobs = EncodeJobs(redis, mine)
        return {priority: asdict(await _depth(jobs, mine, priority)) for priority in _PRIORITIES}
    except (RedisError, OSError):
        return None
    finally:
        await redis.aclose()


async def _depth(jobs: EncodeJobs, settings: Settings, priority: Priority) -> QueueDepth:
    """The queues of all models together."""
    depths = [await jobs.depth(priority, model.name) for model in settings.served_models]
    oldest_s = max(it.oldest_queued_s for it in depths)
    return QueueDepth(sum(it.queued for it in depths), sum(it.active for it in depths), oldest_s)


def _own_redis_url(state: dict[str, Any]) -> str | None:
    addresses = {process["name"]: process["address"] for process in state["processes"]}
    password_file = state["secret_files"].get("redis")
    if password_file is None or addresses.get("redis") is None:
        return None
    try:
        password = Path(password_file).read_text().strip()
    except FileNotFoundError:
        return None
    return f"redis://:{quote(password, safe='')}@{addresses['redis']}/0"


def _disk(data_dir: Path) -> dict[str, Any]:
    """Bytes that the parts of the folder take on the disk, and what is free there."""
    nearest = next(path for path in (data_dir.absolute(), *data_dir.absolute().parents) if path.exists())
    parts = sorted(data_dir.iterdir()) if data_dir.is_dir() else []
    used = {path.name: _bytes_below(path) for path in parts if path.is_dir() and not path.is_symlink()}
    return {"free_bytes": shutil.disk_usage(nearest).free, "used_bytes": used}


def _bytes_below(folder: Path) -> int:
    """As `du` counts them; what goes away meanwhile counts nothing."""
    total, folders, seen = 0, [str(folder)], set[int]()
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(facts.st_mode):
                        folders.append(entry.path)
                    elif facts.st_nlink == 1 or facts.st_ino not in seen:
                        seen.update({facts.st_ino} if facts.st_nlink > 1 else ())
                        total += facts.st_blocks * 512
        except OSError:
            continue
    return total


def _finish(report: dict[str, Any], as_json: bool) -> ExitCode:
    well = report["running"] and not report["problems"]
    if as_json:
        print_json({"ok": well, **report})
    else:
        print("\n".join(printable(line) for line in _lines(report)))
    if not report["running"]:
        return ExitCode.UNREACHABLE
    return ExitCode.OK if well else ExitCode.FAILED


def _lines(report: dict[str, Any]) -> Iterator[str]:
    if not report["running"]:
        yield report["why_not"]
    elif "state" in report:
        since = f"since {_moment(report['started_at_epoch_s'])}, process {report['pid']}"
        yield f"`eyepiece up` is {report['state']} at {report['url']}, {since}"
    elif "url" not in report:
        yield f"`eyepiece up` has begun on {report['data_dir']}, process {report['pid']}"
    else:
        yield f"The API at {report['url']} answers"
    if report.get("readiness"):
        yield f"readiness  {_readiness_text(report['readiness'])}"
    yield from _process_lines(report.get("processes", []))
    if report["running"]:
        yield from _queue_lines(report.get("queue"))
    yield f"models     {_models_text(report['models'])}"
    if report["disk"]["free_bytes"] is not None:
        yield f"disk       {_disk_text(report)}"
    for name, path in report.get("secret_files", {}).items():
        yield f"secret     {name}: {path}"
    if "logs" in report:
        yield f"logs       {report['logs']}"
    for problem in report["problems"]:
        yield f"PROBLEM    {problem}"


def _readiness_text(readiness: dict[str, Any]) -> str:
    status, workers = readiness.get("status", "unknown"), readiness.get("workers_ready")
    return f"{status}" if workers is None else f"{status}, warm encoder workers: {workers}"


def _process_lines(processes: list[dict[str, Any]]) -> Iterator[str]:
    if not processes:
        return
    yield f"\n{'process':<11}{'state':<12}{'pid':>8}{'up for':>12}{'restarts':>10}  listens on"
    for it in processes:
        up_for = _duration(time.time() - it["started_at_epoch_s"]) if it["pid"] else "-"
        row = f"{it['name']:<11}{it['state']:<12}{it['pid'] or '-':>8}{up_for:>12}{it['restarts']:>10}"
        yield f"{row}  {it['address'] or '-'}"
    yield ""


def _models_text(models: dict[str, Any]) -> str:
    if "installed" not in models:
        return f"served: {', '.join(models['served'])}" if models["served"] else "not shown without a key"
    served, installed = ", ".join(models["served"]) or "none", ", ".join(models["installed"]) or "none"
    return f"served: {served}; installed: {installed}"


def _disk_text(report: dict[str, Any]) -> str:
    disk, where = report["disk"], f" for {report['data_dir']}" if "data_dir" in report else ""
    used = ", ".join(f"{name} {_size(count)}" for name, count in disk.get("used_bytes", {}).items())
    return f"{_size(disk['free_bytes'])} free{where}" + (f"; used: {used}" if used else "")


def _queue_lines(queue: dict[str, Any] | None) -> Iterator[str]:
    if queue is None:
        yield "queue      not known"
        return
    for priority, depth in queue.items():
        oldest = f", the oldest for {_duration(depth['oldest_queued_s'])}" if depth["queued"] else ""
        yield f"queue      {priority}: {depth['queued']} waiting{oldest}, {depth['active']} being encoded"


def _moment(epoch_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_s))


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
