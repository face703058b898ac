import pytest

from helpers.experiments.registry import EXPERIMENTS
from helpers.experiments.study_results import read_study_results
from helpers.files import InputError

RESULTS = """# Results

Images: faces_80.zip 5001 training and 20 validation images.

## Another section

| network | epochs | accuracy |
| --- | ---: | --- |
| report003/other | 3 / 9 | **0.1** |

## The ablation study: R, G, B from gray

| network | epochs | accuracy |
| --- | ---: | --- |
| table gray -> RGB |  | **0.75** [0.7, 0.8] |
| report003/default, seed 1 | 45 / 100 | **0.7152** [0.709, 0.721] |
| report003/default, seed 2 | 26 / 100 | **0.7** |
| report003/tanh | 100 / 100 | **0.74** [0.7, 0.8] |
| report003/tanh | 8 / 100 | **0.71** [0.7, 0.8] |

## The next section

| network | epochs | accuracy |
| --- | ---: | --- |
| report003/later | 3 / 9 | **0.1** |
"""


def test_runs_seeds_and_tables_are_read(tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text(RESULTS)
    runs, tables, images = read_study_results(path)
    assert runs == {
        "default": {
            1: {"accuracy": 0.7152, "epochs": 45},
            2: {"accuracy": 0.7, "epochs": 26},
        },
        "tanh": {1: {"accuracy": 0.74, "epochs": 100}},
    }
    assert tables == {"table gray -> RGB": 0.75}
    assert images == 5001


def test_our_file_has_a_run_of_each_network_of_the_study():
    runs, tables, _ = read_study_results()
    study = {name for name in EXPERIMENTS if name.startswith("report003/")}
    assert {f"report003/{name}" for name in runs} == study
    assert len(tables) == 2
    assert all(0 < accuracy < 1 for accuracy in tables.values())


@pytest.mark.parametrize("text", ["", "# Results\n\n## The ablation study\n\nnone\n"])
def test_a_file_without_the_table_is_refused(tmp_path, text):
    path = tmp_path / "RESULTS.md"
    path.write_text(text)
    with pytest.raises(InputError, match="no results"):
        read_study_results(path)
