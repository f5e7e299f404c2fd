"""docs/settings.md is written from the settings themselves."""

from pathlib import Path

from server.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_every_setting_is_documented_with_its_meaning() -> None:
    page = PAGE.read_text()

    missing = [
        name
        for name, field in Settings.model_fields.items()
        if f"| `EYEPIECE_{name.upper()}` |" not in page or str(field.description) not in page
    ]

    assert missing == []
