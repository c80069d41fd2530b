"""What other libraries do with our estimators, as far as they are installed.

Run it by ``make test-libraries``, which installs them.
"""

import ast
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from _densities import banana
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.utils.fixes import parse_version
from test_persistence import ESTIMATORS, OTHERS, OWN_SCORE

import skflows
from skflows import DensityOutlierDetector, NSFDensity
from skflows.outlier import PyODDetector

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other libraries
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "user_guide" / "other_libraries.rst"


def snippets(language="python"):
    """Return the code of each section, by its title."""
    parts = re.split(r"^(.+)\n=+\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    code = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        block = rf"^\.\. code-block:: {language}\n((?:\n|   .*\n)+)"
        blocks = re.findall(block, text, re.MULTILINE)
        code[title] = re.sub("^   ", "", "".join(blocks), flags=re.MULTILINE)
    return {title: each for title, each in code.items() if each}


def libraries(code):
    """Return the top level modules that a snippet imports."""
    nodes = [*ast.walk(ast.parse(code))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def skip_without(*names):
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


SNIPPETS = snippets()


class Hub(BaseHTTPRequestHandler):
    """The requests of the Hugging Face Hub that an upload and a download make."""

    files: dict[str, bytes]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answers = {"create": {"url": "/user/wine-density"}, "validate-yaml": {}}
        if self.path.endswith("preupload/main"):
            files = [each["path"] for each in json.loads(body)["files"]]
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            answer = {"files": [{"path": path} | regular for path in files]}
        elif self.path.endswith("commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    file = line["value"]
                    self.files[file["path"]] = base64.b64decode(file["content"])
            answer = {"commitUrl": "/user/wine-density/commit/0", "commitOid": "0" * 40}
        else:
            answer = answers[self.path.rpartition("/")[2]]
        self._answer(json.dumps(answer).encode())

    def do_GET(self):
        self._answer(self.files[self.path.rpartition("/")[2]])

    do_HEAD = do_GET

    def _answer(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextmanager
def served(handler):
    """Answer requests in this context; yields the address."""
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the Hugging Face Hub on this machine; yields its files."""
    handler = type("Handler", (Hub,), {"files": {}})
    with served(handler) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setenv("HF_TOKEN", "token")
        yield handler.files


def test_the_hub_gets_the_model_and_a_card_with_its_columns_and_score(hub, tmp_path):
    run_snippet("Hugging Face Hub", tmp_path)
    assert hub.keys() == {"README.md", "model.skflows"}
    card = hub["README.md"].decode()
    assert "\nlibrary_name: skflows\n" in card
    assert "flavanoids" in card and re.search(r"rows: -?\d+\.\d\d nats", card)


@pytest.mark.parametrize("title", [title for title in SNIPPETS if title != "Hugging Face Hub"])
def test_snippet_runs_as_a_script(title, tmp_path):
    run_snippet(title, tmp_path)


def run_snippet(title, tmp_path):
    skip_without(*libraries(SNIPPETS[title]))
    (tmp_path / "snippet.py").write_text(SNIPPETS[title], encoding="utf-8")
    quiet = {"DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}  # no telemetry from tests
    run = subprocess.run(
        [sys.executable, "snippet.py"],
        cwd=tmp_path,
        env=os.environ | quiet | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_snippet_of_r_runs(tmp_path):
    skip_without("pandas")
    import pandas as pd

    if parse_version(pd.__version__) >= parse_version("3"):
        pytest.skip("reticulate 1.41 converts data frames of pandas before 3 only")
    has_reticulate = ["Rscript", "-e", "library(reticulate)"]
    if (
        not shutil.which("Rscript")
        or subprocess.run(has_reticulate, capture_output=True).returncode
    ):
        pytest.skip("needs R and its package reticulate")
    code = snippets("r")["R"].replace("max_iter = 20L", "max_iter = 2L")
    check = "stopifnot(!anyNA(density$impute(rows)), is.factor(density$sample(3L)$Month))\n"
    (tmp_path / "snippet.R").write_text(code + check, encoding="utf-8")
    here = {"RETICULATE_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        ["Rscript", "snippet.R"],
        cwd=tmp_path,
        env=os.environ | here,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


RUNTIME = ROOT / "build" / "node_modules" / "onnxruntime-web" / "dist"  # as the Makefile has it


def test_a_web_page_scores_rows_by_an_exported_flow(tmp_path):
    skip_without("onnxscript")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not (chromium and RUNTIME.exists()):
        pytest.skip("needs Chromium, and onnxruntime-web, which npm installs")
    density = NSFDensity(n_transforms=1, max_iter=5, random_state=0).fit(X)
    skflows.export(density, tmp_path / "flow.onnx")
    (tmp_path / "onnxruntime-web").symlink_to(RUNTIME)
    rows = "\n".join(",".join(map(repr, row)) for row in X[:5].tolist())
    page = (ROOT / "docs" / "snippets" / "score.html").read_text(encoding="utf-8")
    page = re.sub(r"(<textarea[^>]*>)[^<]*", rf"\g<1>{rows}", page)
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    # Virtual time ends when the page has nothing left to do.
    options = ["--headless", "--no-sandbox", "--virtual-time-budget=60000", "--dump-dom"]
    with served(partial(SimpleHTTPRequestHandler, directory=tmp_path)) as address:
        run = subprocess.run([chromium, *options, address], capture_output=True, text=True)
    shown = re.search(r"<pre[^>]*>([^<]*)<", run.stdout).group(1)
    scores = [float(each) for each in shown.split()]
    np.testing.assert_allclose(scores, density.score_samples(X[:5]), rtol=1e-7)


X = np.column_stack([banana(60), np.random.default_rng(1).poisson(2, 60)])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment of MLflow, in a folder of its own."""
    skip_without("mlflow", "skops")
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DO_NOT_TRACK", "1")
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        yield mlflow.create_experiment("skflows", artifact_location=str(folder))


@pytest.mark.parametrize("name", ESTIMATORS | OTHERS)
def test_mlflow_stores_every_estimator(name, experiment):
    import mlflow
    import skops.io

    model = clone((ESTIMATORS | OTHERS)[name]).fit(X)
    trusted = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    with mlflow.start_run(experiment_id=experiment):
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            skops_trusted_types=trusted,
            pip_requirements=["skflows"],  # or MLflow takes 15 s to find them
        )
    loaded = mlflow.sklearn.load_model(info.model_uri)
    assert type(loaded) is type(model)
    has_labels = hasattr(model, "predict")  # MLflow's pyfunc takes only such models
    assert info.flavors.keys() == {"sklearn"} | ({"python_function"} if has_labels else set())
    for method in ("predict", "decision_function") if has_labels else (OWN_SCORE[name],):
        np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(model, method)(X))


@pytest.mark.parametrize("folds", [1, 3])
def test_contributions_for_shap_add_up_to_the_score_with_the_base(folds):
    skip_without("shap", "pandas")
    import pandas as pd
    import shap

    frame = pd.DataFrame(banana(120), columns=["a", "b"])
    odd = frame[:5].add([0, 6.0])
    calibration = {"calibration": "conformal", "cv": folds} if folds > 1 else {}
    detector = DensityOutlierDetector(KernelDensity(bandwidth=0.5), **calibration, random_state=0)
    found = detector.fit(frame).explain(odd, as_shap=True)
    assert isinstance(found, shap.Explanation)
    sums = found.base_values + found.values.sum(axis=1)
    np.testing.assert_allclose(sums, detector.score_samples(odd), rtol=0, atol=1e-9)
    assert [*found.feature_names] == ["a", "b"]
    np.testing.assert_array_equal(found.data, odd)
    # The base is the score of ordinary rows. Without shap, the columns share it.
    assert found.base_values.min() > detector.offset_ > detector.score_samples(odd).max()
    shared = found.values + found.base_values[:, None] / 2
    np.testing.assert_allclose(shared, detector.explain(odd))
    assert detector.fit(frame.to_numpy()).explain(odd, as_shap=True).feature_names == ["x0", "x1"]


@pytest.mark.parametrize("name", ["LSCP", "SUOD", "FeatureBagging"])
def test_combinations_of_pyod_take_our_detectors(name):
    skip_without("pyod", "combo", "suod")
    from pyod.models.feature_bagging import FeatureBagging
    from pyod.models.lof import LOF
    from pyod.models.lscp import LSCP
    from pyod.models.suod import SUOD

    outliers = [[0.0, -6.0], [4.0, 0.0], [-3.0, -3.0], [0.0, 9.0], [4.0, 4.0]]
    X = np.concatenate([banana(95), outliers])
    mixture = PyODDetector(GaussianMixture(3, random_state=0))
    detectors = [PyODDetector(NSFDensity(max_iter=5, random_state=0)), mixture, LOF()]
    combination = {
        "LSCP": LSCP(detectors, random_state=0),
        # Its projections and approximations have no seed.
        "SUOD": SUOD(detectors, rp_flag_global=False, approx_flag_global=False),
        "FeatureBagging": FeatureBagging(mixture, n_estimators=3, random_state=0),
    }[name]
    combination.fit(X)
    scores = combination.decision_function(X)
    assert np.median(scores[-5:]) > np.quantile(scores[:-5], 0.9)
    assert combination.predict(X).sum() == 10
