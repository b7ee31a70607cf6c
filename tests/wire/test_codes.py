"""The one table of codes, and the page that is made from it."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import pytest

from qnet_actors.wire import codes
from qnet_actors.wire.codes import DESCRIPTIONS, Code, QnetError, reference_page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


def test_numbers_are_unique():
    # An IntEnum makes a second name of a number an alias, which is not listed.
    assert len(Code.__members__) == len(list(Code))
    assert len({code.label for code in Code}) == len(list(Code))


def test_every_code_is_described_and_nothing_else():
    assert set(DESCRIPTIONS) == set(Code)
    assert len(set(DESCRIPTIONS.values())) == len(DESCRIPTIONS)
    for code in Code:
        assert re.fullmatch(r"[A-Z].{15,140}[.?]", code.description), code
        assert re.fullmatch(r"[a-z][a-z_]*", code.label), code


@pytest.mark.parametrize("code", Code)
def test_every_code_has_an_http_status_of_its_kind(code):
    status = HTTPStatus(code.http_status)
    if code < 100:
        assert status is HTTPStatus.OK
    elif code < 500 and code is not Code.INTERNAL:
        assert 400 <= status < 500 or status in {
            HTTPStatus.SERVICE_UNAVAILABLE,
            HTTPStatus.GATEWAY_TIMEOUT,
        }
    else:
        assert status >= 500


@pytest.mark.parametrize(
    ("code", "number", "status"),
    [
        (Code.SUCCESS, 0, 200),
        (Code.INSUFFICIENT_BALANCE, 1, 200),
        (Code.MALFORMED, 100, 400),
        (Code.TOO_LARGE, 102, 413),
        (Code.WRONG_CHAIN, 104, 400),
        (Code.BAD_SIGNATURE, 107, 400),
        (Code.NONCE_TOO_LOW, 201, 409),
        (Code.DUPLICATE, 203, 409),
        (Code.SENDER_LIMIT, 207, 429),
        (Code.BUSY, 209, 503),
        (Code.UNKNOWN_AUTHOR, 300, 400),
        (Code.NOT_FOUND, 400, 404),
        (Code.RATE_LIMITED, 401, 429),
        (Code.INTERNAL, 499, 500),
        (Code.BAD_PASSPHRASE, 500, 500),
    ],
)
def test_numbers_and_statuses_that_clients_rely_on(code, number, status):
    assert (code, code.http_status) == (number, status)


def test_an_error_names_its_code_and_survives_a_process_boundary():
    error = QnetError(Code.BUSY, "wait a second")
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, again.detail, str(again)) == (Code.BUSY, "wait a second", str(error))
    assert str(error) == "busy: wait a second"
    assert QnetError(Code.BUSY).detail == Code.BUSY.description


def test_the_page_is_current():
    """Write it anew with: python -m qnet_actors.wire.codes > docs/reference/errors.md"""
    assert PAGE.read_text() == reference_page()


def test_the_page_has_a_row_for_each_code():
    rows = re.findall(r"^\| (\d+) \| `([a-z_]+)` \| (\d+) \| (.+) \|$", reference_page(), re.M)
    assert [(int(n), label, int(status), text) for n, label, status, text in rows] == [
        (int(code), code.label, code.http_status, code.description) for code in Code
    ]


def test_the_module_prints_the_page():
    command = [sys.executable, "-m", codes.__name__]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed == reference_page()
