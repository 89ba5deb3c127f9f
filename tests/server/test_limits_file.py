"""The file of `serve --config`."""

import re
import tomllib
from pathlib import Path

import pytest
from thirteen.errors import ThirteenError
from thirteen.server.access.request_limits import RequestLimits

ROOT = Path(__file__).parents[2]


def test_the_document_has_all_limits_with_their_defaults() -> None:
    (block,) = re.findall(r"```toml\n(queue.*?)```", (ROOT / "docs/serving.md").read_text("utf-8"), re.DOTALL)
    assert tomllib.loads(block) == RequestLimits().model_dump()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("queue = 0", None),
        ("ques = 1", "ques is not one of queue, body_bytes, .*"),
        ("answers = 65", "answers must be less than or equal to 64, not 65"),
        ("idle_s = '30'", "idle_s must be a valid integer, not '30'"),
        ("strict = 1", "strict must be a valid boolean, not 1"),
        ("queue 1", "not TOML: .*"),
        (f"queue = {'[' * 5000}", "not TOML: .*"),
        (f"queue = {'9' * 5000}", "not TOML: .*"),
        (" " * 20_000, "more than 16,384 bytes, the limit"),
        (None, "No such file or directory"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_a_wrong_key_or_value_is_named_with_the_file(
    text: str | None, problem: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "limits.toml"
    if text is not None:
        path.write_text(text)
    if problem is None:
        assert RequestLimits.from_file(path) == RequestLimits(queue=0)
    else:
        with pytest.raises(ThirteenError, match=f"^{re.escape(str(path))}: {problem}$"):
            RequestLimits.from_file(path)
