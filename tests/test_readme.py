import pathlib
import re

import tflite_export

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_quick_start_runs_and_writes_its_file(tmp_path, monkeypatch):
    [code] = re.findall(
        r"<!-- quick start -->\n```python\n(.*?)```", README.read_text(), re.DOTALL
    )
    assert len([line for line in code.splitlines() if line]) <= 20
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert not tflite_export.inspect("student.tflite").float_ops
