from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from qnet_actors.cli import app
from qnet_actors.commands.amounts import format_amount, parse_amount
from qnet_actors.commands.output import USAGE, exit_code, reported
from qnet_actors.crypto import development_key, keystore
from qnet_actors.network.development import development_genesis
from qnet_actors.simulator.command import Asked
from qnet_actors.wire.address import encode_address
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.ledger import BALANCE
from tests.gateway.serving import ThreadedWorld, threaded_world
from tests.ledger.world import address
from tests.light.test_client import GENESIS, proved_account

BEYOND = str(10**23)
BOB = encode_address(b"\x55" * 32, development=True)


@pytest.fixture(scope="module")
def world():
    with threaded_world() as made:
        ledger = made.ledger
        made.call(
            lambda: setattr(
                ledger.account(development_key("account", 0).key_id), "balance", BALANCE
            )
        )
        yield made


@pytest.fixture
def qnet(world: ThreadedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command in this process, with a home of its own and a gateway that answers."""
    # 128 MiB and half a second for each keystore would only slow the tests down.
    monkeypatch.setattr(keystore.write_keystore, "__kwdefaults__", {"log2_n": keystore.LOG2_N_MIN})
    environment = {
        "QNET_HOME": str(tmp_path / "home"),
        "QNET_URL": world.url,
        "QNET_PASSPHRASE": "correct horse",
        "QNET_PASSPHRASE_FILE": "",
    }

    def run(*arguments: str, env: dict[str, str] | None = None):
        return CliRunner().invoke(app, list(arguments), env={**environment, **(env or {})})

    return run


def one_object(result) -> dict:
    """The one JSON object that stdout holds."""
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    document: dict = json.loads(lines[0])
    return document


def test_help_loads_nothing_heavy_and_is_quick():
    code = (
        "import sys; sys.argv = ['qnet', '--help']\n"
        "from qnet_actors.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'ray', 'numba', 'duckdb', 'numpy', 'fastapi', 'httpx', 'cryptography', 'oqs'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout
    # Half a second is what is promised; a busy machine is given four times as much.
    assert time.perf_counter() - started < 2.0


def test_the_client_loads_nothing_heavy():
    code = (
        "import sys\nfrom qnet_actors.client import AsyncClient, Client, build, sign\n"
        "assert not {'ray', 'numba', 'duckdb', 'fastapi'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_status(qnet):
    result = qnet("status", "--json")
    assert result.exit_code == 0
    assert one_object(result)["chain_id"] == "11" * 32
    lines = qnet("status").stdout
    assert re.search(r"^chain id +1111", lines, re.M)


def test_a_development_key_sends_and_the_balance_shows_it(qnet):
    sent = qnet("send", BOB, "1.5", "--from", "dev:0", "--wait", "final", "--json")
    assert sent.exit_code == 0, sent.stderr
    document = one_object(sent)
    assert document["status"] == "final"
    assert document["receipt"]["code"] == "success"
    assert one_object(qnet("balance", BOB, "--json"))["balance"] == 1_500_000_000
    assert "1.5 QNET (1500000000 units)" in qnet("balance", BOB).stdout
    shown = qnet("tx", document["id"], "--json")
    assert one_object(shown)["body"]["action"]["amount"] == 1_500_000_000
    block = one_object(qnet("block", str(document["block"]["height"]), "-t", "--json"))
    assert document["id"] in [item["id"] for item in block["transactions"]]
    assert "transaction  " in qnet("block", "-t").stdout


def test_a_place_in_the_committee_is_taken_and_given_up(qnet):
    for arguments, action in [
        (
            ("register", "dev-validator:4", "--stake", "2"),
            {"kind": "register_validator", "amount": 2_000_000_000},
        ),
        (("stake", "1units"), {"kind": "stake", "amount": 1}),
        (("unstake", "1.5"), {"kind": "unstake", "amount": 1_500_000_000}),
    ]:
        sent = qnet("validator", *arguments, "--from", "dev:0", "--wait", "received", "--json")
        assert sent.exit_code == 0, sent.stderr
        shown = one_object(qnet("tx", one_object(sent)["id"], "--json"))["body"]["action"]
        assert action.items() <= shown.items()
    refused = qnet("validator", "stake", "much", "--from", "dev:0")
    assert refused.exit_code == USAGE


def test_rules_are_approved_as_changes_of_the_present_ones(qnet):
    sent = qnet(
        "validator", "approve", "round_delay_ms=80", "stake_min=7", "--protocol-version", "2",
        "--from", "dev:0", "--wait", "received", "--json",
    )  # fmt: skip
    assert sent.exit_code == 0, sent.stderr
    # The gateway named the values that stay: the owner sees all that is signed.
    assert "approves in epoch 0 version=2 block_interval_ms=100 " in sent.stderr
    assert " round_delay_ms=80 " in sent.stderr
    action = one_object(qnet("tx", one_object(sent)["id"], "--json"))["body"]["action"]
    assert action["kind"] == "approve"
    assert action["epoch"] == 0
    assert action["rules"]["protocol_version"] == 2
    parameters = action["rules"]["parameters"]
    assert (parameters["round_delay_ms"], parameters["stake_min"]) == (80, 7)
    assert (parameters["gc_depth"], parameters["epoch_commits_min"]) == (64, 10)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("round_delays=80", "no parameter"),
        ("round_delay_ms=fast", "number"),
        ("round_delay_ms=-1", "round_delay_ms"),
        ("gc_depth=128", "gc_depth"),
        ("block_interval_ms=0", "block_interval_ms"),
    ],
)
def test_rules_that_validators_would_refuse_are_not_sent(qnet, change, word):
    refused = qnet("validator", "approve", change, "--from", "dev:0")
    assert refused.exit_code != 0
    assert word in refused.stderr


def test_a_balance_that_is_proved_or_refused(qnet, world: ThreadedWorld, monkeypatch):
    text = encode_address(address(1), development=True)
    proved = proved_account(address(1))
    assert proved.account is not None
    # The other tests of this world speak of another network.
    monkeypatch.setattr(world.ledger, "genesis", GENESIS)
    monkeypatch.setitem(world.ledger.proved_accounts, address(1), proved)
    chain_id = GENESIS.chain_id().hex()
    # The network signs with the keyed hash, which no command believes.
    refused = qnet("balance", text, "--chain-id", chain_id, "--json")
    assert refused.exit_code != 0
    assert one_object(refused)["error"]["code"] == "unknown_scheme"
    other = qnet("balance", text, "--chain-id", "00" * 32, "--json")
    assert one_object(other)["error"]["code"] == "wrong_chain"
    usage = qnet("balance", text, "--chain-id", "7f3c", "--json")
    assert usage.exit_code == USAGE
    assert one_object(usage)["error"]["code"] == "invalid_parameter"


def test_a_kept_key_is_encrypted_listed_and_signs(qnet, tmp_path: Path, world: ThreadedWorld):
    made = qnet("key", "new", "alice", "--json")
    assert made.exit_code == 0, made.stderr
    key = one_object(made)
    path = tmp_path / "home" / "keys" / "alice.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert one_object(qnet("key", "list", "--json"))["keys"] == [key]
    assert one_object(qnet("key", "show", "alice", "--json")) == key
    assert key["development_address"] in qnet("key", "show", "alice").stdout
    world.call(
        lambda: setattr(world.ledger.account(bytes.fromhex(key["key_id"])), "balance", BALANCE)
    )
    sent = qnet("send", BOB, "7units", "--from", "alice", "--json")
    assert sent.exit_code == 0, sent.stderr
    again = qnet("key", "new", "alice", "--json")
    assert again.exit_code == 5
    assert one_object(again)["error"]["code"] == "keystore_exists"


def test_the_passphrase_comes_from_a_file_and_a_wrong_one_is_told(qnet, tmp_path: Path):
    file = tmp_path / "passphrase"
    file.write_text("another one\n")
    assert qnet("key", "new", "carol", "--passphrase-file", str(file)).exit_code == 0
    wrong = qnet("send", BOB, "1units", "--from", "carol", "--json")
    assert wrong.exit_code == 5
    assert one_object(wrong)["error"]["code"] == "bad_passphrase"
    assert "correct horse" not in wrong.output
    none = qnet("key", "new", "dave", env={"QNET_PASSPHRASE": ""})
    assert none.exit_code == 5
    assert "QNET_PASSPHRASE" in none.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "label"),
    [
        (("balance", "tqnet1nonsense"), 2, "bad_address"),
        (("balance", "nobody"), 1, "not_found"),
        (("balance", "../etc/passwd"), 2, "invalid_parameter"),
        (("send", BOB, "minus one", "--from", "dev:0"), 2, "invalid_parameter"),
        (("send", BOB, "1", "--from", "dev:x"), 2, "invalid_parameter"),
        (("send", BOB, "999999999", "--from", "dev:0"), 1, "insufficient_funds"),
        (("send", BOB, "1", "--from", "dev:0", "--nonce", "0"), 1, "nonce_too_low"),
        (("tx", "00" * 32), 1, "not_found"),
        (("tx", "zz"), 2, "invalid_parameter"),
        (("block", "999999"), 1, "not_found"),
        (("block", "a/../b"), 2, "invalid_parameter"),
        (("status", "--url", "http://127.0.0.1:1"), 3, "node_unreachable"),
        (("status", "--url", "ftp://x"), 2, "configuration_invalid"),
        (("config", "check", "/nonexistent.toml"), 2, "configuration_invalid"),
        (("sim", "--faults", "nonsense"), 2, "invalid_parameter"),
        (("sim", "--accounts", "999999999999"), 2, "invalid_parameter"),
        (("status", "--url", "http://[::1"), 2, "configuration_invalid"),
        (("status", "--url", "http://gateway:99999"), 2, "configuration_invalid"),
        (("send", BOB, "1", "--from", "dev:0", "--nonce", BEYOND), 1, "malformed"),
        (("send", BOB, "1", "--from", "dev:0", "--gas-price", BEYOND), 1, "gas_price_out_of_range"),
        (("validator", "approve", f"round_delay_ms={BEYOND}"), 2, "invalid_parameter"),
    ],
)
def test_refusals_have_a_code_on_stdout_a_sentence_on_stderr_and_an_exit_code(
    qnet, arguments, code, label
):
    # So that nonce 0 is used, whichever tests ran before.
    qnet("send", BOB, "1units", "--from", "dev:0")
    result = qnet(*arguments, "--json")
    assert result.exit_code == code
    error = one_object(result)["error"]
    assert error["code"] == label
    assert error["detail"]
    assert f"qnet: {label}: " in result.stderr
    assert "Traceback" not in result.output


def test_wrong_usage_is_2_and_a_wait_in_vain_4(qnet, world: ThreadedWorld):
    assert qnet("send").exit_code == 2
    assert qnet("no-such-command").exit_code == 2
    world.call(lambda: setattr(world.backends[0], "auto", False))
    try:
        sent = qnet("send", BOB, "1units", "--from", "dev:0", "--timeout", "0", "--json")
    finally:
        world.call(lambda: setattr(world.backends[0], "auto", True))
        world.call(world.backends[0]._run_all)
    assert sent.exit_code == 4
    assert one_object(sent)["error"]["code"] == "wait_timeout"


@pytest.mark.parametrize(
    "arguments",
    [
        ("dev", "--rate"),
        ("bench", "--rate"),
        ("bench", "--seconds"),
        ("bench", "overload", "--factor"),
        ("bench", "overload", "--seconds"),
        ("send", BOB, "1", "--timeout"),
        ("sim", "--bandwidth-mbps"),
    ],
)
@pytest.mark.parametrize("value", ["inf", "nan", "-1"])
def test_no_rate_and_no_time_is_endless(qnet, arguments, value):
    refused = qnet(*arguments, value)
    assert refused.exit_code == 2
    assert "Invalid value" in refused.stderr


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, capsys):
    for mistake in (
        lambda: (tmp_path / "missing").read_bytes(),
        lambda: tmp_path.read_bytes(),
        lambda: (Path(os.devnull) / "below").mkdir(),
    ):
        with pytest.raises(typer.Exit) as ended, reported(as_json=False):
            mistake()
        assert ended.value.exit_code == USAGE
        told = capsys.readouterr().err
        assert told.startswith("qnet: configuration_invalid: /")
    with pytest.raises(typer.Exit), reported(as_json=False):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
    assert capsys.readouterr().err == "qnet: disk_full: somewhere: No space left on device\n"


def test_a_transaction_that_failed_ends_with_1(qnet, world: ThreadedWorld):
    account = world.ledger.account(development_key("account", 1).key_id)

    def impoverish() -> None:
        account.balance = 10**9
        world.backends[0].auto = False

    world.call(impoverish)
    assert qnet("send", BOB, "0.9", "--from", "dev:1", "--wait", "received").exit_code == 0

    def execute() -> None:
        account.balance = 5_000
        world.backends[0].auto = True
        world.backends[0]._run_all()

    world.call(execute)
    height = world.ledger.height
    (id_,) = [id_.hex() for id_, place in world.ledger.places.items() if place[0] == height]
    shown = qnet("tx", id_, "--wait", "final", "--json")
    assert shown.exit_code == 1
    assert one_object(shown)["receipt"]["code"] == "insufficient_balance"
    assert "insufficient_balance" in shown.stderr


def test_a_simulation_ends_with_one_object(qnet, monkeypatch):
    """The command alone; what it runs has a room, and tests, of its own."""
    runs: list[tuple[Asked, dict[str, object]]] = []

    def run(asked: Asked, **options: object) -> int:
        runs.append((asked, options))
        return 1

    monkeypatch.setattr("qnet_actors.simulator.command.run_sim", run)
    assert qnet("sim", "--seed", "7", "--faults", "loss", "--trace", "--json").exit_code == 1
    ((asked, options),) = runs
    assert asked == Asked(seed=7, faults="loss", trace=True)
    assert options["as_json"]


@pytest.mark.parametrize(
    "text",
    [
        "a=" + "[" * 5_000,
        "[network]\nvalidators = 1" + "0" * 5_000,
        "[network]\nvalidators = nan",
        '[network]\ndirectory = "a\\u0000b"',
    ],
)
def test_settings_that_no_parser_expects_are_refused(qnet, tmp_path: Path, text: str):
    file = tmp_path / "net.toml"
    file.write_text(text)
    refused = qnet("config", "check", str(file))
    assert refused.exit_code == USAGE
    assert "configuration_invalid" in refused.stderr
    assert len(refused.stderr) < 1_000


def test_config_check(qnet, tmp_path: Path):
    good = tmp_path / "net.toml"
    good.write_text('[network]\ndirectory = "data"\nvalidators = 4\n[gateway]\nwaits_max = 9\n')
    result = qnet("config", "check", str(good), "--json")
    assert result.exit_code == 0, result.stderr
    assert one_object(result)["tables"] == ["network", "gateway"]
    for text, needle in [
        ("[gateway]\nport = 8081\n", "gateway_port"),
        ("[gateway]\nwaits_max = 0\n", "waits_max"),
        ("[gateway]\nprot = 1\n", "prot"),
        ("[nework]\n", "nework"),
        ("[network]\nvalidators = 4\n", "directory"),
        ("[gateway]\nretry_first_ms = 9\nretry_last_ms = 8\n", "retry_first_ms"),
        ("= 1", "line 1"),
    ]:
        bad = tmp_path / "bad.toml"
        bad.write_text(text)
        refused = qnet("config", "check", str(bad))
        assert refused.exit_code == 2
        assert needle in refused.stderr
    validator = development_key("validator", 0)
    genesis = development_genesis([validator], [validator.key_id])
    file = tmp_path / "genesis"
    file.write_bytes(encode(genesis))
    checked = one_object(qnet("config", "check", str(file), "--json"))
    assert checked["chain_id"] == genesis.chain_id().hex()
    file.write_bytes(b"\x93\x01")
    assert qnet("config", "check", str(file)).exit_code == 2


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("1", 10**9),
        ("1.5", 1_500_000_000),
        ("0.000000001", 1),
        ("7units", 7),
        ("7 units", 7),
        ("1unit", 1),
    ],
)
def test_amounts(text, units):
    assert parse_amount(text) == units
    assert parse_amount(format_amount(units).removesuffix(" QNET")) == units


@pytest.mark.parametrize(
    "text", ["", "-1", "1.", "1.0000000001", "1.5units", "1e9", "99999999999", "٣", "nan"]
)
def test_what_is_not_an_amount(text):
    with pytest.raises(QnetError) as refused:
        parse_amount(text)
    assert refused.value.code == Code.INVALID_PARAMETER


def test_every_code_has_an_exit_code_that_is_not_success():
    assert {exit_code(QnetError(code)) for code in Code} == {1, 2, 3, 4, 5}


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "qnet_actors", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)
