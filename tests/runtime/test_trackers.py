"""Trackers and --notify: what they write is read back by their own libraries, and none of them can harm a run."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from advanchor.cli import app
from advanchor.runtime.trackers.notifier import Notifier, NotifyError
from advanchor.runtime.trackers.watch import Watch

STEPS = 3
BATCH: dict[str, Any] = {
    "model": "pocket",
    "method": {"name": "fixed_anchor", "steps": STEPS, "batch_size": 1, "num_latents": 1, "latent_steps": 1},
    "concepts": [{"name": "striped", "kind": "style"}, {"name": "a" * 400, "kind": "object"}],
    "evaluate": {
        "num_prompts": 1, "images_per_prompt": 1, "num_retained": 2, "retained_images_per_prompt": 1, "steps": 1
    },
}  # fmt: skip


class Inbox:
    """A server on loopback that keeps what is posted to it."""

    def __init__(self, answers: list[int] | None = None) -> None:
        self.posts: list[dict[str, Any]] = []
        self.tries, inbox, left = 0, self, list(answers or [])

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                inbox.tries += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = left.pop(0) if left else 200
                if code == 200:
                    inbox.posts.append(json.loads(body))
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", f"{inbox.url}/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-path?token=hush"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    found = Inbox()
    yield found
    found.close()


def erase(folder: Path, content: dict[str, Any], *options: str) -> Result:
    (folder / "batch.yaml").write_text(json.dumps(content | {"output": str(folder / "run")}))
    return CliRunner().invoke(app, ["erase", str(folder / "batch.yaml"), "--local", *options])


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Inbox, Result]]:
    """A run of one concept that is done, followed by every tracker that is installed."""
    folder, inbox = tmp_path_factory.mktemp("followed"), Inbox()
    names = [name for name in ("tensorboard", "wandb", "mlflow") if find_spec(name)]
    tracks = [option for name in names for option in ("--track", f"{name}={folder / name}")]
    content = BATCH | {"concepts": BATCH["concepts"][:1]}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        done = erase(folder, content, *tracks, "--notify", inbox.url)
    yield folder, inbox, done
    inbox.close()


def scores(folder: Path) -> dict[str, Any]:
    [path] = folder.glob("run/tasks/*/result.json")
    return json.loads(path.read_text())["scores"]


def test_the_run_is_done_and_no_tracker_complains(followed: tuple[Path, Inbox, Result]) -> None:
    _, _, done = followed
    assert done.exit_code == 0 and "warning" not in done.output, done.output


def test_tensorboard_reads_losses_scores_pictures_and_the_batch(followed: tuple[Path, Inbox, Result]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = followed[0]
    [events] = (folder / "tensorboard").iterdir()
    found = EventAccumulator(str(events))
    found.Reload()
    assert [event.step for event in found.Scalars("loss/striped")] == [1, 2, 3]
    assert found.Scalars("ua/striped")[0].value == pytest.approx(scores(folder)["ua"])
    assert {"erased/striped", "retained/striped"} == set(found.Tags()["images"])
    assert found.Images("erased/striped")[0].encoded_image_string.startswith(b"\x89PNG")
    [text] = found.Tensors("batch/text_summary")
    assert b'"fixed_anchor"' in text.tensor_proto.string_val[0]


def test_wandb_keeps_losses_scores_pictures_and_the_batch_offline(followed: tuple[Path, Inbox, Result]) -> None:
    from wandb.proto import wandb_internal_pb2

    record_of: Any = vars(wandb_internal_pb2)["Record"].FromString  # made when the module is imported

    folder = followed[0]
    [path] = (folder / "wandb").glob("wandb/offline-run-*/run-*.wandb")
    history: dict[str, list[Any]] = {}
    config: dict[str, Any] = {}
    for data in log_records(path.read_bytes()):
        record = record_of(data)
        for item in record.history.item:
            key = item.key or "/".join(item.nested_key)
            history.setdefault(key, []).append(json.loads(item.value_json))
        for item in [*record.run.config.update, *record.config.update]:
            config[item.key or item.nested_key[0]] = json.loads(item.value_json)
    assert len(history["loss/striped"]) == STEPS and history["step/striped"] == [1, 2, 3]
    assert history["ua/striped"] == [pytest.approx(scores(folder)["ua"])]
    for name in ("erased", "retained"):
        [picture] = history[f"{name}/striped/path"]
        assert (path.parent / "files" / picture).read_bytes().startswith(b"\x89PNG")
    assert config["method"]["name"] == "fixed_anchor" and config["model"] == "pocket"


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, which wandb writes behind a head of seven bytes: blocks of 32 KiB."""
    position, whole = 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""


def test_mlflow_reads_losses_scores_pictures_and_the_batch(followed: tuple[Path, Inbox, Result]) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder = followed[0]
    client = mlflow.MlflowClient((folder / "mlflow").as_uri())
    [run] = client.search_runs([client.get_experiment_by_name("advanchor").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"model": "pocket", "method": "fixed_anchor"}
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss/striped")] == [1, 2, 3]
    assert run.data.metrics["ua/striped"] == pytest.approx(scores(folder)["ua"])
    assert {entry.path for entry in client.list_artifacts(run.info.run_id, "striped")} == {
        "striped/erased.png", "striped/retained.png"
    }  # fmt: skip
    assert "batch.json" in {entry.path for entry in client.list_artifacts(run.info.run_id)}


def test_the_end_is_posted(followed: tuple[Path, Inbox, Result]) -> None:
    folder, inbox, _ = followed
    [post] = inbox.posts
    assert (post["event"], post["state"], post["counts"]) == ("end", "finished", {"done": 1})
    assert post["run"] == str(folder / "run") and post["program"].startswith("advanchor ")


# --- what goes wrong


def quick(base: Path, **changes: Any) -> dict[str, Any]:
    star = {"name": "star", "kind": "object", "templates": ["a {}"], "neutral": ["a shape"]}
    return {"model": str(base), "method": {"name": "uce"}, "evaluate": None, "concepts": [star]} | changes


def test_the_first_failure_is_posted_and_what_failed_before_is_not(
    tiny_base: Path, tmp_path: Path, inbox: Inbox
) -> None:
    method = {"name": "fixed_anchor", "lr": 1e30, "steps": 3, "num_latents": 1, "latent_steps": 1, "batch_size": 1}
    content = quick(tiny_base, method=method)
    done = erase(tmp_path, content, "--notify", inbox.url)
    assert done.exit_code == 1
    assert [post["event"] for post in inbox.posts] == ["first_failure", "end"]
    assert inbox.posts[0]["concept"] == "star" and "the loss is" in inbox.posts[0]["reason"]
    assert inbox.posts[1]["counts"] == {"failed": 1}
    assert erase(tmp_path, content, "--notify", inbox.url).exit_code == 1
    assert [post["event"] for post in inbox.posts[2:]] == ["end"]


def test_trackers_that_cannot_write_and_a_dead_url_are_a_line_each(tiny_base: Path, tmp_path: Path) -> None:
    dead = Inbox()
    dead.close()
    (tmp_path / "file").write_text("")
    tracks = [option for name in ("tensorboard", "wandb") for option in ("--track", f"{name}={tmp_path}/file/{name}")]
    done = erase(tmp_path, quick(tiny_base), *tracks, "--notify", dead.url)
    assert done.exit_code == 0, done.output
    warned = re.findall(r"warning: (.+?) is not told of this run any more: ", done.stderr)  # beside progress bars
    assert sorted(warned) == ["--notify http://127.0.0.1/...", "tensorboard", "wandb"], done.stderr
    assert "Traceback" not in done.output
    assert "secret" not in done.output and "hush" not in done.output


def test_a_tracker_that_hangs_or_breaks_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advanchor.batch.spec import BatchSpec
    from advanchor.rundir.status import RunStatus
    from advanchor.rundir.store import Store

    class Hanging:
        name = "hanging"

        def __init__(self) -> None:
            self.release = threading.Event()

        def start(self, *_: object) -> None:
            self.release.wait()

        loss = done = failed = end = start

    monkeypatch.setattr("advanchor.runtime.trackers.watch.CLOSE_S", 0.1)
    said: list[str] = []
    spec = BatchSpec.model_validate({"model": "pocket", "concepts": [{"name": "a", "kind": "style"}]})
    tracker: Any = Hanging()
    watch = Watch(spec, [], Store(str(tmp_path)), [tracker], said.append)
    watch.around(lambda status: None)(RunStatus("pocket", "esd"))
    watch.close()
    tracker.release.set()
    assert said == ["hanging is not told of this run any more: it has not answered for 0 s"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--track", "tensorbord"], "--track: 'tensorbord' is not one of tensorboard, wandb, mlflow (did you mean"),
        (["--notify", "http://203.0.113.9/hush"], "--notify http://203.0.113.9/...: http would send it in the clear"),
        (["--notify", "ftp://x/hush"], "--notify: a URL with https:// is needed"),
        (["--notify", "hush"], "--notify: a URL with https:// is needed"),
        (["--notify", "https://[hush"], "--notify: is not a URL"),
        (["--notify", "https://me:hush@x/"], "--notify https://x/...: a name and password"),
        (["--notify", "http://localhost:x@203.0.113.9/hush"], "--notify http://203.0.113.9/...: a name and password"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    options: list[str], line: str, tiny_base: Path, tmp_path: Path
) -> None:
    done = erase(tmp_path, quick(tiny_base), *options)
    assert done.exit_code == 2 and done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
    assert "hush" not in done.output and not (tmp_path / "run").exists()


def test_a_busy_server_is_asked_again_and_a_redirect_is_not_followed() -> None:
    for answers, tries, posts in (([503, 429], 3, 1), ([302], 1, 0), ([404], 1, 0)):
        server = Inbox(answers)
        notifier = Notifier(server.url)
        if posts:
            notifier.end("finished", {"done": 1})
        else:
            with pytest.raises(OSError, match=f"it answered {answers[0]}"):
                notifier.end("finished", {"done": 1})
        assert (server.tries, len(server.posts)) == (tries, posts)
        server.close()


def test_https_anywhere_and_http_here() -> None:
    for url in ("https://hooks.example.com/x", "http://localhost:9/x", "http://[::1]:9/x", "http://127.0.0.1/x"):
        Notifier(url)
    with pytest.raises(NotifyError):
        Notifier("http://127.0.0.1.example.com/x")
