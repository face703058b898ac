"""Run again what a results file claims, and compare.

A results file is results.json of a run folder, the metrics.json of one training run, or a
file in reference/. The same seed, split and protocol are used; the data must be the same.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from helpers.apps.runner import run_notebooks
from helpers.data.faces import PORTRAITS, FaceSet, load_faces
from helpers.evaluation.task import TASKS
from helpers.experiments.profiles import get_profile
from helpers.experiments.run import folder_of, train_one
from helpers.experiments.run_folder import environment
from helpers.files import InputError, WorkFailed, free_cores, read_json, user_path

TOLERANCE = 0.1  # relative; see README, Guarantees: training differs between machines
COMPARED = ("python", "processor", "threads", "gpu")


def reproduce(
    file: Path,
    *,
    only: str = "",
    images: str = "",
    run_dir: str = "",
    log: Callable[[str], None] = print,
) -> None:
    """Run again what `file` claims; print each claimed error beside the reproduced one.

    only     one network, or one notebook by its name or number; by default, all
    images   where the images are now; by default, as the file names them
    run_dir  new folder for the results; by default, a scratch folder

    Raises InputError if the file claims nothing of that name, `run_dir` holds results, or
    the images differ, and WorkFailed if an error differs from the claimed one by more than
    `TOLERANCE`.
    """
    file = user_path(file)
    if file.is_dir():
        file /= "results.json"
    content = read_json(file)
    try:
        claims = dict(claims_of(content, only))
        for metrics in _metrics(content).values():
            metrics["parameters"]["profile"], metrics["data"]["hash"]
        if "notebooks" not in content:
            content["parameters"]["name"], content["parameters"]["seed"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: not a results file; give results.json of a run folder"
        ) from error
    if not claims:
        raise InputError(f"{file}: claims nothing about {only or 'any network'}")
    if run_dir and (kept := list(user_path(run_dir).rglob("metrics.json"))):
        raise InputError(f"{kept[0]}: exists; choose a new folder for --run-dir")
    before = content.get("environment") or _beside(file, "environment.json")
    jobs = before.get("jobs", 1)  # notebooks at a time
    for line in differences(before, jobs):
        log(line)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(run_dir or scratch)
        again = _again(content, claims, folder, images, jobs, log)
    missed = list(_compare(claims, again, log))
    if missed:
        raise WorkFailed(
            f"{len(missed)} of {len(claims)} not reproduced within {TOLERANCE:.0%}: "
            f"{', '.join(missed)}"
        )
    log(f"all {len(claims)} errors are reproduced within {TOLERANCE:.0%}")


def claims_of(content: Mapping, only: str = "") -> Iterator[tuple[str, float]]:
    """Yield name and test MSE of each claimed result, as "notebook: network"."""
    for notebook, metrics in _metrics(content).items():
        for name, row in metrics["networks"].items():
            if only in ("", name, notebook, notebook[:2]):
                yield (
                    f"{notebook}: {name}" if notebook else name,
                    row["test_mse"]["mean"],
                )


def _metrics(content: Mapping) -> dict[str, dict]:
    """Return the metrics of each notebook, or those of a training run under ""."""
    return content.get("notebooks") or {"": content}


def differences(before: Mapping, jobs: int = 1) -> Iterator[str]:
    """Yield a line for each difference between that machine and this one.

    jobs  the number of kernels that share the cores
    """
    now = environment()
    if jobs > 1:
        now["threads"] = max(1, free_cores() // jobs)
    for name in COMPARED:
        if before.get(name) != now[name]:
            yield f"{name} differs: {before.get(name)} then, {now[name]} now"
    for package, version in before.get("versions", {}).items():
        here = now["versions"].get(package)
        if version != here:
            yield f"{package} differs: {version} then, {here} now"


def _again(
    content: Mapping, claims, folder: Path, images: str, jobs: int, log
) -> dict[str, float]:
    """Run notebooks or trainings again; return the new errors under the same names."""
    if "notebooks" in content:
        return _run_again(content["notebooks"], claims, folder, images, jobs, log)
    given, data = content["parameters"], content["data"]
    source = images or (PORTRAITS if data["synthetic"] else data["source"])
    keys = ("profile", "split", "seed", "epochs", "start")
    how = {key: given[key] for key in keys if key in given}
    _check_data(content, {**given, "images": source})
    train_one(given["name"], **how, images=source, run_dir=str(folder), log=log)
    found = read_json(folder_of(folder, given["name"], given["seed"]) / "metrics.json")
    return dict(claims_of(found))


def _run_again(
    notebooks: Mapping, claims, folder: Path, images: str, jobs: int, log
) -> dict:
    names = sorted({claim.split(":")[0] for claim in claims})
    given = _parameters([notebooks[name]["parameters"] for name in names], images)
    for then in {notebooks[x]["data"]["hash"]: notebooks[x] for x in names}.values():
        _check_data(then, given)
    text = {key: str(value) for key, value in given.items() if key != "run_dir"}
    run_notebooks(folder, text, only=names, jobs=jobs, log=log)
    return dict(claims_of(read_json(folder / "results.json")))


def _parameters(each: list[Mapping], images: str) -> dict:
    """Join the parameters of the notebooks, with `images` in place of theirs if given."""
    given = {}
    for parameters in each:
        parameters = {**parameters, **({"images": images} if images else {})}
        for key, value in parameters.items():
            if given.setdefault(key, value) != value and key != "run_dir":
                raise InputError(
                    f"{key} is {given[key]!r} in one notebook and {value!r} in another; "
                    "choose one of them with --only"
                )
    return given


def _faces(metrics: Mapping, given: Mapping) -> FaceSet:
    """Load the images of a notebook; the ablation study has its own, at its own size."""
    is_study = any(row.get("task") == "rgb" for row in metrics["networks"].values())
    source = (is_study and given.get("faces_80")) or given["images"]
    task = TASKS["rgb" if is_study else "map"]
    return load_faces(source, size=task.image_size(get_profile(given["profile"])))


def _check_data(metrics: Mapping, given: Mapping) -> None:
    """Compare the images with those of a result, before hours of work."""
    try:
        then, now = metrics["data"], _faces(metrics, given)
    except InputError as error:
        raise InputError(f"{error}; --images tells where the images are") from error
    if then["hash"] != now.data_hash():
        raise InputError(
            f"the images differ: {then['images']} from {then['source']} then, "
            f"{len(now)} from {now.source} now; give the same ones with --images"
        )


def _compare(claims: Mapping, again: Mapping, log) -> Iterator[str]:
    """Print a table; yield the names of the errors that were not reproduced."""
    width = max(map(len, claims))
    log(f"{'test MSE':<{width}}     claimed  reproduced  difference")
    for name, claimed in claims.items():
        found = again.get(name)
        if found is None:
            log(f"{name:<{width}}  {claimed:>10.3e}        none")
            yield name
            continue
        change = found / claimed - 1
        log(f"{name:<{width}}  {claimed:>10.3e}  {found:>10.3e}  {change:>+10.1%}")
        if not abs(change) <= TOLERANCE:
            yield name


def _beside(file: Path, name: str) -> dict:
    path = file.with_name(name)
    return read_json(path) if path.is_file() else {}
