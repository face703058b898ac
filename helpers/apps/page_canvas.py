"""The picture on the demo page that takes colors by a click and faces by dragging a box.

The browser reports both as fractions of the picture's width and height.
"""

import json
from collections.abc import Callable

PALETTE = {  # name: a color to choose for a hint
    "fair skin": "#e8b89a",
    "tan skin": "#c58c6a",
    "dark skin": "#7a4b32",
    "blond hair": "#c9a45c",
    "brown hair": "#5b3a24",
    "red lips": "#b5483f",
    "blue cloth": "#2f4f8f",
    "green cloth": "#3f6b3a",
    "sky": "#87b5e0",
}
MIN_SIDE = 0.01  # of a box, as a fraction of the picture's width and height
CANVAS_CSS = """
#canvas img {cursor: crosshair}
#dragged-box {position: fixed; border: 2px solid white; outline: 1px solid black;
    pointer-events: none; z-index: 99}
"""
# Runs in the browser. The value becomes JSON: two numbers for a click, four for a box.
REPORT_MARKS = """
    let start = null, frame = null;
    const inside = (event) => {
        const image = document.querySelector("#canvas img");
        const {left, top, width, height} = image.getBoundingClientRect();
        const scale = Math.min(width / image.naturalWidth, height / image.naturalHeight);
        const wide = scale * image.naturalWidth, high = scale * image.naturalHeight;
        const at = (n) => Math.min(Math.max(n, 0), 0.9999);
        return [at((event.clientX - left - (width - wide) / 2) / wide),
                at((event.clientY - top - (height - high) / 2) / high)];
    };
    addEventListener("pointerdown", (event) => {
        if (!event.target.matches("#canvas img") || event.button !== 0) return;
        event.preventDefault();
        start = event;
    });
    addEventListener("pointermove", (event) => {
        const far = start && Math.hypot(event.clientX - start.clientX,
                                        event.clientY - start.clientY) > 8;
        if (!far && !frame) return;
        frame ??= document.body.appendChild(document.createElement("div"));
        frame.id = "dragged-box";
        frame.style.left = Math.min(event.clientX, start.clientX) + "px";
        frame.style.top = Math.min(event.clientY, start.clientY) + "px";
        frame.style.width = Math.abs(event.clientX - start.clientX) + "px";
        frame.style.height = Math.abs(event.clientY - start.clientY) + "px";
    });
    addEventListener("pointercancel", () => { frame?.remove(); start = frame = null; });
    addEventListener("pointerup", (event) => {
        if (!start) return;
        const [[x, y], [u, v]] = [inside(start), inside(event)];
        const mark = frame
            ? [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)] : [x, y];
        frame?.remove(); start = frame = null;
        props.value = JSON.stringify(mark);
        trigger("input");
    });
"""


class Canvas:
    """The picture, a palette, a color picker, and buttons that remove marks.

    A mark is a hint (x, y, color) or a face's box (left, top, right, bottom), in 0..1.
    """

    def __init__(self, gradio):
        # Outside the accordion, so that its script runs once
        self.marked = gradio.HTML(html_template="", js_on_load=REPORT_MARKS)
        with gradio.Accordion("Choose colors yourself", open=False, elem_id="hints"):
            gradio.Markdown(
                "Choose a color, then click where it belongs. To color a face that was "
                "not found, drag a box around it."
            )
            self.palette = gradio.Radio(
                list(PALETTE), value="tan skin", label="Palette"
            )
            self.color = gradio.ColorPicker(PALETTE["tan skin"], label="Color")
            self.picture = gradio.Image(
                label="Click to color; drag a box around a face",
                type="filepath",
                interactive=False,
                buttons=[],
                elem_id="canvas",
            )
            with gradio.Row():
                self.undo = gradio.Button("Undo")
                self.clear = gradio.Button("Remove all")

    def connect(self, touch: Callable, paths, marks, settings: list) -> list:
        """Let clicks and drags change `marks` and the picture; return the events.

        touch  touch(paths, marks, *settings) returns the picture's file, or None
        """
        shared = {"api_visibility": "private", "show_progress": "hidden"}
        self.palette.input(PALETTE.get, self.palette, self.color, **shared)
        shared["outputs"] = [marks, self.picture]

        def add(text: str, color: str, paths, marks, *chosen):
            mark = parse_mark(text, color)
            marks = [*marks, mark] if paths and mark else marks
            return marks, touch(paths, marks, *chosen)

        def undo(paths, marks, *chosen):
            return marks[:-1], touch(paths, marks[:-1], *chosen)

        def clear(paths, marks, *chosen):
            return [], touch(paths, [], *chosen)

        inputs = [paths, marks, *settings]
        return [
            self.marked.input(add, [self.marked, self.color, *inputs], **shared),
            self.undo.click(undo, inputs, **shared),
            self.clear.click(clear, inputs, **shared),
        ]


def parse_mark(text: str, color: str) -> tuple | None:
    """Return a hint (x, y, color) or a box (left, top, right, bottom).

    text   JSON of two or four numbers in 0..1
    color  of a hint, see `as_hex`

    Returns None if `text` or `color` is anything else, or for a box that is too small to
    hold a face.
    """
    try:
        numbers = [float(n) for n in json.loads(text)]
        color = as_hex(color) if len(numbers) == 2 else ""
    except (ValueError, TypeError, AttributeError):
        return None
    if not all(0 <= n < 1 for n in numbers):
        return None
    if len(numbers) == 2:
        return (*numbers, color)
    if len(numbers) == 4:
        left, top, right, bottom = numbers
        if right - left >= MIN_SIDE and bottom - top >= MIN_SIDE:
            return left, top, right, bottom
    return None


def as_hex(color: str) -> str:
    """Return a color as #rrggbb; gradio's picker also writes rgba(12.3, 45, 67, 1)."""
    if color.startswith("#"):
        return color
    numbers = color[color.index("(") + 1 : -1].split(",")[:3]
    return "#" + "".join(f"{round(float(n)):02x}" for n in numbers)
