"""A page in the browser: drop a photograph, see it before and after, download it.

The page is served to this computer alone and asks nothing of any other.
"""

import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable
from html import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from helpers.checkpoint import WEIGHTS, find_weights, load_weights
from helpers.colorize import colorize
from helpers.files import InputError
from helpers.images import UnreadableImage, decode_picture, write_image
from helpers.nets import ChrominanceNet
from helpers.portraits import render_portrait
from helpers.stopping import StopSignals

HOST = "127.0.0.1"
OWN = ("colorizer", "classifier")  # the networks of weights/ that colour
MAX_MEGABYTES = 100  # of a file that is dropped on the page
MAX_MEGAPIXELS = 64
SHOWN_PIXELS = 1600  # longer side of what the page shows; the download is full size
KEPT_SECONDS = 3600  # files of the page are removed when older, all at the end
PORTS = 100  # so many ports are tried, from the wished one on
POLL_SECONDS = 0.2
EXAMPLE_SITTERS = {"grey": 7, "faded": 3, "sepia": 11, "dark": 2}
SEPIA_BGR = np.array([0.72, 0.93, 1.08], np.float32)
NO_NETWORK = {  # read by gradio and by what it brings along
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
INTRO = f"""# Colour for an old photograph

A small network looks at how light and dark a picture is and guesses its colours. It
learned from frontal faces of 50 people, 128 pixels wide, and has seen nothing else. Even
on a face its colours are guesses: no grey picture tells whether a coat was red or green.

Files of up to {MAX_MEGABYTES} MB and {MAX_MEGAPIXELS} megapixels.
Nothing leaves this computer.
"""
WAITING = "Drop a photograph or choose an example."
CSS = """
.gradio-container {max-width: 1080px !important; margin: 0 auto !important}
#intro h1 {font-weight: 600; letter-spacing: -0.01em}
#status {min-height: 1.5em}
#status p {overflow-wrap: anywhere}
#examples > .gallery {display: grid; grid-template-columns: repeat(4, 1fr)}
#examples .gallery-item, #examples .container {
    width: 100%; height: auto; max-height: none; aspect-ratio: 1;
}
#examples img {width: 100%; height: 100%}
"""
# A screen reader says what changes in a region with the role status.
SPOKEN = """() => {
    document.documentElement.lang = "en";
    document.getElementById("status").setAttribute("role", "status");
    document.querySelectorAll("#examples button").forEach(
        (button, i) => button.setAttribute("aria-label", `Example ${i + 1}`)
    );
}"""


def serve(weights: tuple[str, ...], port: int, log: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or TERM.

    weights  names or files of networks, as `load_networks` takes them
    port     the first to try; the next free one is taken when it is not

    Raises InputError when gradio is missing, no network can colour, or no port is free.
    """
    with (
        StopSignals() as signals,
        tempfile.TemporaryDirectory(
            prefix="deepcolor-demo-", ignore_cleanup_errors=True
        ) as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = folder
        gradio = import_gradio()
        nets = load_networks(weights)
        page = build_page(gradio, nets, draw_examples(Path(folder) / "examples"))
        port = free_port(port)
        launch(gradio, page, port)
        log(f"networks: {', '.join(nets)}")
        log(f"open http://{HOST}:{port} in a browser; Ctrl-C ends it")
        while signals.received is None:
            time.sleep(POLL_SECONDS)
        page.close(verbose=False)


def launch(gradio, page, port: int) -> None:
    """Let threads of this process serve a page to this computer alone."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the page says it
    here = "localhost," + HOST  # gradio asks itself whether it is up; not by a proxy
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = here
    page.launch(
        server_name=HOST,
        server_port=port,
        root_path="",
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=MAX_MEGABYTES * 2**20,
        theme=_theme(gradio),
        css=CSS,
        js=SPOKEN,
    )


def import_gradio():
    """The module gradio, told to ask nothing of the network; raises InputError."""
    os.environ.update(NO_NETWORK)  # gradio reads them while it is imported
    try:
        import gradio
    except ImportError as error:
        raise InputError(
            'gradio is not installed; pip install -e ".[demo]" in the course\'s folder'
        ) from error
    return gradio


def load_networks(weights: tuple[str, ...] = ()) -> dict[str, ChrominanceNet]:
    """The networks to choose from, by name.

    `weights` are names or files, as `find_weights` takes them; none: those of OWN that
    are there. Raises InputError when none is, or one that is named colours nothing.
    """
    own = [name for name in OWN if (WEIGHTS / f"{name}.safetensors").is_file()]
    nets = {}
    for path in map(find_weights, weights or own):
        net, metadata = load_weights(path)
        if net.predicts != "map":
            raise InputError(
                f"{path}: holds a {metadata['network']}; the page needs a colorizer"
            )
        nets[path.stem if path.stem not in nets else str(path)] = net
    if not nets:
        raise InputError(
            "weights/: no network that colours lies here; train one "
            "(`deepcolor train unet`) and give its file with --weights"
        )
    return nets


def free_port(first: int) -> int:
    """The first port from `first` on that is free here; raises InputError."""
    for port in range(first, min(first + PORTS, 2**16)):
        with socket.socket() as probe:
            if os.name == "posix":  # on Windows this would share a taken port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise InputError(f"--port {first}: none of {PORTS} ports is free; give another")


def read_photograph(path: Path) -> np.ndarray:
    """A file that was dropped on the page, as `decode_picture` has it.

    Its size is looked at before its pixels are. Raises InputError with the file's name
    (not its folder), the reason and the next step.
    """
    path = Path(path)
    try:
        _check_size(*_announced_size(path))
        image_bgr = decode_picture(path.read_bytes())
        _check_size(*image_bgr.shape[1::-1])
    except UnreadableImage as error:
        raise InputError(f"{path.name}: {error}; choose another file") from error
    except OSError as error:
        raise InputError(
            f"{path.name}: no longer kept here; choose it again"
        ) from error
    return image_bgr


def shown(image_bgr: np.ndarray) -> np.ndarray:
    """What the page shows of a picture of 8 or 16 bits, with alpha or without.

    Returns (H, W, 3) uint8 BGR, its longer side at most SHOWN_PIXELS.
    """
    height, width = image_bgr.shape[:2]
    scale = SHOWN_PIXELS / max(height, width)
    if scale < 1:
        size = [max(1, round(n * scale)) for n in (width, height)]
        image_bgr = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    if image_bgr.dtype == np.uint16:
        image_bgr = (image_bgr >> 8).astype(np.uint8)
    return image_bgr[:, :, :3]


def colour_file(
    net: ChrominanceNet, path: Path, strength: float, folder: Path
) -> tuple[Path, Path, Path]:
    """Colour one photograph file; three files are written to `folder`.

    Returns what to show before and after (JPEG, at most SHOWN_PIXELS) and what to
    download (PNG, full size; 16 bits and alpha are kept). Raises InputError for a file
    that cannot be read.
    """
    image_bgr = read_photograph(path)
    before, after = folder / "before.jpg", folder / "after.jpg"
    download = folder / f"{Path(path).stem}-coloured.png"
    write_image(before, shown(image_bgr))
    coloured_bgr = colorize(net, image_bgr, strength)
    del image_bgr  # a large photograph's PNG needs the memory
    write_image(after, shown(coloured_bgr))
    write_image(download, coloured_bgr)
    return before, after, download


def draw_examples(folder: Path, size: int = 384) -> list[Path]:
    """Four drawn portraits as old photographs: PNG files in `folder`, named by `age`."""
    paths = []
    for name, sitter in EXAMPLE_SITTERS.items():
        paths.append(folder / f"{name}.png")
        write_image(paths[-1], age(render_portrait(sitter, 1, size=size), name))
    return paths


def age(image_bgr: np.ndarray, how: str) -> np.ndarray:
    """A portrait (H, W, 3) uint8 BGR without its colours, of the same shape and type.

    how  "grey", no more; "faded", low in contrast; "sepia", brown and grained; "dark",
         with dim corners
    """
    grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY).astype(np.float32)
    tone = np.ones(3, np.float32)
    if how == "faded":
        grey = 70 + 0.6 * grey
    elif how == "sepia":
        grain = np.random.default_rng(0).normal(0, 6, grey.shape)
        grey, tone = 25 + 0.8 * grey + grain.astype(np.float32), SEPIA_BGR
    elif how == "dark":
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in grey.shape)
        grey = 0.8 * grey * (1 - 0.3 * (x**2 + y[:, None] ** 2))
    return np.clip(np.round(grey[:, :, None] * tone), 0, 255).astype(np.uint8)


def build_page(gradio, nets: dict[str, ChrominanceNet], examples: list[Path]):
    """The page, a gradio.Blocks; whatever is changed on it colours the photograph anew."""
    names = list(nets)

    def colour(path: str | None, name: str, strength: float):
        """(pictures, status, download) for what the page now holds."""
        nothing = None, gradio.DownloadButton(value=None, interactive=False)
        if path is None:  # a network or a strength was chosen first
            return nothing[0], WAITING, nothing[1]
        start, folder = time.perf_counter(), Path(tempfile.mkdtemp(dir=_folder()))
        try:
            *pair, download = colour_file(nets[name], Path(path), strength, folder)
        except InputError as error:
            return nothing[0], _text(str(error)), nothing[1]
        seconds = time.perf_counter() - start
        return (
            tuple(map(str, pair)),
            _text(f"{Path(path).name}: coloured by {name} in {seconds:.1f} s."),
            gradio.DownloadButton(value=str(download), interactive=True),
        )

    with gradio.Blocks(
        title="Deep colorization",
        analytics_enabled=False,
        delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS),
    ) as page:
        chosen = gradio.State(None)  # the path of the photograph
        gradio.Markdown(INTRO, elem_id="intro")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=280):
                photograph = gradio.File(label="Photograph", height=150)
                gallery = gradio.Dataset(
                    components=["image"],
                    samples=[[str(path)] for path in examples],
                    label="Examples, drawn for this page",
                    type="index",
                    elem_id="examples",
                )
                network = gradio.Radio(
                    names, value=names[0], label="Network", visible=len(names) > 1
                )
                strength = gradio.Slider(
                    0, 2, 1, step=0.05, label="Strength of the colours"
                )
            with gradio.Column(scale=3, min_width=280):
                pictures = gradio.ImageSlider(
                    label="Before and after",
                    type="filepath",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="pictures",
                )
                status = gradio.Markdown(WAITING, elem_id="status")
                download = gradio.DownloadButton(
                    "Download as PNG", variant="primary", interactive=False
                )
        shared = {"api_visibility": "private", "show_progress_on": pictures}
        work = {
            "fn": colour,
            "inputs": [chosen, network, strength],
            "outputs": [pictures, status, download],
            "concurrency_id": "colour",  # one photograph in memory
            "concurrency_limit": 1,
            **shared,
        }
        # The field is emptied at once, so that the next photograph can be dropped there.
        photograph.upload(
            lambda path: (path, None), photograph, [chosen, photograph], **shared
        ).then(**work)
        gallery.click(
            lambda index: str(examples[index]), gallery, chosen, **shared
        ).then(**work)
        gradio.on([network.change, strength.change], trigger_mode="always_last", **work)
    return page


def _theme(gradio):
    """Calm colours and the fonts of the system, for none is at hand without a network."""
    return gradio.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        slider_color="*primary_700",
        checkbox_background_color_selected="*primary_700",
        checkbox_border_color_selected="*primary_700",
    )


def _folder() -> str:
    """Where gradio keeps the page's files, and removes them."""
    return os.environ["GRADIO_TEMP_DIR"]


def _text(line: str) -> str:
    """Plain text as Markdown that shows it as it is."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-!|~$^" else escape(c) for c in line)


def _announced_size(path: Path) -> tuple[int, int]:
    """(width, height) in the file's head; (0, 0) where only OpenCV can tell."""
    try:
        with Image.open(path) as image:
            return image.size
    except Image.DecompressionBombError:
        return 2**16, 2**16
    except (OSError, ValueError, SyntaxError):
        return 0, 0


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_MEGAPIXELS * 10**6:
        raise UnreadableImage(f"more than {MAX_MEGAPIXELS} megapixels")
