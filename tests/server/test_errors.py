"""The tree and the one table to HTTP agree, whatever is added to either."""

import pytest

import encoders.errors
import model_store.errors
import server.app
import server.encoding.encode_job
import server.errors
from model_store.errors import EyepieceError
from server.errors import (
    HTTP_STATUS,
    DependencyError,
    NotFound,
    Overloaded,
    StorageUnavailable,
    Unauthorized,
    http_status,
    openai_error,
    problem,
    response_headers,
    utf8_text,
)

# The HTTP contract: these codes are promised to clients.
CONTRACT = {
    "unsupported_format": 415,
    "unreadable_slide": 422,
    "missing_mpp": 422,
    "resolution_too_low": 422,
    "no_tissue": 422,
    "slide_too_large": 413,
    "overloaded": 429,
    "storage_full": 507,
    "not_found": 404,
    "slide_not_ready": 409,
}
IMPORTED = (encoders.errors, model_store.errors, server.app, server.encoding.encode_job)


def whole_tree(root: type[EyepieceError] = EyepieceError) -> list[type[EyepieceError]]:
    """The class and all below it; importing app and encode job has brought in every module that adds one."""
    return [root, *(found for child in root.__subclasses__() for found in whole_tree(child))]


@pytest.mark.parametrize("error_class", whole_tree(), ids=lambda error_class: error_class.__name__)
def test_every_class_of_the_tree_has_a_status(error_class: type[EyepieceError]) -> None:
    assert http_status(error_class("A sentence.")) >= 400


def test_the_table_has_no_code_that_no_class_uses() -> None:
    assert set(HTTP_STATUS) == {error_class.code for error_class in whole_tree()}


@pytest.mark.parametrize(("code", "status"), CONTRACT.items())
def test_the_promised_codes_keep_their_status(code: str, status: int) -> None:
    assert HTTP_STATUS[code] == status


def test_what_is_ours_to_mend_is_a_5xx() -> None:
    assert all(http_status(error_class("…")) >= 500 for error_class in whole_tree(DependencyError))


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    assert problem(NotFound("There is no slide.")) == {
        "type": "urn:eyepiece:error:not_found",
        "title": "not found",
        "status": 404,
        "code": "not_found",
        "detail": "There is no slide.",
    }


def test_an_openai_error_says_whose_fault_it_is() -> None:
    theirs, ours = openai_error(NotFound("No slide.")), openai_error(StorageUnavailable("No store."))

    assert theirs == {
        "error": {"message": "No slide.", "type": "invalid_request_error", "param": None, "code": "not_found"}
    }
    assert ours["error"]["type"] == "server_error"


def test_headers_say_when_to_come_back_and_how_to_sign_in() -> None:
    assert response_headers(Overloaded("Full.", retry_after_s=7)) == {"Retry-After": "7"}
    assert response_headers(StorageUnavailable("Away.")) == {"Retry-After": "5"}
    assert response_headers(Unauthorized("No key.")) == {"WWW-Authenticate": "Bearer"}
    assert response_headers(NotFound("No.")) == {}


def test_lone_surrogates_become_question_marks() -> None:
    assert utf8_text("a\ud800b µ") == "a?b µ"
