import os
import shutil
import subprocess

import pytest

from tflite_export.c_array import to_c_array

_MAIN = """\
#include <stdint.h>
#include <stdio.h>
#include "{header}"

int main(void) {{
  if ((uintptr_t)g_{name}_model_data % 16 != 0) return 3;
  if (sizeof(g_{name}_model_data) != g_{name}_model_data_len) return 4;
  fwrite(g_{name}_model_data, 1, g_{name}_model_data_len, stdout);
  return 0;
}}
"""
_C = ("gcc", "-std=c11")
_CPP = ("g++", "-std=c++11")
_STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")


def _compile(compiler, source, target):
    if shutil.which(compiler[0]) is None:
        pytest.fail(f"{compiler[0]} is needed; install it: apt-get install gcc g++")
    command = [*compiler, *_STRICT, "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _bytes_of_program(compilers, header, source, name, folder):
    """What a program that prints the array prints; (of the source, of the program)."""
    main = folder / f"main{'.cc' if compilers[1] is _CPP else '.c'}"
    main.write_text(_MAIN.format(header=header, name=name))
    objects = [folder / "source.o", folder / "main.o"]
    _compile(compilers[0], source, objects[0])
    _compile(compilers[1], main, objects[1])
    program = folder / "program"
    linker = compilers[1][0]
    subprocess.run([linker, *map(str, objects), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, check=False)
    assert done.returncode == 0
    return done.stdout


def _folder(path):
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize(
    ("compilers", "ends"),
    [
        ((_C, _C), (".h", ".c")),
        ((_CPP, _CPP), (".h", ".cc")),
        ((("g++", "-std=c++20"), _CPP), (".hpp", ".cpp")),
        # The array has C linkage in both, so that a program may mix them.
        ((_C, _CPP), (".h", ".c")),
        ((_CPP, _C), (".h", ".cc")),
    ],
)
def test_a_program_of_strict_c_or_cpp_prints_the_bytes(
    int8_file, tmp_path, compilers, ends
):
    header, source = tmp_path / f"model{ends[0]}", tmp_path / f"model{ends[1]}"
    to_c_array(int8_file, header, source, name="digits_2")
    found = _bytes_of_program(compilers, header, source, "digits_2", tmp_path)
    assert found == int8_file.read_bytes()


def test_the_source_finds_a_header_in_another_folder(int8_file, tmp_path, monkeypatch):
    for folder in ("include", "src", "build"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    to_c_array(int8_file, "include/m.h", "src/m.c")
    assert '#include "../include/m.h"\n' in (tmp_path / "src/m.c").read_text()
    source = tmp_path / "src" / "m.c"
    build = tmp_path / "build"
    found = _bytes_of_program((_C, _C), "../include/m.h", source, "m", build)
    assert found == int8_file.read_bytes()


def test_a_header_may_be_included_twice_and_two_models_live_together(
    int8_file, float_file, tmp_path
):
    includes = ""
    for name, file in (("a", int8_file), ("A", float_file)):
        folder = tmp_path / name
        folder.mkdir()
        to_c_array(file, folder / "m.h", folder / "m.c", name=name)
        includes += f'#include "{name}/m.h"\n#include "{name}/m.h"\n'
    main = tmp_path / "both.c"
    main.write_text(
        f"{includes}\nsize_t sum(void);\n"
        "size_t sum(void) { return g_a_model_data_len + g_A_model_data_len; }\n"
    )
    _compile(_C, main, tmp_path / "both.o")


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("digits", "digits"),
        ("my--model v1.2", "my_model_v1_2"),
        ("3x3-net", "model_3x3_net"),
        ("_x_", "x"),
        ("模型", "model"),
    ],
)
def test_the_name_is_made_from_the_file_name(int8_file, tmp_path, stem, name):
    path = tmp_path / f"{stem}.tflite"
    path.write_bytes(int8_file.read_bytes())
    to_c_array(path, tmp_path / "m.h", tmp_path / "m.c")
    header = (tmp_path / "m.h").read_text()
    size = path.stat().st_size
    assert f"extern const unsigned char g_{name}_model_data[{size}];\n" in header
    assert f"alignas(16) const unsigned char g_{name}_model_data[] = {{\n" in (
        (tmp_path / "m.c").read_text()
    )


def test_repeated_writing_gives_the_same_text(int8_file, tmp_path):
    texts = []
    for _ in range(2):
        to_c_array(int8_file, tmp_path / "m.h", tmp_path / "m.c")
        texts.append([(tmp_path / f).read_bytes() for f in ("m.h", "m.c")])
    assert texts[0] == texts[1]
    assert _folder(tmp_path) == ["m.c", "m.h"]


@pytest.mark.parametrize("name", ["", "2d", "a b", "a-b", "a__b", "_a", "a_", "é", 3])
def test_a_name_that_is_no_identifier_is_refused(int8_file, tmp_path, name):
    with pytest.raises(ValueError, match="`name` must be an identifier"):
        to_c_array(int8_file, tmp_path / "m.h", tmp_path / "m.c", name=name)
    assert _folder(tmp_path) == []


@pytest.mark.parametrize(
    ("header", "source", "argument"),
    [
        ("m.txt", "m.c", "`header` must be a file name that ends in .h or .hpp"),
        ("m.h", "m.h", "`source` must be a file name that ends in .c or .cc or .cpp"),
        (None, "m.c", "`header` must be"),
        ("m.h", 3, "`source` must be"),
        ('m".h', "m.c", "without quotes"),
    ],
)
def test_a_wrong_file_name_is_refused(
    int8_file, tmp_path, monkeypatch, header, source, argument
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=argument):
        to_c_array(int8_file, header, source)
    assert _folder(tmp_path) == []


def test_a_missing_folder_and_a_folder_as_file_are_refused(int8_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder of `source`.*create it first"):
        to_c_array(int8_file, tmp_path / "m.h", tmp_path / "no" / "m.c")
    (tmp_path / "m.h").mkdir()
    with pytest.raises(IsADirectoryError, match="`header` must be a file"):
        to_c_array(int8_file, tmp_path / "m.h", tmp_path / "m.c")
    assert _folder(tmp_path) == ["m.h"]


def test_an_unwritable_folder_is_refused(int8_file, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="folder of `header` must be writable"):
        to_c_array(int8_file, tmp_path / "m.h", tmp_path / "m.c")


def test_a_damaged_model_keeps_the_old_files(int8_file, tmp_path):
    header, source = tmp_path / "m.h", tmp_path / "m.c"
    header.write_text("old header")
    source.write_text("old source")
    damaged = tmp_path / "m.tflite"
    damaged.write_bytes(int8_file.read_bytes()[:-200])
    with pytest.raises(ValueError, match="must be a valid"):
        to_c_array(damaged, header, source)
    assert header.read_text() == "old header"
    assert source.read_text() == "old source"


@pytest.mark.parametrize("old", [True, False])
def test_when_the_second_file_fails_the_first_is_taken_back(
    int8_file, tmp_path, monkeypatch, old
):
    header, source = tmp_path / "m.h", tmp_path / "m.c"
    if old:
        header.write_text("old header")
        source.write_text("old source")
    replace = os.replace

    def fail_on_the_source(written, target):
        if target.name == "m.c":
            raise OSError("disk full")
        replace(written, target)

    monkeypatch.setattr(os, "replace", fail_on_the_source)
    with pytest.raises(OSError, match="disk full"):
        to_c_array(int8_file, header, source)
    assert _folder(tmp_path) == (["m.c", "m.h"] if old else [])
    if old:
        assert header.read_text() == "old header"
        assert source.read_text() == "old source"
