"""What a task may override about its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.contract.contract import Contract


class RequestOptions:
    """Defaults for requests: JSON bodies only, of at most 1 MiB."""

    #: How models of this task are served: `answers` to inputs by POST /predict, or `generation` of text by the OpenAI API.
    service = "answers"
    #: One input of a request, described for people; `raymill tasks` prints it.
    request = ""
    #: The default of `serve.max_body_bytes`.
    max_body_bytes = 1 << 20
    #: Bodies that are not JSON, for the docs page: pairs of curl options and their meaning. `body_inputs` reads them.
    other_bodies: tuple[tuple[str, str], ...] = ()

    def body_inputs(self, contract: Contract, body: bytes, content_type: str) -> list[Any] | None:
        """Return the inputs of a body that is not JSON (an image, a form), or None for an unknown `content_type`."""
        return None
