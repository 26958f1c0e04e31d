from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.tracking.secrets import mask, mask_address, refuse, refuse_overrides

# Put together here, so that no scanner of sources takes this file for a leak.
LOOKS_SECRET = [
    "sk-" + "abcdefgh1234567890",
    "hf_" + "a" * 24,
    "ghp_" + "b" * 36,
    "github_pat_" + "c" * 30,
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "LTAI" + "5tAbCdEfGhIjKlMn",
    "xoxb-" + "1234567890-abc",
    "AIza" + "d" * 35,
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "c2lnbmF0dXJl",
    "-----BEGIN RSA " + "PRIVATE KEY-----",
]
NAMES = [
    "api_key",
    "judge.api_key",
    "op.openai-api-key",
    "secret",
    "db.password",
    "hf_token",
    "auth_token",
    "token",
    "credentials",
    "passphrase",
    "pass",
    "accessKeySecret",
    "client_secret",
    "dbPassword",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_a_credential_with_a_value_is_refused(name):
    with pytest.raises(UserError) as caught:
        refuse({name: "correct-horse"})
    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert f"{name}_env=VARIABLE" in line
    assert "correct-horse" not in line


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, "", "???"])
def test_a_name_without_a_value_passes(name, value):
    refuse({name: value})


@pytest.mark.parametrize("value", LOOKS_SECRET)
def test_a_value_that_is_a_credential_is_refused_under_any_name(value):
    for text in (value, f"see {value}"):
        with pytest.raises(UserError) as caught:
            refuse({"op.note": text})
        assert value not in str(caught.value)
        with pytest.raises(UserError):
            refuse_overrides([f"+op.note='{text}'"])


def test_an_address_with_a_password_is_refused():
    with pytest.raises(UserError):
        refuse({"store": "postgresql://me:hunter2@db/x"})
    refuse({"store": "postgresql://db/x", "model": "models:/sales@champion", "run": "runs:/sft-1a2b/best"})


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "HF_TOKEN", "DB_PASSWORD", "MY_SECRET", "AWS_CREDENTIALS"])
def test_the_value_of_a_secret_variable_is_refused_wherever_it_stands(monkeypatch, variable):
    monkeypatch.setenv(variable, "plain-words-1")
    with pytest.raises(UserError) as caught:
        refuse({"seed": 3, "op.note": "plain-words-1"})
    assert variable in str(caught.value)
    assert "plain-words-1" not in str(caught.value)
    with pytest.raises(UserError, match=variable):
        refuse_overrides(["op.note=plain-words-1"])
    with pytest.raises(UserError, match=variable):
        refuse_overrides(["+op.note='plain-words-1'"])


def test_other_variables_and_short_ones_are_no_secrets(monkeypatch):
    monkeypatch.setenv("FAVOURITE_MODEL", "plain-words-1")
    monkeypatch.setenv("PIN_TOKEN", "tiny")
    refuse({"op.note": "plain-words-1", "model": "tiny"})


@pytest.mark.parametrize(
    "pair",
    [
        "api_key_env=OPENAI_API_KEY", "judge.api_key_env=HF_TOKEN", "max_tokens=512", "algo.max_tokens=512",
        "samples.max_new_tokens=64000000", "trained_tokens=12345678", "tokenizer=some/tokenizer", "dataset=secret_santa_2",
        "register_as=password_helper", "op.keyword=abcdefghijk", "op.monkey=abcdefghijk", "model=Qwen/Qwen2.5-0.5B",
        "note=sk-learn", "note=risk-abcdefghijklmnopqrstuvwxyz",
    ],
)  # fmt: skip
def test_ordinary_settings_do_not_trip(pair):
    refuse_overrides([pair])
    key, _, value = pair.partition("=")
    refuse({key: value})


@pytest.mark.parametrize("name", ["eos_token", "pad_token", "op.bos_token"])
def test_special_tokens_are_no_credentials(name):
    refuse({name: "<|im_end|>"})


def test_a_credential_in_a_list_is_refused(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "plain-words-1")
    for values in ([LOOKS_SECRET[0]], ["x", "plain-words-1"], [{"key": LOOKS_SECRET[1]}]):
        with pytest.raises(UserError):
            refuse({"op.settings": values})


@pytest.mark.parametrize("override", ["op.list=[a,plain-words-1]", "op.note=see plain-words-1", "op.a=x,plain-words-1"])
def test_the_value_of_a_secret_variable_within_a_setting_is_refused(monkeypatch, override):
    monkeypatch.setenv("OPENAI_API_KEY", "plain-words-1")
    with pytest.raises(UserError):
        refuse_overrides([override])


@pytest.mark.parametrize("value", LOOKS_SECRET[:-1])
def test_mask_hides_credentials_in_a_patch(value):
    assert value not in mask(f"+client = Client({value})\n")


def test_mask_hides_values_of_variables_assignments_and_passwords_in_addresses(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "plain-words-1")
    masked = mask(
        "+x = f(plain-words-1)\n+password: correct-horse\n+api_key='correct-horse'\n+url = 'http://me:correct-horse@host/x'\n"
    )
    assert "plain-words" not in masked
    assert "correct-horse" not in masked
    assert masked.count("\n") == 4
    assert "host/x" in masked


def test_the_shortest_value_that_is_masked_is_the_one_that_is_said(monkeypatch):
    docs = Path(__file__).parents[2] / "docs"
    (said,) = re.findall(r"CREDENTIALS, where they have (\d+) or more", (docs / "security.md").read_text("utf-8"))
    (again,) = re.findall(r"CREDENTIALS 结尾、至少 (\d+) 个字符", (docs / "security.zh.md").read_text("utf-8"))
    assert said == again
    value = "qwertyuiopasdfgh"[: int(said)]
    monkeypatch.setenv("SOME_KEY", value)
    assert mask(f"+ {value} +") == "+ *** +"
    monkeypatch.setenv("SOME_KEY", value[:-1])
    assert mask(f"+ {value} +") == f"+ {value} +"


def test_mask_leaves_the_rest_alone():
    text = "+max_tokens: int = 512\n-learning_rate = 1e-4\n+销售 = '好的'\n+http://host:5000/x\n@@ -1,3 +1,4 @@\n"
    assert mask(text) == text


@pytest.mark.parametrize(
    "piece", ["a", "A", "_", "\n", " ", "curl ", "eyJ-", "key ", "secret, ", "--", "?a", "x://", "token \t", "A_KEY", "a.b-"]
)
def test_mask_takes_no_longer_a_character_in_long_texts(piece):
    """Measured by nobody: where the time grows with the square, this test takes many minutes."""
    text = piece * (400_000 // len(piece))
    assert mask(text) == text


@pytest.mark.parametrize("name", ["password", "password:", "- token: ", "api_key =", "export TOKEN"])
def test_mask_takes_no_longer_where_blanks_follow_a_name(name):
    text = name + " \t" * 100_000
    assert mask(text) == text


def test_mask_finds_a_value_behind_any_number_of_blanks():
    assert mask(f"password:{' ' * 10_000}correct-horse-1 x") == f"password:{' ' * 10_000}***"


@pytest.mark.parametrize(
    "line",
    [
        "tokenizer = load.tokenizer(place)",
        "trained_tokens = sum(counted)",
        "max_tokens=settings.max_tokens",
        "self.token = settings.token",
        "password: Optional[str] = None",
        "def f(secret: str, password: str) -> None:",
        "token: str",
        "Basic evaluation of models",
        "bypass = compute_it",
    ],
)
def test_mask_leaves_code_about_tokens_alone(line):
    assert mask(line) == line


def test_addresses_are_printed_without_user_and_password():
    assert mask_address("http://me:pw@host:5000/x") == "http://host:5000/x"
    assert mask_address("postgresql://me@db/x?a=1") == "postgresql://db/x?a=1"
    assert mask_address("sqlite:////a/b@c/mlflow.db") == "sqlite:////a/b@c/mlflow.db"
