import numpy as np
import pytest
import torch
from click.testing import CliRunner

from helpers.cli import main
from helpers.nets import build, evaluation_mode
from helpers.training.weights import save_weights


def run(*arguments):
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def save(path, name, **options):
    torch.manual_seed(0)
    net = build(name, **options)
    if hasattr(net, "last"):
        torch.nn.init.normal_(net.last.weight)
    save_weights(path, net, name, options)
    return net


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("unet", {"base": 4, "unshuffle": 4, "flip_tta": True, "upscale_maps": 4}, 1),
        ("hinted_unet", {"base": 4, "levels": 3, "flip_tta": True}, 4),
        ("colorizer", {"num_down": 3}, 1),
    ],
)
def test_the_graph_equals_the_network_at_any_size(tmp_path, name, options, channels):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net = save(tmp_path / "net.safetensors", name, **options)
    result = run(tmp_path / "net.safetensors", tmp_path / "net.onnx")
    assert result.exit_code == 0, result.output
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    (inputs,) = session.get_inputs()
    for shape in ((1, 64, 64), (3, 128, 96), (2, 160, 256)):
        x = 100 * torch.rand(shape[0], channels, *shape[1:])
        x[:, 3:] = (x[:, 3:] > 95).float()
        with evaluation_mode(net):
            expected = net.predict(x).numpy()
        (ab,) = session.run(["ab"], {inputs.name: x.numpy()})
        assert np.abs(ab - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def test_wrong_input_is_one_line(tmp_path, monkeypatch):
    save(tmp_path / "mean.safetensors", "regressor")
    save(tmp_path / "net.safetensors", "unet", base=2)
    (tmp_path / "old.onnx").write_bytes(b"old")
    for weights, output, said in (
        ("net", "x.txt", "ends in .onnx"),
        ("net", "old.onnx", "old.onnx: exists"),
        ("mean", "x.onnx", "holds a regressor; give a colorizer"),
        ("no", "x.onnx", "no such weights file"),
        ("net", "old.onnx/x.onnx", "cannot write"),
    ):
        result = run(tmp_path / f"{weights}.safetensors", tmp_path / output)
        assert result.exit_code == 2 and said in result.output
        assert result.output.count("\n") == 1
    assert (tmp_path / "old.onnx").read_bytes() == b"old"
    monkeypatch.setattr("helpers.apps.export.find_spec", lambda name: None)
    assert "export needs onnx" in run(tmp_path / "net.safetensors", "x.onnx").output
