"""The memory that `thirteen inspect` estimates."""

from thirteen.models.inspection import memory_profiles
from thirteen.runtime.engine_options import PROFILES


def test_the_profiles_do_not_depend_on_the_library_of_this_machine(monkeypatch):
    """With THIRTEEN_LIBRARY=ik, every file was an error: that of the phone's type of the KV cache."""
    usual = memory_profiles()
    monkeypatch.setenv("THIRTEEN_LIBRARY", "ik")
    assert memory_profiles() == usual and usual.keys() == PROFILES.keys()
