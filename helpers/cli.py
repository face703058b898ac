"""The command line: `deepcolor run`, `train`, `evaluate`, `chrominance`, `colorize`."""

from pathlib import Path

import click

from helpers.files import InputError, WorkFailed

CANCELLED = 130


class Course(click.Group):
    """Errors of the course become one line; the exit code says whose fault it was."""

    def invoke(self, ctx: click.Context):
        """Run a command; exit 2 for wrong input, 1 for failed work, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except (InputError, WorkFailed) as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(2 if isinstance(error, InputError) else 1)
        except KeyboardInterrupt:
            click.echo("stopped by Ctrl-C; what is finished is kept", err=True)
            ctx.exit(CANCELLED)


images_option = click.option(
    "--images",
    default="",
    metavar="FOLDER|ZIP|portraits",
    help="Photographs; by default those in face_images/, else the synthetic portraits.",
)
run_dir_option = click.option(
    "--run-dir",
    default="",
    metavar="DIR",
    help="Results; by default outputs/<profile>.",
)
profile_option = click.option(
    "--profile",
    default="quick",
    type=click.Choice(["quick", "standard", "full"]),
    show_default=True,
    help="How long to train: minutes, half an hour, or the long protocols on a GPU.",
)
split_option = click.option(
    "--split",
    default="random",
    type=click.Choice(["random", "groups"]),
    show_default=True,
    help="groups: no sitter stands in both parts.",
)
device_option = click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"])
)
seed_option = click.option("--seed", default=None, type=click.IntRange(min=0))
epochs_option = click.option(
    "--epochs", default=0, type=click.IntRange(min=0), help="Instead of the profile's."
)
weights_option = click.option(
    "--weights",
    default="",
    metavar="FILE",
    help="A .safetensors file; by default that of the run folder.",
)

COLORIZER_WEIGHTS = (
    "08_extra_credit/best.safetensors",
    "07_gpu_training/chosen.safetensors",
)
REGRESSOR_WEIGHTS = ("04_regressor/regressor.safetensors",)


@click.group(cls=Course, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool):
    """Deep colorization: networks that predict a*, b* of a photograph from its L*."""


@main.command()
@profile_option
@images_option
@split_option
@run_dir_option
@device_option
@seed_option
@epochs_option
@click.option(
    "--only", multiple=True, metavar="NN", help="Only this notebook; repeatable."
)
@click.option(
    "--resume", is_flag=True, help="Skip notebooks whose inputs are unchanged."
)
@click.option(
    "-p",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A notebook's parameter.",
)
def run(
    profile, images, split, run_dir, device, seed, epochs, only, resume, parameters
):
    """Run the notebooks in order; results go to the run folder."""
    from helpers.results import default_run_dir
    from helpers.runner import run_notebooks

    given = {
        "profile": profile,
        "images": images,
        "split": split,
        "device": device,
        "seed": "" if seed is None else str(seed),
        "num_epochs": str(epochs or ""),
    }
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not equals:
            raise InputError(f"-p {parameter}: write -p NAME=VALUE")
        given[name] = value
    given = {name: value for name, value in given.items() if value or name == "images"}
    folder = default_run_dir(given["profile"], run_dir)
    page = run_notebooks(folder, given, only=only, resume=resume, log=click.echo)
    click.echo(page.read_text(encoding="utf-8"))
    click.echo(f"wrote {page}")


@main.command()
@click.argument("name")
@profile_option
@images_option
@split_option
@run_dir_option
@device_option
@seed_option
@epochs_option
@click.option("--plain", is_flag=True, help="Compute the steps in plain PyTorch.")
@click.option(
    "--without",
    multiple=True,
    metavar="TRICK",
    help="threads, channels_last, bf16, fused or compiled; repeatable.",
)
@click.option("--tensorboard", is_flag=True, help="Write curves and sample pictures.")
def train(name, seed, **options):
    """Train one network by its NAME, for example maps/32; the same command goes on."""
    from helpers.experiments import DEFAULT_SEED
    from helpers.train import train_one

    seed = DEFAULT_SEED if seed is None else seed
    train_one(name, seed=seed, log=click.echo, **options)


@main.command()
@click.argument("weights")
@images_option
@device_option
def evaluate(weights, images, device):
    """Test trained WEIGHTS on all photographs of --images."""
    from helpers.checkpoint import load_weights
    from helpers.evaluation import evaluate as test
    from helpers.execution import choose_device
    from helpers.faces import load_faces
    from helpers.lab import to_bgr_images, to_lab_images
    from helpers.metrics import bootstrap, picture_metrics

    net, metadata = load_weights(Path(weights))
    faces = load_faces(images)
    click.echo(faces.describe())
    lab = to_lab_images(faces.images)
    result = test(net.to(choose_device(device)), lab)
    click.echo(f"{metadata['network']}: MSE on scale S over {len(faces)} images")
    click.echo(f"{'mse':<20}{result.mse}")
    if metadata["network"] != "regressor":
        pictures = to_bgr_images(lab.L, result.ab_hat)
        for name, values in picture_metrics(pictures, faces.images).items():
            click.echo(f"{name:<20}{bootstrap(values)}")


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGES...")
@weights_option
@profile_option
@run_dir_option
def chrominance(inputs, weights, profile, run_dir):
    """Predict the mean a* and mean b* of photographs from their luminance."""
    from helpers.colorize import predict_mean_chrominance

    net = _network(weights, profile, run_dir, REGRESSOR_WEIGHTS, "regressor")
    click.echo(f"{'file':<40}{'mean a*':>10}{'mean b*':>10}")
    for name, image_bgr in _photographs(inputs):
        a, b = predict_mean_chrominance(net, image_bgr)
        click.echo(f"{name:<40}{a:>10.2f}{b:>10.2f}")


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o", "--output", required=True, metavar="DIR", help="Folder for the pictures."
)
@click.option("--force", is_flag=True, help="Replace pictures that are already there.")
@weights_option
@profile_option
@run_dir_option
def colorize(inputs, output, force, weights, profile, run_dir):
    """Colour photographs (files, folders or zips) of any size, as PNG."""
    from helpers.colorize import colorize as color
    from helpers.images import write_image

    net = _network(weights, profile, run_dir, COLORIZER_WEIGHTS, "colorizer")
    for name, image_bgr in _photographs(inputs):
        path = Path(output) / f"{Path(name).with_suffix('').as_posix()}.png"
        if path.exists() and not force:
            raise InputError(f"{path}: already there; use --force or another folder")
        write_image(path, color(net, image_bgr))
        click.echo(str(path))


def _network(weights: str, profile: str, run_dir: str, names: tuple, kind: str):
    """The network to use: the file given, or the run folder's first of `names`."""
    from helpers.checkpoint import load_weights
    from helpers.results import default_run_dir

    folder = default_run_dir(profile, run_dir)
    found = [folder / name for name in names if (folder / name).exists()]
    if not weights and not found:
        raise InputError(
            f"{folder}: no trained {kind} here; run `deepcolor run` first or give --weights"
        )
    path = Path(weights) if weights else found[0]
    net, metadata = load_weights(path)
    if (metadata["network"] == "regressor") != (kind == "regressor"):
        raise InputError(
            f"{path}: holds a {metadata['network']}; this command needs a {kind}"
        )
    return net


def _photographs(inputs: tuple[str, ...]):
    """(name, image_bgr) of each photograph; unreadable ones are named at the end."""
    from helpers.images import UnreadableImage, decode_image, open_source, read_image

    unreadable = []
    for given in map(Path, inputs):
        if given.is_file() and given.suffix.lower() != ".zip":
            yield given.name, read_image(given)
            continue
        source = open_source(given)
        for name in source.names:
            try:
                yield name, decode_image(source.read(name))
            except UnreadableImage as error:
                unreadable.append(f"{name!r} ({error})")
    if unreadable:
        raise WorkFailed(f"cannot read {', '.join(unreadable)}; the others are done")
