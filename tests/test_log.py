"""The journal and the console."""
import io
import json

from passl_mixer.log import Rate, RunLog, duration, table


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


LINE = {"step": 1, "epoch": 0, "loss": 1.5, "lr": 1e-3, "images_per_second": 10.0}


def test_duration():
    assert [duration(s) for s in (5, 65, 3723, 2 * 86400 + 3 * 3600 + 240)] == ["5 s", "1:05", "1:02:03", "2 d 03:04"]


def test_lines_of_the_interrupted_part_are_dropped(tmp_path):
    with RunLog(tmp_path, start_step=0, total_steps=5, stream=io.StringIO()) as log:
        for step in (1, 2, 3):
            log.training({**LINE, "step": step}, 1)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 4, "los')                     # cut off in the middle of a line
    with RunLog(tmp_path, start_step=2, total_steps=5, stream=io.StringIO()) as log:
        log.training({**LINE, "step": 3, "loss": 9.0}, 1)
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.5), (2, 1.5), (3, 9.0)]


def test_evaluations_of_the_interrupted_part_are_known(tmp_path):
    with RunLog(tmp_path, start_step=0, total_steps=5, stream=io.StringIO()) as log:
        assert log.evaluations == {}
        for step in (1, 2, 3):
            log.training({**LINE, "step": step}, 1)
            log.record({"step": step, "epoch": step - 1, "knn": 0.1 + step})
    with RunLog(tmp_path, start_step=2, total_steps=5, silent=True) as log:
        assert log.evaluations == {}
    with RunLog(tmp_path, start_step=2, total_steps=5, stream=io.StringIO()) as log:
        assert log.evaluations == {1: 1.1, 2: 2.1}


def test_console_plain_and_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    plain, terminal = io.StringIO(), Terminal()
    for folder, stream in ((tmp_path / "a", plain), (tmp_path / "b", terminal)):
        folder.mkdir()
        with RunLog(folder, start_step=0, total_steps=4, stream=stream) as log:
            log.training(LINE, 2)
            log.progress(1)
            log.say("hello")
    assert "step 1/4  epoch 1/2  loss 1.5000  lr 1.00e-03  10 images/s  left" in plain.getvalue()
    shown = terminal.getvalue()
    assert " 25% █████···············" in shown
    assert "loss 1.5000" in shown
    assert shown.endswith("hello\n")
    assert "step 1/4" not in shown


def test_bar_fits_the_terminal_and_its_encoding(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    terminal.encoding = "ascii"
    with RunLog(tmp_path, start_step=0, total_steps=4, stream=terminal) as log:
        log.training(LINE, 2)
        log.progress(2)
    bar = terminal.getvalue().split("\r")[1]
    assert len(bar) == 39
    assert bar.startswith(" 50% ##########..........")


def test_silent_writes_nothing(tmp_path):
    stream = io.StringIO()
    with RunLog(tmp_path, start_step=0, total_steps=4, stream=stream, silent=True) as log:
        log.training(LINE, 1)
        log.say("x")
    assert not stream.getvalue()
    assert not list(tmp_path.iterdir())


def test_rate_counts_steps_since_the_last_look():
    rate = Rate(10, 100)
    first, second = rate.at(12), rate.at(12)
    assert first > 0
    assert second == 0


def test_table():
    assert table([["a", 1], ["bb", 22]], ["x", "yy"]) == "x   yy\n--  --\na    1\nbb  22"
