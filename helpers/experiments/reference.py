"""Reference runs: long training runs whose results are kept in reference/.

reference/<set>/<network>.json              history, results, baselines, machine, command
reference/portraits/<network>.safetensors  the weights, if they are small

The sets are the drawn portraits and the course's photographs; no image of the photographs
and no weights trained on them are kept here. The notebooks show these runs next to the
reader's own.
"""

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import nets
from helpers.data.faces import PORTRAITS
from helpers.experiments.registry import DEFAULT_SEED
from helpers.experiments.run import folder_of, train_one
from helpers.experiments.run_folder import default_run_dir
from helpers.experiments.tables import Row
from helpers.files import PROJECT, InputError, read_json, write_json
from helpers.training.state import History
from helpers.training.weights import load_weights

REFERENCE = PROJECT / "reference"
SETS = ("portraits", "photographs")
MAX_BYTES = 600_000  # larger weights are not kept
DIGITS = 5  # significant digits in a history


@dataclass(frozen=True)
class Reference:
    """A reference run.

    row        the results on the test set
    history    one number per epoch: epoch, lr, seconds, train_mse, test_mse, ...
    baselines  the row of each baseline on the same test set, by name
    command    how to train it again;  machine  the processor;  finished  the date
    """

    name: str
    row: Row
    history: History
    baselines: dict[str, Row]
    command: str
    machine: str
    finished: str
    weights: Path

    def load_net(self) -> nets.ChrominanceNet:
        """Return the trained network. Raises InputError if its weights are not kept."""
        if not self.weights.is_file():
            raise InputError(f"{self.weights}: not kept; run `{self.command}`")
        return load_weights(self.weights)[0]

    def __str__(self) -> str:
        # A machine that pauses makes single epochs long, so the sum would mislead.
        minutes = self.row.epochs * statistics.median(self.history["seconds"]) / 60
        return (
            f"{self.name}: {self.row.epochs} epochs, about {minutes:.0f} min on one core "
            f"of {self.machine}, {self.finished}"
        )


def make_reference(
    name: str,
    *,
    profile: str = "full",
    images: str = "",
    split: str = "random",
    seed: int = DEFAULT_SEED,
    epochs: int = 0,
    device: str = "auto",
    run_dir: str = "",
    log: Callable[[str], None] = print,
) -> Path:
    """Train a network, or take its finished run, and keep the results in reference/.

    The parameters are those of `train_one`. Returns the new file.
    """
    how = {"profile": profile, "images": images, "split": split, "seed": seed}
    how |= {"epochs": epochs, "device": device, "run_dir": run_dir}
    train_one(name, **how, log=log)
    folder = folder_of(default_run_dir(profile, run_dir), name, seed)
    content = read_json(folder / "metrics.json")
    drawn = content["data"]["synthetic"]
    source = PORTRAITS if drawn else content["data"]["source"]
    path = file_of(name, SETS[0] if drawn else SETS[1])
    epochs = content["parameters"]["epochs"]
    content["command"] = (
        f"deepcolor reference {name} --profile {profile} --images {source} "
        f"--split {split} --seed {seed} --epochs {epochs}"
    )
    content["history"] = {
        key: [float(f"{value:.{DIGITS}g}") for value in values]
        for key, values in content["history"].items()
    }
    write_json(path, content, indent=None)
    weights = folder / "weights.safetensors"
    kept = path.with_suffix(".safetensors")
    if drawn and weights.stat().st_size <= MAX_BYTES:
        shutil.copyfile(weights, kept)
    else:
        kept.unlink(missing_ok=True)  # of an earlier run
    log(f"wrote {path.relative_to(PROJECT)}")
    return path


def load_reference(name: str, images: str = SETS[0]) -> Reference:
    """Load a reference run on the "portraits" or the "photographs".

    Raises InputError with the command that makes it, if there is none.
    """
    path = file_of(name, images)
    if not path.is_file():
        raise InputError(
            f"reference/: no run of {name} on {images}; run "
            f"`deepcolor reference {name} --images ...`"
        )
    content = read_json(path)
    return Reference(
        name,
        Row.from_json(content["networks"][name]),
        content["history"],
        {key: Row.from_json(row) for key, row in content["baselines"].items()},
        content["command"],
        content["environment"]["processor"],
        content["finished"],
        path.with_suffix(".safetensors"),
    )


def load_references(names: Sequence[str], images: str = SETS[0]) -> dict:
    """Load several reference runs, by name; see `load_reference`."""
    return {name: load_reference(name, images) for name in names}


def file_of(name: str, images: str) -> Path:
    """Return the file of a reference run, see the module's docstring."""
    return REFERENCE / images / f"{name.replace('/', '_')}.json"
