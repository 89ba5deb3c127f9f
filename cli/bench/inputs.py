"""Values of options that several bench commands share."""


def threads_or_cores(threads: int | None) -> int:
    """The threads of --threads; by default one per physical core."""
    from ...runtime.threads import physical_cores

    return threads or physical_cores()
