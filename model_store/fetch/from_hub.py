"""The one place where Eyepiece reaches for the public model hub, and only when `models fetch` is asked to.

`huggingface_hub` continues interrupted downloads, takes the token from HF_TOKEN or `hf auth login`, and the address of
a mirror from HF_ENDPOINT.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from model_store.errors import ModelError
from model_store.files.source_digests import REVISION_FILE, Say
from model_store.manifest import Download, Part

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")


@dataclass(frozen=True)
class HubOrigin:
    """An `Origin`; `endpoint` None is the public hub, or what HF_ENDPOINT says."""

    say: Say
    endpoint: str | None = None

    def __call__(self, part: Part, download: Download, folder: Path) -> None:
        """Gets the pinned revision, or the newest one where none is pinned, and notes which it was; nothing of what is
        on another page."""
        if download.page:
            return
        from huggingface_hub import HfApi, snapshot_download

        revision = _explained(download, lambda: self._resolve(HfApi(endpoint=self.endpoint), part, download))
        _explained(
            download,
            lambda: snapshot_download(
                download.repository,
                revision=revision,
                local_dir=folder,
                allow_patterns=list(download.patterns),
                endpoint=self.endpoint,
            ),
        )
        (folder / REVISION_FILE).write_text(f"{revision}\n", encoding="utf-8")

    def _resolve(self, api: "HfApi", part: Part, download: Download) -> str:
        if download.revision != "unrecorded":
            return download.revision
        newest = api.model_info(download.repository).sha
        assert newest is not None, "the hub names the commit of every repository"
        self.say(f"{part}: revision {newest}, the newest; none was known beforehand")
        return newest


def _explained(download: Download, call: Callable[[], T]) -> T:
    """The call's result; its errors as one sentence each."""
    from huggingface_hub import errors

    where = download.repository
    try:
        return call()
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{where} is gated: accept its terms on its page at huggingface.co with your account, "
            "set HF_TOKEN to a token of that account, and fetch again."
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ModelError(f"The hub has no {where} at that revision, or HF_TOKEN may not see it.") from error
    except (_client_error(), errors.LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{where} could not be fetched ({type(error).__name__}): check the network and the free disk space and "
            "run the same command again, or give a folder or bucket with the files (--from)."
        ) from error


def _client_error() -> type[Exception]:
    """What the HTTP client of huggingface_hub raises when nobody answers; between its versions the client changed."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(error for error in HfHubHTTPError.__mro__ if error.__name__ == "HTTPError")
