"""The command `fastdl`."""

import re
import subprocess
import sys

import numpy as np
import pytest

import fastdl
from fastdl import cli
from fastdl.assignments import linear, mnist


def run(*arguments):
    """The exit code of the command."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def table(output):
    """The rows of a printed table: what -> (known, ours, seconds), cut where its header says."""
    lines = output.splitlines()
    header = next(line for line in lines if line.startswith("what"))
    starts = [header.index(name) for name in ("what", "known result", "ours")]
    end = header.rindex("seconds")
    rows = {}
    for line in lines[lines.index(header) + 2 :]:
        if not line:
            break
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], end], strict=True)]
        rows[cells[0]] = (cells[1], cells[2], line[end:].strip())
    return rows


# --------------------------------------------------------------------------------------------- demo


def test_demo_linear(tmp_path, capsys, monkeypatch):
    animated = []
    monkeypatch.setattr(linear, "animate", lambda path, *_, **__: animated.append(path.name))
    assert run("demo", "linear", "--out", tmp_path, "--seed", 7) == 0
    rows = table(capsys.readouterr().out)
    assert rows["points of class 1"] == ("about 62 %", "63 %", "")
    known, ours, _ = rows["squares and product of 2.61, -1.28"]
    assert ours == known
    X, y = linear.load_circle()
    features = linear.expand(X)
    for name, loop in (("SGD", linear.sgd), ("Momentum", linear.momentum)):
        known, ours, seconds = rows[f"{name}: loss at the end"]
        w, _ = loop(features, y, seed=7)
        assert ours == f"{linear.compute_loss(features, y, w):.6f}"
        assert known.startswith(f"{ours} (NumPy loop, ")
        assert float(seconds) > 0
    assert animated == ["sgd.gif", "momentum.gif", "rmsprop.gif"]
    pictures = {path.name for path in (tmp_path / "linear").iterdir()}
    assert pictures == {"data.png", "sgd.png", "momentum.png", "rmsprop.png"}


def test_demo_planar(tmp_path, capsys):
    assert run("demo", "planar", "--out", tmp_path) == 0
    rows = table(capsys.readouterr().out)
    assert rows["logistic regression: accuracy"][:2] == ("47 %", "47 %")
    costs = [rows[f"cost after iteration {1000 * i}"][:2] for i in range(8)]
    assert costs[0] == ("0.693048", "0.693048")
    assert costs[7] == ("0.217504", "0.217504")
    assert all(known == ours for known, ours in costs)
    assert rows["3 hidden: accuracy"][:2] == ("90.75 %", "90.75 %")
    assert all(rows[f"{n} hidden: accuracy"][0] == rows[f"{n} hidden: accuracy"][1] for n in (1, 5))
    assert float(rows["accuracy"][1].removesuffix(" %")) >= 90
    pictures = {path.name for path in (tmp_path / "planar").iterdir()}
    assert pictures == {
        "data.png",
        "decision_boundary.png",
        "hidden_sizes.png",
        "learning_rates.png",
        "logistic_regression.png",
    }


def test_demo_planar_without_scikit_learn_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    assert run("demo", "planar", "--out", tmp_path) == 0
    known, ours, _ = table(capsys.readouterr().out)["logistic regression: accuracy"]
    assert known == "47 %"
    assert "fastdl-kernels[sklearn]" in ours


@pytest.fixture
def blocks(monkeypatch):
    """In MNIST's place: digit k is a bright block at place k, under noise."""
    random = np.random.default_rng(0)

    def part(n):
        labels = np.arange(n) % 10
        images = random.uniform(0, 0.3, (n, 28, 28)).astype(np.float32)
        for image, label in zip(images, labels, strict=True):
            image[4 + 10 * (label // 5) :, 5 * (label % 5) :][:6, :5] += 0.7
        return images, labels

    data = part(3000), part(400), part(300)
    monkeypatch.setattr(mnist, "load_data", lambda: data)
    return data


def test_demo_mnist(blocks, tmp_path, capsys):
    assert run("demo", "mnist", "--out", tmp_path, "--epochs", 3, "--seed", 1) == 0
    rows = table(capsys.readouterr().out)
    assert rows["training, validation and test images"][1] == "3,000 + 400 + 300"
    assert rows["parameters"][:2] == ("134,794", "134,794")
    known, ours, seconds = rows["validation accuracy, best of 3 epochs"]
    assert known == "above 97.5 % (97.61 %)"
    assert float(ours.removesuffix(" %")) > 90
    assert float(seconds) > 0
    known, keras, _ = rows["the same weights in Keras: its evaluate"]
    assert keras == ours
    pictures = {path.name for path in (tmp_path / "mnist").iterdir()}
    assert pictures == {"digits.png", "learning_curves.png", "weights.png"}


def test_demo_mnist_without_keras_says_so(blocks, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    assert run("demo", "mnist", "--out", tmp_path, "--epochs", 1) == 0
    rows = table(capsys.readouterr().out)
    assert "validation accuracy, best of 1 epoch" in rows
    assert "fastdl-kernels[keras]" in rows["the same weights in Keras: its evaluate"][1]


def test_demo_mnist_fast(blocks, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("demo", "mnist", "--fast") == 0
    rows = table(capsys.readouterr().out)
    seconds = []
    for seed in range(5):
        known, ours, time = rows[f"seed {seed}: validation accuracy"]
        assert known == "above 97.5 % in 1 s"
        network = mnist.build_network(seed=seed)
        accuracies = mnist.train_fast(network, blocks)
        assert ours == f"{100 * accuracies[-1]:.2f} % ({len(accuracies)} validations)"
        seconds.append(float(time))
    assert float(rows["median"][2]) == sorted(seconds)[2]
    assert rows["under 1 s"][1] == f"{sum(time < 1 for time in seconds)} of 5"
    assert not (tmp_path / "out").exists()


def test_demo_runs_all_of_them_unless_told(tmp_path, capsys, monkeypatch):
    ran = []
    demos = {name: lambda folder, *_: ran.append(folder) for name in ("linear", "planar", "mnist")}
    monkeypatch.setattr(cli, "_DEMOS", demos)
    assert run("demo", "--out", tmp_path) == 0
    assert ran == [tmp_path / "linear", tmp_path / "planar", tmp_path / "mnist"]


@pytest.mark.parametrize("error", [RuntimeError("MNIST was not found"), ImportError("no tqdm")])
def test_a_demo_that_fails_says_why(tmp_path, capsys, monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(mnist, "load_data", fail)
    assert run("demo", "mnist", "--out", tmp_path) == 1
    assert capsys.readouterr().err == f"fastdl demo: {error}\n"


def test_ctrl_c_ends_it_quietly(tmp_path, capsys, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist, "load_data", interrupt)
    assert run("demo", "mnist", "--out", tmp_path) == 130
    assert capsys.readouterr().err == ""


# --------------------------------------------------------------------------------------------- info


def test_info(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTDL_CACHE", str(tmp_path))
    assert run("info") == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines)
    assert facts["fastdl"] == fastdl.__version__
    assert facts["NumPy"] == np.__version__
    assert facts["CPU level"].startswith(f"{fastdl.backends.cpu_level()} (built: ")
    assert facts["backend"] == f"{fastdl.get_backend()} (available: reference, cython, numba)"
    assert facts["cache folder"] == str(tmp_path)


def test_info_tells_how_many_threads_there_may_be(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run("info") == 0
    assert "threads       up to 1, where" in capsys.readouterr().out


def test_info_without_compiled_module_or_numba(capsys, monkeypatch):
    def missing():
        raise ImportError("not here")

    for name in ("cython", "numba"):
        monkeypatch.setitem(fastdl.backends._IMPORTERS, name, missing)
        monkeypatch.delitem(fastdl.backends._modules, name, raising=False)
    monkeypatch.setattr(fastdl.backends, "_default", "reference")
    assert run("info") == 0
    output = capsys.readouterr().out
    assert "no compiled module" in output
    assert "reference (available: reference)" in output


def test_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "fastdl", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"fastdl {fastdl.__version__}\n"


# ------------------------------------------------------------------------------------------ predict


def saved(folder, weights, **settings):
    """The path of a network of one layer, saved."""
    weights = np.array(weights, dtype=float)
    network = fastdl.MLP(weights.shape, **settings)
    network.set_weights([weights, np.zeros(weights.shape[1])])
    network.save(folder / "model.safetensors")
    return folder / "model.safetensors"


ROWS = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]]


@pytest.fixture(params=["npy", "csv"])
def rows(request, tmp_path):
    path = tmp_path / f"rows.{request.param}"
    if request.param == "npy":
        np.save(path, np.array(ROWS))
    else:
        path.write_text("".join(f"{a},{b}\n" for a, b in ROWS))
    return path


@pytest.mark.parametrize(
    ("weights", "settings", "expected"),
    [
        ([[2, 1, 0], [0, 1, 3]], {}, ["0", "2", "2"]),
        ([[2], [-1]], {}, ["1", "0", "0"]),
        ([[2], [-1]], {"output_activation": "linear"}, ["1", "0", "0"]),
        ([[2, -1], [-1, 1]], {"loss": "binary_crossentropy"}, ["1 0", "0 1", "0 1"]),
        ([[2], [0.5]], {"loss": "mse"}, ["2.0", "0.5", "-1.75"]),
        ([[2, 1], [0.5, 4]], {"loss": "mse"}, ["2.0 1.0", "0.5 4.0", "-1.75 1.0"]),
    ],
    ids=["classes", "yes or no", "logits", "several yes or no", "value", "values"],
)
def test_predict(tmp_path, rows, weights, settings, expected, capsys):
    assert run("predict", saved(tmp_path, weights, **settings), rows) == 0
    assert capsys.readouterr().out.splitlines() == expected


def test_predict_takes_images(tmp_path, capsys):
    np.save(tmp_path / "images.npy", np.array(ROWS).reshape(3, 1, 2))
    model = saved(tmp_path, [[2, 0], [0, 3]])
    assert run("predict", model, tmp_path / "images.npy") == 0
    assert capsys.readouterr().out.split() == ["0", "1", "1"]


def test_predict_takes_a_byte_order_mark(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("1,0\n0,1\n", encoding="utf-8-sig")
    assert run("predict", saved(tmp_path, [[2, 0], [0, 3]]), tmp_path / "rows.csv") == 0
    assert capsys.readouterr().out.split() == ["0", "1"]


@pytest.mark.parametrize(
    ("weights", "settings", "expected"),
    [
        ([[2, 1, 0], [0, 1, 3]], {}, ["nan", "2"]),
        ([[2], [1]], {}, ["nan", "1"]),
        ([[2, -1], [-1, 1]], {"loss": "binary_crossentropy"}, ["nan nan", "0 1"]),
    ],
    ids=["classes", "yes or no", "several yes or no"],
)
def test_predict_knows_no_class_of_what_is_not_known(tmp_path, weights, settings, expected, capsys):
    np.save(tmp_path / "rows.npy", [[np.nan, 1], [0, 1]])
    assert run("predict", saved(tmp_path, weights, **settings), tmp_path / "rows.npy") == 0
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npy", None, "No such file or directory"),
        ("rows.txt", b"1,2\n", "the name does not end in .npy or .csv"),
        ("wide.csv", b"1,2,3\n", "3"),
        ("words.csv", b"a,b\n", "could not convert string 'a' to float64"),
        ("ragged.csv", b"1,2\n1,2,3\n", "number of columns changed"),
        ("empty.csv", b"\n", "there are no rows"),
        ("empty.npy", b"", "EOF"),
        ("zip.npy", b"PK\3\4 and so on", "magic string"),
    ],
)
def test_predict_names_what_is_wrong_with_the_data(tmp_path, capsys, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert run("predict", saved(tmp_path, [[1, 0], [0, 1]]), path) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fastdl predict: argument DATA: {path}: ")
    assert message in line


def test_predict_unpickles_nothing(tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.array([[{}]]), allow_pickle=True)
    assert run("predict", saved(tmp_path, [[1, 0], [0, 1]]), tmp_path / "rows.npy") == 2
    assert "allow_pickle=False" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_predict_names_what_is_wrong_with_the_model(tmp_path, rows, content, capsys):
    path = tmp_path / "foreign.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert run("predict", path, rows) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fastdl predict: argument MODEL: {path}: ")


# ------------------------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "fastdl: the following arguments are required: command"),
        (("train",), "fastdl: argument command: invalid choice: 'train'"),
        (("demo", "cifar"), "fastdl demo: argument assignment: invalid choice: 'cifar'"),
        (("demo", "--epochs", "0"), "'0' is not an integer >= 1"),
        (("demo", "--epochs", "many"), "'many' is not an integer >= 1"),
        (("demo", "--seed", "-1"), r"'-1' is not an integer in \[0, 4294967295\]"),
        (("demo", "linear", "--fast"), "argument --fast: only for the assignment mnist"),
        (("demo", "--fast"), "argument --fast: only for the assignment mnist"),
        (("demo", "mnist", "--fast", "--seed", "0"), "--fast: not allowed with argument --seed"),
        (("demo", "mnist", "--fast", "--epochs", "40"), "--fast: not allowed with .* --epochs"),
        (("demo", "mnist", "--fast", "--out", "x"), "--fast: not allowed with argument --out"),
        (("predict", "model"), "fastdl predict: the following arguments are required: DATA"),
        (("info", "--all"), "unrecognized arguments: --all"),
    ],
)
def test_bad_arguments_take_one_line_and_exit_2(arguments, message, capsys):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert re.search(message, line)


def test_a_folder_that_cannot_be_made_is_a_bad_argument(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run("demo", "linear", "--out", tmp_path / "file") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("fastdl demo: argument --out: ")
