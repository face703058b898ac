"""RESULTS.md, written from training runs."""

import copy
import re

import pytest
from click.testing import CliRunner

from helpers.cli import main
from helpers.experiments.leaderboard import leaderboard_page, write_leaderboard
from helpers.experiments.run import train_one
from helpers.files import InputError, write_json

MACHINE = {
    "processor": "a processor", "cores": 4, "threads": 1, "gpu": None,
    "versions": {"torch": "2.13.0"},
}  # fmt: skip


def estimate(mean):
    return {"mean": mean, "low": 0.9 * mean, "high": 1.1 * mean}


def training(name="report000/sigmoid", split="random", mse=4e-4, epochs=12, **row):
    mse = estimate(mse)
    published = {
        "mse": 4.206e-4,
        "network": "report000/sigmoid, 1000 epochs",
        "accuracy": None,
    }
    row = {
        "task": "map", "test_mse": mse, "mean_mse": None, "accuracy": None,
        "single_pass_mse": None, "test_images": 68, "parameters": 863, "gflop": 0.003,
        "passes": 1, "epochs": epochs, "seconds": 700.0, "published": published, **row,
    }  # fmt: skip
    asked = {
        "name": name,
        "profile": "full",
        "split": split,
        "seed": 4,
        "epochs": epochs,
    }
    data = {"source": "faces.zip", "hash": "a1", "synthetic": False, "split": split}
    data |= {"training_images": 607, "test_images": 68}
    return {
        "parameters": asked, "data": data, "networks": {name: row},
        "environment": MACHINE, "finished": "2026-01-02",
    }  # fmt: skip


def lines_with(page, text):
    return [line for line in page.splitlines() if text in line]


def test_both_splits_and_the_published_figure_stand_in_one_row():
    page = leaderboard_page([training(), training(split="groups", mse=5e-4)])
    (line,) = lines_with(page, "| report000/sigmoid |")
    assert "| 12 / 1000 |" in line and "| 12 min |" in line
    assert line.index("4.000e-04") < line.index("5.000e-04") < line.index("4.206e-04")
    assert line.endswith(f"| {4e-4 / 4.206e-4:.2f} |")


def test_a_network_without_random_split_has_no_ratio():
    (line,) = lines_with(
        leaderboard_page([training(split="groups")]), "| report000/sigmoid |"
    )
    assert "|  | **4.000e-04**" in line and line.endswith(
        "| 4.206e-04 (report000/sigmoid, 1000 epochs) |  |"
    )


def test_another_number_of_epochs_is_another_row():
    page = leaderboard_page([training(epochs=12), training(epochs=30)])
    assert len(lines_with(page, "| report000/sigmoid |")) == 2


def test_a_fine_tuned_network_is_another_row_that_names_its_start():
    tuned = training(mse=1e-5)
    tuned["parameters"]["start"] = "portrait"
    page = leaderboard_page([training(mse=4e-4), tuned])
    assert "4.000e-04" in lines_with(page, "| report000/sigmoid |")[0]
    assert "1.000e-05" in lines_with(page, "| report000/sigmoid from portrait |")[0]


def test_each_set_of_images_has_its_own_reference():
    def runs(name, data_hash, mse, start=""):
        for seed in (4, 5):
            run = training(name, mse=mse)
            run["parameters"] |= {"seed": seed, "start": start}
            run["data"] |= {"hash": data_hash, "source": f"{data_hash}.zip"}
            yield run

    each = [("a", 4e-4), ("b", 1e-4)]
    trainings = [x for data, mse in each for x in runs("best/plain", data, mse)]
    trainings += [x for data, mse in each for x in runs("maps/3", data, 1.1 * mse)]
    trainings += runs("best/plain", "b", 2e-4, "portrait")
    page = leaderboard_page(trainings).partition("## Over several splits")[2]
    assert page.count("+10% (+10%, +10%)") == 2
    assert len(lines_with(page, "| best/plain |")) == 2
    (tuned,) = lines_with(page, "| best/plain from portrait |")
    assert "+100% (" in tuned


def test_a_split_by_folders_has_a_column_of_its_own():
    page = leaderboard_page([training(split="folders"), training("maps/3")])
    assert "| folders train and val |" in page
    assert "4.000e-04" in lines_with(page, "| report000/sigmoid |")[0]
    assert "folders train and val" not in leaderboard_page([training()])


def test_a_baseline_fitted_to_fewer_images_is_another_row():
    few, all_images = training(), training()
    few["parameters"]["profile"] = "quick"
    for run, mse in ((few, 9e-4), (all_images, 4e-4)):
        run["baselines"] = {"table": training(mse=mse)["networks"]["report000/sigmoid"]}
    page = leaderboard_page([few, all_images])
    assert "9.000e-04" in lines_with(page, "| table, profile quick |")[0]
    assert "4.000e-04" in lines_with(page, "| table |")[0]


def test_another_seed_is_another_row_that_names_it():
    other, another = training(), training()
    other["parameters"]["seed"], another["parameters"]["seed"] = 7, 8
    page = leaderboard_page([other, another])
    assert len(lines_with(page, "| report000/sigmoid, seed 7 |")) == 1
    assert len(lines_with(page, "| report000/sigmoid, seed 8 |")) == 1
    assert len(lines_with(leaderboard_page([other]), "| report000/sigmoid |")) == 1


def test_trainings_on_other_photographs_are_kept_apart():
    other = training(mse=1e-4)
    other["data"] |= {"hash": "b2", "source": "album.zip"}
    page = leaderboard_page([training(mse=4e-4), other])
    lines = lines_with(page, "| report000/sigmoid on ")
    assert len(lines) == 2
    assert "4.000e-04" in lines_with(page, "sigmoid on faces.zip")[0]
    assert "1.000e-04" in lines_with(page, "sigmoid on album.zip")[0]


def test_the_figure_of_a_single_pass_stands_beside_that_of_two():
    page = leaderboard_page([training(single_pass_mse=estimate(4.5e-4), passes=2)])
    (line,) = lines_with(page, "| report000/sigmoid |")
    assert line.index("4.000e-04") < line.index("4.500e-04") < line.index("4.206e-04")


def test_the_study_shows_its_accuracy_and_the_difference():
    accuracy = {"mean": 0.75, "low": 0.74, "high": 0.76}
    published = {"mse": 0.0105, "network": "report 003, 65 epochs", "accuracy": 0.712}
    page = leaderboard_page(
        [
            training("report003/default", mse=0.01, task="rgb", accuracy=accuracy,
                     published=published)
        ]
    )  # fmt: skip
    (line,) = lines_with(page, "| report003/default |")
    assert "| 0.01000 | **0.7500** [0.740, 0.760] |" in line
    assert line.endswith("| +0.0380 |")


def test_tables_fitted_to_fewer_images_of_the_study_have_their_own_rows():
    row = training("report003/default", task="rgb")["networks"]["report003/default"]
    runs = [training("report003/default", task="rgb") for _ in range(2)]
    runs[1]["parameters"]["profile"] = "standard"
    for run, mse in zip(runs, (0.010, 0.012), strict=True):
        run["baselines"] = {"table": row | {"epochs": 0, "test_mse": estimate(mse)}}
    page = leaderboard_page(runs)
    assert "1.000e-02" in lines_with(page, "| table, profile full |")[0]
    assert "1.200e-02" in lines_with(page, "| table, profile standard |")[0]


def test_different_numbers_of_images_are_given_as_a_range():
    runs = [training(split="groups", epochs=epochs) for epochs in (1, 2)]
    runs[1]["data"]["test_images"] = 60
    page = leaderboard_page(runs)
    assert "- faces.zip: 607 training and 60 to 68 test images, split groups" in page


def test_every_figure_has_its_command_date_and_machine():
    page = leaderboard_page([training(), training(split="groups")])
    commands = lines_with(page, "`deepcolor train report000/sigmoid")
    assert len(commands) == 2
    assert "--split groups --seed 4 --epochs 12` | 2026-01-02 | A |" in commands[1]
    assert "machine A: a processor, 4 cores, no GPU, torch 2.13.0" in page


def test_rows_stand_in_the_order_of_the_experiments():
    names = ["report001/tanh", "maps/3", "report000/relu"]
    page = leaderboard_page([training(name) for name in names])
    found = re.findall(r"^\| ([a-z\d]+/[a-z\d]+) \|", page, re.M)
    assert found == ["maps/3", "report000/relu", "report001/tanh"]


def test_portraits_are_refused(tmp_path):
    wrong = copy.deepcopy(training())
    wrong["data"]["synthetic"] = True
    write_json(tmp_path / "train/x/metrics.json", wrong)
    with pytest.raises(InputError, match="trained on the synthetic portraits"):
        write_leaderboard([tmp_path], tmp_path / "RESULTS.md")
    assert not (tmp_path / "RESULTS.md").exists()


def test_a_page_of_results_is_renewed_and_another_file_is_not(tmp_path):
    write_json(tmp_path / "train/x/metrics.json", training())
    page, other = tmp_path / "RESULTS.md", tmp_path / "README.md"
    other.write_text("# My work\n")
    write_leaderboard([tmp_path], page)
    before = page.read_text()
    legend = "## How to read the tables\n"
    before = before.replace(legend, f"{legend}\nMy own note.\n")
    page.write_text(f"{before}\n## What was tried\n\nBy hand.\n")
    write_leaderboard([tmp_path], page)
    assert page.read_text() == f"{before}\n## What was tried\n\nBy hand.\n"
    assert "My own note." in before
    with pytest.raises(InputError, match="is not a results page"):
        write_leaderboard([tmp_path], other)
    assert other.read_text() == "# My work\n"


def test_a_training_of_an_older_version_is_named(tmp_path):
    old = training()
    del old["environment"]
    write_json(tmp_path / "train/x/metrics.json", old)
    with pytest.raises(InputError, match=r"metrics\.json: written by an older version"):
        write_leaderboard([tmp_path], tmp_path / "RESULTS.md")


def test_an_empty_folder_is_refused(tmp_path):
    result = CliRunner().invoke(main, ["results", str(tmp_path)])
    assert result.exit_code == 2 and "no training runs here" in result.output


@pytest.mark.parametrize("name", ["maps/3", "report003/2,3,2,0.07"])
def test_it_reads_what_a_training_writes(name, faces, tmp_path):
    train_one(name, images=str(faces), epochs=1, run_dir=str(tmp_path))
    page = write_leaderboard([tmp_path], tmp_path / "RESULTS.md").read_text()
    assert len(lines_with(page, f"| {name} |")) == 1
    table = "table L -> ab" if name == "maps/3" else "table gray -> RGB"
    assert len(lines_with(page, f"| {table} |  |  |  |  | ")) == 1
    assert f"`deepcolor train {name} --profile quick" in page


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    from helpers.data.portraits import write_portraits

    folder = tmp_path_factory.mktemp("faces")
    write_portraits(folder, num_sitters=4, shots=3)
    return folder


def several(name, errors, split="random", **more):
    trainings = []
    for seed, mse in errors.items():
        one = training(name, split, mse, mean_mse=estimate(mse / 4), **more)
        one["parameters"]["seed"] = seed
        one["baselines"] = {"gray": {**one["networks"][name], "epochs": 0}}
        trainings.append(one)
    return trainings


def test_several_splits_have_their_means_and_the_change_against_the_plain_recipe():
    plain = several("best/plain", {0: 2e-4, 4: 1e-4, 7: 9e-4})
    ours = several("best/scratch", {0: 1e-4, 4: 0.8e-4})
    page = leaderboard_page([*plain, *ours])
    above, below = page.split("## Over several splits")
    assert len(lines_with(above, "| best/scratch")) == 1, (
        "the usual split stands for all"
    )
    assert "8.000e-05" in lines_with(above, "| best/scratch")[0]
    assert len(lines_with(above, "| gray |")) == 1
    (line,) = lines_with(below, "| best/scratch |")
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[3] == "2 + 0"
    assert cells[4] == "**9.00e-05** (8.00e-05 to 1.00e-04)"
    assert cells[5] == "", "no figure with a single pass"
    assert cells[6] == "**2.25e-05** (2.00e-05 to 2.50e-05)"
    assert cells[7] == "-40% (-50%, -20%)"
    (line,) = lines_with(below, "| best/plain |")
    assert "**4.00e-04** (1.00e-04 to 9.00e-04)" in line and "%" not in line
    assert lines_with(below, "| gray |")


def test_a_regressor_is_not_compared_with_the_plain_colorizer():
    plain = several("best/plain", {0: 2e-4, 4: 1e-4})
    ours = several("best/mean", {0: 2e-5, 4: 2e-5}, task="mean")
    below = leaderboard_page([*plain, *ours]).split("## Over several splits")[1]
    (line,) = lines_with(below, "| best/mean |")
    assert "2.00e-05" in line and "%" not in line


def test_splits_are_compared_with_those_of_their_own_kind():
    plain = several("best/plain", {0: 2e-4, 4: 1e-4})
    plain += several("best/plain", {0: 4e-4, 4: 4e-4}, split="groups")
    ours = several("best/muon", {0: 3e-4, 4: 3e-4}, split="groups")
    below = leaderboard_page([*plain, *ours]).split("## Over several splits")[1]
    (line,) = lines_with(below, "| best/muon |")
    assert "-25% (-25%, -25%)" in line and line.count("%") == 3
    assert "| 0 + 2 |" in line


def test_one_split_has_no_section_of_means():
    assert "several splits" not in leaderboard_page([training()])
