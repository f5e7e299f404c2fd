"""The models that questions can be asked of, each behind a vLLM of its own; the first is the default."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model_store.manifest import Manifest
from server.asking.control_text import ControlText
from server.asking.language_model import LanguageModel
from server.embeddings.slide_inputs import SlideInputCache, SlideInputs
from server.errors import InvalidRequest


@dataclass(frozen=True)
class ServedModel:
    """A model with its vLLM, and slides as that vLLM gets them."""

    manifest: Manifest
    language_model: LanguageModel
    slide_inputs: SlideInputs
    asked_slides: SlideInputCache
    control_text: ControlText
    # Of all its files (`model_store.installed`), for what must be traced back to them.
    weights_digest: str

    @property
    def name(self) -> str:
        """As requests and EYEPIECE_MODELS say it."""
        return self.manifest.name


class ServedModels:
    """All models of this server, in the order of EYEPIECE_MODELS."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._by_name = {model.name: model for model in models}
        self.default = models[0]

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._by_name.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The default's first."""
        return tuple(self._by_name)

    def find(self, name: str) -> ServedModel | None:
        """The model of that name, if it is served."""
        return self._by_name.get(name)

    def named(self, name: str | None) -> ServedModel:
        """The model that a request names; the default where it names none.

        Raises:
            InvalidRequest: it is not served here.
        """
        if name is None:
            return self.default
        found = self.find(name)
        if found is None:
            raise InvalidRequest(f"This server does not serve that model; it serves {', '.join(self.names)}.")
        return found
