"""What axe finds that keeps people from using the page."""

from typing import Any

from axe_playwright_python.async_playwright import Axe

_GRAVE = ("serious", "critical")


async def grave_findings(window: Any) -> list[str]:
    """The serious and critical ones, each with where it is and what to do."""
    found = await Axe().run(window)
    return [
        f"{it['id']}: {node['target']} {node.get('failureSummary', '')}"
        for it in found.response["violations"]
        if it["impact"] in _GRAVE
        for node in it["nodes"]
    ]
