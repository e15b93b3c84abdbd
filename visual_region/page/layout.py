"""The page's layout: which field goes into which function, and where its results are shown. All logic is elsewhere."""

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from visual_region.page.answering import Loaded, PageError, ask_all
from visual_region.page.choosing import TRAININGS, Training, choose, first_specs, kept_metric, metrics_of
from visual_region.page.drawn import drawn
from visual_region.pictures.records import draw_records

ADDRESS = "127.0.0.1"
_ONE_AT_A_TIME = {"concurrency_id": "work", "concurrency_limit": 1}
"""A model's attention is switched for the maps, and matplotlib draws in one thread."""
_STYLE = """
.gradio-container {max-width: 1280px !important; margin: auto}
.prose table td, .prose table th {padding: 2px 6px; border-color: var(--border-color-primary); font-size: 12px}
.prose table td {white-space: nowrap; word-break: normal}
.prose table th {word-break: normal; overflow-wrap: normal}
.cost {overflow-x: auto}
.cost table td:not(:first-child), .cost table th:not(:first-child) {text-align: right}
"""


def build(models: Sequence[Loaded], scores_file: str, cost_model: str) -> gr.Blocks:
    """The page for loaded models (maybe none), a score file and the model of the cost (both maybe empty)."""
    with gr.Blocks(title="LLaVA, by decoder layer", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown("# LLaVA, by decoder layer")
        if models:
            with gr.Tab("Ask"):
                _ask_tab(models)
        depth = models[0].checkpoint.record.depth if models else None
        with gr.Tab("Choose layers"):
            _layers_tab(page, scores_file, cost_model, depth)
    return page


def serve(page: gr.Blocks, port: int | None) -> str:
    """Starts the page's server on this machine only; returns its address. Raises OSError if the port is in use."""
    # Fonts by name: the default theme's are fetched from the network.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    _, address, _ = page.queue().launch(
        server_name=ADDRESS,
        server_port=port,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        ssr_mode=False,
        mcp_server=False,
        footer_links=["api"],
        theme=theme,
        css=_STYLE,
    )
    return address


def _ask_tab(models: Sequence[Loaded]) -> None:
    records = {loaded.name: loaded.checkpoint.record for loaded in models}
    last = max(record.original_depth for record in records.values()) - 1
    gr.Image(drawn(draw_records, records), show_label=False, interactive=False, buttons=["fullscreen"])
    with gr.Row():
        with gr.Column(scale=1):
            image = gr.Image(
                label="Image", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=300
            )
        with gr.Column(scale=2):
            question = gr.Textbox(label="Question", placeholder="What is in the image?", lines=2)
            with gr.Row():
                tokens = gr.Number(64, label="Longest answer, in tokens", precision=0)
                temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature")
            ask = gr.Button("Ask", variant="primary")
            message = gr.Markdown()
    # The texts of the records differ in length, and the answers are in one line below them.
    with gr.Row():
        for loaded in models:
            with gr.Column():
                gr.Markdown(f"### {loaded.name}\n{loaded.about}")
    texts, notes = [], []
    with gr.Row():
        for _ in models:
            with gr.Column():
                texts.append(gr.Textbox(label="Answer", lines=3, interactive=False, buttons=["copy"]))
                notes.append(gr.Markdown())
    gr.Markdown(
        "### Where the last token of the prompt looks\nThis token's attention decides the answer's first token."
    )
    layer = gr.Slider(0, last, last // 2, step=1, label="Layer, numbered as before any removal")
    pictures, captions = [], []
    with gr.Row():
        for loaded in models:
            with gr.Column():
                pictures.append(gr.Image(label=loaded.name, interactive=False, height=340, buttons=["download"]))
                captions.append(gr.Markdown("Ask about an image first."))
    maps = gr.State([])

    def answer(*fields: Any) -> Iterator[list[Any]]:
        empty = [""] * (2 * len(models))
        try:
            for replies in ask_all(models, *fields):
                said, about = [reply.text for reply in replies], [reply.note for reply in replies]
                yield ["", *said, *about, [reply.maps for reply in replies]]
        except PageError as error:
            yield [f"**Error:** {error}", *empty, []]

    def look(maps: list[Any], layer: float) -> list[Any]:
        shown = [found.over(int(layer)) if found else (None, "") for found in maps or [None] * len(models)]
        return [picture for picture, _ in shown] + [line for _, line in shown]

    fields, answers = [image, question, tokens, temperature], [message, *texts, *notes, maps]
    shown = [*pictures, *captions]
    gr.on([ask.click, question.submit], answer, fields, answers, api_name="ask", **_ONE_AT_A_TIME).then(
        look, [maps, layer], shown, api_visibility="private"
    )
    layer.change(look, [maps, layer], shown, show_progress="hidden", api_visibility="private")


def _layers_tab(page: gr.Blocks, scores_file: str, cost_model: str, depth: int | None) -> None:
    choices, _ = metrics_of(scores_file)
    metric_name = choices[0][1] if choices else None
    with gr.Row():
        with gr.Column(scale=2):
            scores = gr.Textbox(scores_file, label="Score file (a path on this machine, written by the command score)")
            with gr.Row():
                metric = gr.Dropdown(choices, value=metric_name, label="Metric to draw")
                layers = gr.Number(depth, label="Layers, without a score file", precision=0)
            specs = gr.Textbox(
                first_specs(metric_name),
                label="Selections, one per line, as for --tune_layers",
                info="#bi:8 takes the 8 layers of highest bi in the score file; #bi:lowest:8 and #bi:spread:8 too",
                lines=4,
            )
        with gr.Column(scale=1):
            model = gr.Textbox(cost_model, label="Model for the cost (a folder; config.json is enough)")
            mode = gr.Radio(TRAININGS, value=TRAININGS[0], label="Training")
            with gr.Row():
                rank = gr.Number(128, label="LoRA rank", precision=0, min_width=80)
                samples = gr.Number(665_298, label="Samples", precision=0, min_width=80)
                text = gr.Number(192, label="Text tokens", precision=0, min_width=80)
            show = gr.Button("Show", variant="primary")
    message = gr.Markdown()
    picture = gr.Image(show_label=False, interactive=False, buttons=["download", "fullscreen"])
    with gr.Row():
        with gr.Column():
            flags = gr.Textbox(label="To copy", lines=2, interactive=False, buttons=["copy"], elem_id="flags")
            table = gr.Markdown()
        with gr.Column():
            cost = gr.Markdown(elem_classes="cost")

    def read(scores_file: str, metric: str | None) -> list[Any]:
        choices, said = metrics_of(scores_file)
        return [gr.Dropdown(choices=choices, value=kept_metric([name for _, name in choices], metric)), said]

    def chosen(scores_file: str, metric: str, layers: float, specs: str, *training: Any) -> list[Any]:
        found = choose(scores_file, metric, layers, specs, Training(*training))
        return [found.message, found.picture, found.table, found.flags, found.cost]

    fields = [scores, metric, layers, specs, model, mode, rank, samples, text]
    results = [message, picture, table, flags, cost]
    scores.blur(read, [scores, metric], [metric, message], api_visibility="private")
    gr.on([show.click, scores.submit], chosen, fields, results, api_name="choose", **_ONE_AT_A_TIME)
    metric.input(chosen, fields, results, api_visibility="private", **_ONE_AT_A_TIME)
    if scores_file or depth:
        page.load(chosen, fields, results, api_visibility="private", **_ONE_AT_A_TIME)
