"""The commands of `eyepiece keys`."""

from typing import Annotated

import typer

from server.commands.options import AsJson, DataDir, settings_from

keys_app = typer.Typer(help="API keys of tenants.", no_args_is_help=True)
ExpiresDays = Annotated[int | None, typer.Option(min=1, max=36_500, help="Days until the key expires.")]


@keys_app.command("create")
def keys_create(
    tenant: Annotated[str, typer.Option(help="Lower-case letters, digits, hyphens.")],
    expires_days: ExpiresDays = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="slides:read, slides:write, ask, reports or admin; repeat it for several.", show_default="all of them"
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once."""
    from server.commands import keys

    options = keys.KeyOptions(tenant, expires_days, tuple(scope or ()))
    keys.create(settings_from(data_dir=data_dir), options, as_json)


@keys_app.command("rotate")
def keys_rotate(
    prefix: Annotated[str, typer.Argument(help="The old key's beginning, as `keys list` shows it.")],
    expires_days: ExpiresDays = None,
    overlap_hours: Annotated[int, typer.Option(min=0, max=8_760, help="Hours for which the old key stays valid.")] = 24,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key in place of another, which stays valid while clients change over; print it, once."""
    from server.commands import keys

    keys.rotate(settings_from(data_dir=data_dir), prefix, expires_days, overlap_hours, as_json)


@keys_app.command("list")
def keys_list(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the keys' beginnings, tenants, dates, last use and scopes."""
    from server.commands import keys

    keys.show(settings_from(data_dir=data_dir), as_json)


@keys_app.command("revoke")
def keys_revoke(
    prefix: Annotated[str, typer.Argument(help="The beginning, as `keys list` shows it.")], data_dir: DataDir = None
) -> None:
    """Take a key back."""
    from server.commands import keys

    keys.revoke(settings_from(data_dir=data_dir), prefix)
