"""Tests of the benchmark; none of them depends on real timings."""

import json

import pytest
import torch
from click.testing import CliRunner

from helpers.apps import bench, bench_runners
from helpers.apps.bench import BENCHES, Variant, costs, measure, table, variants
from helpers.cli import main
from helpers.files import read_json
from helpers.training.execution import PLAIN, Execution

SMALL = Variant(
    "small", "colorizer", {"maps": 2, "num_down": 2}, 4, size=16, num_images=12
)


@pytest.fixture
def quick(monkeypatch):
    """Skip the execution measurements and the separate processes."""
    chosen = Execution(channels_last=True)
    monkeypatch.setattr(bench, "choose_execution", lambda *_, **__: chosen)
    monkeypatch.setattr(bench, "free_cores", lambda: 1)


@pytest.mark.parametrize("name", BENCHES)
def test_each_row_changes_one_thing_against_the_last_that_was_kept(quick, name):
    rows = variants(name)
    last = rows[0]
    assert rows[0].execution is None
    for row in rows[1:]:
        before, after = vars(last), vars(row)
        changed = {k for k in before if before[k] != after[k]} - {"name", "kept"}
        changed -= {"options"} if "network" in changed else set()
        assert len(changed) == 1, (row.name, changed)
        if changed == {"execution"} and last.execution:
            forms = vars(last.execution), vars(row.execution)
            assert sum(forms[0][k] != forms[1][k] for k in forms[0]) == 1
        if row.kept:
            last = row
    assert any(row.name == "channels_last" and row.kept for row in rows)
    assert any(row.name == "fused optimizer" and not row.kept for row in rows)
    assert rows[-1].name == "compiled loops"


def test_the_first_row_is_the_loop_of_the_earlier_reports(quick):
    runner = bench_runners.Runner(variants("sigmoid")[0])
    minibatch = next(runner._report_batches())
    assert minibatch.L.dtype == minibatch.ab.dtype == torch.float32
    assert len(minibatch) == 100
    assert any(isinstance(m, torch.nn.MaxPool2d) for m in runner.net.modules())


@pytest.mark.parametrize("data", ["loader", "fixed"])
@pytest.mark.parametrize("execution", [None, PLAIN, Execution(fused=True)], ids=str)
def test_every_row_really_trains(data, execution):
    variant = Variant("x", "colorizer", SMALL.options, 4, data, execution, size=16)
    runner = bench_runners.Runner(variant)
    before = [p.clone() for p in runner.net.parameters()]
    assert runner.seconds(2)[0] > 0
    parameters = zip(before, runner.net.parameters(), strict=True)
    assert all(not torch.equal(b, p) for b, p in parameters)


@pytest.mark.parametrize("steps", [1, 3])
def test_our_loop_is_timed_as_fit_runs_it_and_the_warm_up_is_left_out(
    steps, monkeypatch
):
    def fit(net, data, recipe, execution):
        assert (len(data.train), recipe.num_epochs) == (4, steps + 1)
        return {"seconds": [100.0] + [0.5] * steps}

    monkeypatch.setattr(bench_runners, "fit", fit)
    assert bench_runners.Runner(SMALL).seconds(steps) == [0.5 * steps]


def test_rows_are_timed_in_turn_and_compared_within_a_repeat(monkeypatch):
    order = []

    class Fake:
        def __init__(self, variant):
            self.variant = variant

        def seconds(self, steps):
            order.append(self.variant.name)
            slowness = 2.0 if len(order) > 4 else 1.0  # the machine becomes busy
            return [slowness * steps * {"a": 0.4, "b": 0.1}[self.variant.name]]

    monkeypatch.setattr(bench_runners, "Runner", Fake)
    monkeypatch.setattr(bench, "peak_memories", lambda rows: [1, 2])
    rows = [Variant(n, "colorizer", {}, 8) for n in "ab"]
    first, second = measure(rows, repeats=4, steps=2, threads=[1])
    assert order == list("ab") * 4
    (first_speed,), (second_speed,) = (
        first["speeds"].values(),
        second["speeds"].values(),
    )
    assert first_speed["ratio"] == 1.0
    assert second_speed["ratio"] == pytest.approx(4.0)
    assert (first_speed["low"], first_speed["high"]) == pytest.approx((10, 20))
    assert second_speed["images_per_second"] == pytest.approx(60)
    assert second["peak_memory"] == 2


def test_every_number_of_threads_is_measured_and_put_back():
    before = torch.get_num_threads()
    (row,) = measure([SMALL], repeats=2, steps=1, threads=[1, 2])
    assert list(row["speeds"]) == [1, 2]
    for found in row["speeds"].values():
        assert 0 < found["low"] <= found["images_per_second"] <= found["high"]
        assert found["flop_share"] > 0 and found["byte_share"] > 0
    assert torch.get_num_threads() == before


def test_the_costs_of_training_are_those_of_the_layers():
    row = Variant("", "stack", {"layers": 2, "kernel": 5, "maps": 4}, 8)
    flop, traffic = bench.training_costs(row)
    assert flop == pytest.approx(3 * 2 * 80 * 80 * 25 * (4 + 4 * 3))
    assert traffic == 4 * 4 * 80 * 80 * (4 + 3)


def test_several_processes_count_the_images_of_all():
    one, two = measure(
        [SMALL, Variant(**{**vars(SMALL), "name": "two", "processes": 2})], 2, 1
    )
    assert one["peak_memory"] > 50 * 2**20
    assert two["peak_memory"] > 1.5 * one["peak_memory"]
    (speed,) = two["speeds"].values()
    assert speed["images_per_second"] > 0
    from_json = json.loads(json.dumps([one, two]))  # the keys are text now
    assert table(from_json) == table([one, two])
    lines = table([one, two]).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("+ small") and "1.00x" in lines[1]


@pytest.mark.parametrize(
    ("name", "values"), [("num_images", [4, 12]), ("maps", [1, 3]), ("size", [8, 32])]
)
def test_costs_are_measured_against_one_number(name, values):
    found = costs(SMALL, name, values, repeats=1)
    assert list(found) == values
    assert all(seconds > 0 for seconds in found.values())


def test_bench_prints_the_table_and_writes_json(quick, monkeypatch, tmp_path):
    tiny = "unet", {"base": 2, "levels": 2}
    small = {"unet": (*tiny, *tiny, 2)}
    monkeypatch.setattr(bench, "cost_curves", lambda device: {"maps": {"x": {1: 1.0}}})
    monkeypatch.setattr(bench, "BENCHES", small)
    monkeypatch.setattr(bench, "peak_memories", lambda rows: [2**20] * len(rows))
    command = ["bench", "unet", "--repeats", "1", "--steps", "1", "--device", "cpu"]
    command += ["--threads", "1,1"]
    result = CliRunner().invoke(main, [*command, "--run-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "channels_last" in result.output and "1.00x" in result.output
    content = read_json(tmp_path / "bench.json")
    assert content["environment"]["versions"]["torch"]
    (rows,) = content["networks"].values()
    assert {speed["ratio"] for speed in rows[0]["speeds"].values()} == {1.0}
    assert {"speeds", "peak_memory", "variant"} <= set(rows[0])
    assert (tmp_path / "bench.png").exists()


def test_an_unknown_network_is_named():
    result = CliRunner().invoke(main, ["bench", "resnet"])
    assert result.exit_code == 2
    assert "network 'resnet': unknown; did you mean unet?" in result.output
    result = CliRunner().invoke(main, ["bench", "--threads", "1,x"])
    assert "--threads 1,x: write whole numbers" in result.output
