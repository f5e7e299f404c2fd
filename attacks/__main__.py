"""All attacks in turn on a server that is started here, on loopback, and nowhere else.

    python -m attacks                  the real vLLM
    python -m attacks --stand-in       something small in its place
    python -m attacks --only hang_ups large_bodies --json found.json

Prints a table; the exit code is 1 when something is broken.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attacks import (
    crossings,
    damaged_records,
    dependencies,
    floods,
    foreign_files,
    forms,
    generated,
    half_requests,
    hang_ups,
    keyless,
    large_bodies,
    races,
)
from attacks.findings import Finding, as_json, exit_code, table
from attacks.own_server import OwnServer, own_server
from attacks.target import Budget

Attack = Callable[[OwnServer, float], AsyncIterator[Finding]]
# What leaves the server as it was comes first.
ATTACKS: dict[str, Attack] = {
    "keyless": keyless.attack,
    "crossings": crossings.attack,
    "foreign_files": foreign_files.attack,
    "forms": forms.attack,
    "generated": generated.attack,
    "hang_ups": hang_ups.attack,
    "half_requests": half_requests.attack,
    "floods": floods.attack,
    "races": races.attack,
    "damaged_records": damaged_records.attack,
    "dependencies": dependencies.attack,
    "large_bodies": large_bodies.attack,
}
_ALIVE_WITHIN_S = 120.0
# An attack that takes longer has shown what it will.
_ATTACK_S = 600.0


@dataclass(frozen=True)
class Run:
    """`share` of the full number of requests is sent."""

    names: tuple[str, ...]
    real_vllm: bool
    share: float = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 when everything held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ATTACKS), default=list(ATTACKS), metavar="ATTACK")
    parser.add_argument("--stand-in", action="store_true", help="no vLLM: something small answers in its place")
    parser.add_argument("--share", type=float, default=1.0, help="of the full number of requests, e.g. 0.1 (1)")
    parser.add_argument("--minutes", type=float, default=60.0, help="the run ends after so long (60)")
    parser.add_argument("--json", type=Path, help="write what was found there too")
    options = parser.parse_args(arguments)
    plan = Run(tuple(options.only), not options.stand_in, options.share)
    budget = Budget(ends_at=time.monotonic() + options.minutes * 60)
    folder = Path(tempfile.mkdtemp(prefix="eyepiece-attacks-"))
    findings = asyncio.run(run(plan, folder, budget))
    print(f"\n{table(findings)}")
    if options.json is not None:
        options.json.write_text(as_json(findings))
    if exit_code(findings):
        print(f"\nThe logs are in {folder}.")
    else:
        shutil.rmtree(folder)
    return exit_code(findings)


async def run(plan: Run, folder: Path, budget: Budget) -> list[Finding]:
    """What the attacks found."""
    findings: list[Finding] = []
    with own_server(folder, budget, real_vllm=plan.real_vllm) as server:
        if "keyless" in plan.names:
            findings += [_shown(it) for it in await keyless.before_there_are_keys(server.target)]
        server.make_keys()
        for name in plan.names:
            findings += await one(name, ATTACKS[name], server, plan.share)
    return findings


async def one(name: str, attack: Attack, server: OwnServer, share: float) -> list[Finding]:
    """One attack, and whether the server still lives after it; an attack that cannot be carried out is broken too."""
    began = time.monotonic()
    print(f"\n# {name}", flush=True)
    api = server.process("api")
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(_ATTACK_S):
            async for it in attack(server, share):
                findings.append(_shown(it))
    except Exception as error:  # noqa: BLE001 - one attack that fails must not hide what the others find
        told = f"not carried out to its end: {type(error).__name__}: {error}"
        findings.append(_shown(Finding(name, told[:300], "carried out", False)))
    findings.append(_shown(await _still_alive(name, server, api.pid)))
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    return findings


def _shown(it: Finding) -> Finding:
    print(f"{it.verdict:<7} {it.attack}: {it.seen} (limit: {it.limit})", flush=True)
    return it


async def _still_alive(name: str, server: OwnServer, pid: int) -> Finding:
    """The same process answers, and serves the other tenant."""
    reply = await server.target.get("/v1/slides", server.other, timeout_s=_ALIVE_WITHIN_S)
    try:
        same = server.process("api").pid == pid
    except RuntimeError:
        same = False
    seen = f"{reply.status} after {reply.took_s:.1f} s, {'the same' if same else 'another'} process"
    return Finding(
        f"{name}: the other tenant afterwards",
        seen,
        "200 within 10 s, the same process",
        (reply.status == 200 and same and reply.took_s <= 10),
    )


if __name__ == "__main__":
    sys.exit(main())
