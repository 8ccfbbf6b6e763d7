"""What checkers say."""

import json

import pytest

from agent_rl_envs.terminal.scores import Garbled, overall, passed_of_pytest, passed_of_report, read_rewards


def test_rewards_are_read():
    assert read_rewards("0.25\n", None) == {"reward": 0.25}
    assert read_rewards("1", '{"speed": 0.5, "size": true}') == {"speed": 0.5, "size": 1.0}
    assert read_rewards(None, "0.75") == {"reward": 0.75}
    assert overall({"speed": 0.5, "size": 1.0}) == 0.75
    assert overall({"reward": 0.1, "size": 1.0}) == 0.1


@pytest.mark.parametrize(
    ("text", "table"),
    [
        *((text, None) for text in (None, "", "yes", "nan", "inf", "1 2", "\0")),
        *(("1", table) for table in ("", "[1]", "{}", '{"a": "x"}', '{"a": NaN}', '{"a": null}', '{"a": [1]}', '"1"')),
    ],
)
def test_garbled_rewards_are_no_rewards(text, table):
    with pytest.raises(Garbled):
        read_rewards(text, table)


def test_reports_of_tests():
    def report(**summary: object) -> str:
        return json.dumps({"results": {"summary": summary}})

    assert passed_of_report(report(tests=4, passed=3, skipped=0)) == 0.75
    assert passed_of_report(report(tests=4, passed=3, skipped=1)) == 1.0
    for bad in ("", "[]", "{}", report(tests=0, passed=0), report(tests=1, passed=2), report(tests="x", passed=1)):
        assert passed_of_report(bad) is None


def test_summaries_of_pytest():
    head = "collected 3 items\nPASSED not/this::one\n=========== short test summary info ============\n"
    said = (
        head + "PASSED a::b\n\x1b[32mPASSED\x1b[0m a::c\nFAILED a::d - assert 1 == 2\nSKIPPED [1] x\n== 1 failed ==\n"
    )
    assert passed_of_pytest(said) == pytest.approx(2 / 3)
    assert passed_of_pytest(said + head + "PASSED a::b\nXFAIL a::x\n") == 1.0
    assert passed_of_pytest(head + "PASSED a::b\nERROR a::b - teardown\n") == 0.0
    assert passed_of_pytest(head + "ERROR a::b - teardown\nPASSED a::b\n") == 0.0
    assert passed_of_pytest("PASSED a::b\n") is None
    assert passed_of_pytest(head) is None
