"""What `op=select` refuses before it looks at the record."""

from __future__ import annotations

import pytest

from mlops_llm.errors import UserError
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.ops.select import Select
from mlops_llm.surgery.selection.working import enough_to_test


@pytest.mark.parametrize(
    ("op", "request_", "error"),
    [
        ({}, {}, "run: names no training; give run=RUN, its id or name"),
        ({}, {"run": "mine", "models": ["tiny"]}, "models: is given beside run; leave it out"),
        ({"alias": "champion"}, {}, "op.alias: is moved by the registry's policy only"),
        ({"alias": "a b"}, {}, "op.alias: 'a b' is no alias"),
        ({"by": []}, {}, "op.by: is empty"),
        ({"by": ["eval/loss", "eval/loss"]}, {}, "op.by: names eval/loss twice"),
    ],
)
def test_bad_requests_are_one_line(op, request_, error):
    with pytest.raises(UserError) as found:
        Select(**op).prepare(Surgery(op=None, **request_))
    assert str(found.value).startswith(error) and "\n" not in str(found.value)


def test_the_earliest_is_refused_where_no_difference_could_be_significant():
    with pytest.raises(UserError, match="evaluate on 6 rows or more"):
        enough_to_test(5)
    enough_to_test(6)
    enough_to_test(None)
