"""Model cards: what they say of runs whose figures are easily mistaken."""

from pathlib import Path

import pytest
from thirteen.errors import OutputError
from thirteen.learn.cards import check_card, sft_card
from thirteen.learn.job import TrainingJob
from thirteen.learn.recipe import RECIPES
from thirteen.learn.sft import HeldOutLoss, SftResult


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(tmp_path, tmp_path / "adapter", RECIPES["lora"], base_id="tiny")


def test_a_run_replaces_no_card_and_no_adapter_but_its_own(tmp_path):
    """The README.md of a project was overwritten, and so was another adapter."""
    check_card(tmp_path / "new", ".state")
    (tmp_path / ".state").touch()
    check_card(tmp_path, ".state")  # an interrupted run resumes
    (tmp_path / "README.md").write_text("A project.")
    with pytest.raises(OutputError, match=r"README\.md: is not of an adapter, and would be overwritten"):
        check_card(tmp_path, ".state")
    (tmp_path / "adapter_config.json").touch()
    check_card(tmp_path, ".state")
    (tmp_path / ".state").unlink()
    with pytest.raises(OutputError, match=r"has adapter_config\.json, which would be"):
        check_card(tmp_path, ".state")


def test_the_time_of_a_resumed_run_is_that_of_its_last_sitting(job):
    """It read as the time of the whole training."""
    held_out = HeldOutLoss((10, 20), (30.0, 50.0), (20.0, 40.0))
    supervised = SftResult(2048, 8, 900, 12, 90.0, (1.5,), held_out)
    card = sft_card(job, supervised, "thirteen", "rows.jsonl")
    assert "Time: 1.5 minutes, since the last resume" in card and "On 2 questions that it was never" in card
