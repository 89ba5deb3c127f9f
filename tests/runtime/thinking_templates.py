"""Chat templates of models that think: what published ones say of it, and a turn as in ChatML."""

from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "data" / "chat_templates"
TEMPLATES = {
    name: (_FOLDER / f"{name.replace(' ', '_')}.jinja").read_text("utf-8")
    for name in ("qwen3", "smollm3", "deepseek-r1", "no switch", "magistral")
}
