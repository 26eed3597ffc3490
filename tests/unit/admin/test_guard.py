"""Who may speak to the admin address."""

import pytest
from starlette.datastructures import Headers

from tidegate.admin.guard import refusal


def status(token: str | None, method: str, **headers: str) -> int:
    answer = refusal(token, method, Headers({name.replace("_", "-"): value for name, value in headers.items()}))
    return answer.status_code if answer else 200


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer secret", 200),
        ("bearer secret", 200),
        ("Bearer  secret ", 200),
        ("Bearer secre", 401),
        ("Bearer sécret", 401),
        ("Basic secret", 401),
        ("secret", 401),
        ("", 401),
    ],
)
def test_a_token_is_compared_whole(authorization: str, expected: int) -> None:
    assert status("secret", "GET", authorization=authorization) == expected


def test_with_the_token_any_name_will_do() -> None:
    assert status("secret", "POST", authorization="Bearer secret", host="admin.internal") == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:9900", 200),
        ("[::1]:9900", 200),
        ("10.1.2.3", 200),
        ("localhost:9900", 200),
        ("LOCALHOST", 200),
        ("rebound.example.com:9900", 403),
        ("localhost.example.com", 403),
        ("", 403),
        ("[::1", 403),
    ],
)
def test_without_a_token_no_name_that_others_own(host: str, expected: int) -> None:
    assert status(None, "GET", host=host) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:9900"}, 200),
        ({"origin": "https://evil.example.com"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "same-origin", "origin": "http://127.0.0.1:9900"}, 200),
    ],
)
def test_without_a_token_no_command_from_another_site(headers: dict[str, str], expected: int) -> None:
    assert status(None, "POST", host="127.0.0.1:9900", **headers) == expected
