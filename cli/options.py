"""Options that several commands share, and what is made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
BaseArgument = Annotated[
    str, typer.Argument(help="A catalogue name, a hub id, a folder of safetensors, or a GGUF.")
]
AdapterArgument = Annotated[str, typer.Argument(help="A PEFT folder, a hub id, a catalogue name, or a code.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The GGUF to write.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=512, help="Threads; by default all that can be of use.")
]
AdapterOption = Annotated[
    str | None, typer.Option(help="A PEFT folder, a hub id, a catalogue name, or a code.")
]
SizeOption = Annotated[
    str | None,
    typer.Option(help="The most the file may have: 600MB, 572MiB, 0.6GB, 3.9bpw; plans its types."),
]
ImportanceOption = Annotated[
    Path | None, typer.Option(help="An importance file; with --size, measured and cached unless given.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(help="Texts to measure importance on: JSON lines with text, or question and answer."),
]
TogetherOption = Annotated[
    bool, typer.Option("--together", help="Price types by decoding 8 sequences at once, as a server does.")
]
TargetOption = Annotated[
    str | None, typer.Option(help="x86, x86-avx512, arm or any; by default this machine's kind.")
]
PreferOption = Annotated[str, typer.Option(help="quality, balanced or speed.")]
CostsOption = Annotated[Path | None, typer.Option(help="What types cost here, by: thirteen bench types.")]
ShapeOption = Annotated[
    str | None,
    typer.Option("--shape", help="Instead of a file: a base's catalogue name; its shapes, random weights."),
]
TypesOption = Annotated[
    str,
    typer.Option(
        "--types",
        help="Of such weights: a type, LAYERS/EMBEDDING, a mix of llama.cpp's (Q4_K_M), a plan "
        "(of thirteen plan --json), or a GGUF of that shape.",
    ),
]
LengthsOption = Annotated[
    str, typer.Option(help="Also prompts of these tokens, and decode after them: 128,512,1024.")
]
RoundsOption = Annotated[int, typer.Option(min=8, help="Rounds of four turns, two of each.")]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Use a Ray cluster: HOST:PORT of its head, or auto; without an address one is begun here.",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="With --ray: how many; by default all that there is room for.")
]
VotesOption = Annotated[
    int, typer.Option(min=1, max=64, help="Answers to each question; what most of them give counts.")
]
TemperatureOption = Annotated[
    float, typer.Option(help="0 always takes the likeliest token; with --votes, 0.7 instead.")
]
SeedOption = Annotated[int, typer.Option(help="Of the first answer; the next ones count up from it.")]
CalculatorOption = Annotated[bool, typer.Option(help="Complete sums in answers by their exact results.")]
MaxTokensOption = Annotated[int, typer.Option(min=1, help="The longest answer.")]
Revision = Annotated[str | None, typer.Option(help="The base's branch, tag or commit on the hub.")]


def size_target(size: str, target: str | None, prefer: str, costs: Path | None, *, together: bool) -> Any:
    """The `SizeTarget` of --size, --target, --prefer, --costs and --together; errors name the option."""
    from ..convert.quantize.costs import costs_for, host_target, read_costs
    from ..convert.quantize.file_size import parse_file_size
    from ..convert.quantize.size_planner import PREFERENCES, SizeTarget

    if prefer not in PREFERENCES:
        raise typer.BadParameter(f"--prefer {prefer!r}: there are {', '.join(PREFERENCES)}")
    if costs and target:
        raise typer.BadParameter(f"--costs {costs} and --target {target}: give one of them")
    table = read_costs(costs) if costs else costs_for(target or host_target())
    return SizeTarget(parse_file_size(size), prefer, table.together() if together else table)


def with_ray_address(words: Sequence[str]) -> list[str]:
    """A command line where a --ray without an address, which the parser does not know, has one."""
    return [
        "--ray=local" if word == "--ray" and following.startswith("-") else word
        for word, following in zip(words, [*words[1:], "-"], strict=False)
    ]


def answer_with(ray: str | None, workers: int | None) -> Any:
    """What has questions answered, as --ray and --workers say: this machine, or a cluster's workers."""
    from ..runtime.batch.reproducible_batches import BatchJob
    from ..runtime.cluster.ray_batch import RayWorkers

    if ray is None and workers is not None:
        raise typer.BadParameter("--workers goes with --ray")
    return BatchJob.run if ray is None else RayWorkers(ray, workers).run


def shown_name(source: str) -> str:
    """A source's name for the provenance: a name or hub id as it is, of a path the last part."""
    return Path(source).resolve().name if source and Path(source).exists() else source


def memory_size(option: str, text: str) -> int:
    """Bytes of memory, from the text of an option: 1GB, 900MiB."""
    from ..convert.quantize.file_size import parse_file_size
    from ..errors import OutputError

    try:
        size = parse_file_size(text)
    except OutputError:
        size = None
    if size is None or size.unit is None:
        raise typer.BadParameter(f"{option} {text!r}: write it like 1GB, 600MB or 572MiB")
    return size.file_bytes(0)
