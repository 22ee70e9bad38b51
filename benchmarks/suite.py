"""The table of all benchmarks: what runs each, beside which peer, for how long."""

import ast
import pathlib
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).parents[1]


@dataclass(frozen=True)
class Benchmark:
    """A script that prints tables.

    `flags` are those of the full run, `quick` those of a smoke test on small data.
    `peer` is what the project is compared with, "" for nothing. `minutes` estimates the
    full run on two cores. `measured` is a JSON file of numbers that the script writes.
    """

    name: str
    flags: tuple[str, ...]
    quick: tuple[str, ...]
    peer: str
    minutes: int
    folder: str = "benchmarks"
    script: str = ""
    measured: str | None = None

    @property
    def path(self) -> pathlib.Path:
        """The script's file."""
        return ROOT / self.folder / f"{self.script or self.name}.py"

    @property
    def title(self) -> str:
        """The first line of the script's docstring."""
        text = ast.get_docstring(ast.parse(self.path.read_text(encoding="utf-8")))
        return text.splitlines()[0]

    def arguments(self, quick: bool) -> tuple[str, ...]:
        """The script and its flags, as given to Python in the project's root."""
        flags = self.quick if quick else self.flags
        return (self.path.relative_to(ROOT).as_posix(), *flags)


_MAIN_JOB = "--output_dir=runs/compress_vgg16"
_VGG16 = (
    *("--output_dir=runs/compress_vgg16_itself", "--nocompress_student"),
    "--compress_teacher",
)
_QAT = ("--output_dir=runs/qat_accuracy", "--noresume")
_DEPTHWISE = ("--net=depthwise", "--examples=12000", "--batch_size=32")

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "main_job",
            (_MAIN_JOB,),
            (_MAIN_JOB, "--quick"),
            "",
            9,
            "examples",
            "compress_vgg16",
            measured="runs/compress_vgg16/results.json",
        ),
        Benchmark(
            "vgg16_itself",
            (
                *("--teacher=runs/teacher/teacher.weights.h5", *_VGG16),
                "--policy=mixed_bfloat16",
            ),
            ("--teacher=train", *_VGG16, "--quick"),
            "",
            20,
            "examples",
            "compress_vgg16",
            measured="runs/compress_vgg16_itself/results.json",
        ),
        Benchmark("applications_coverage", (), ("--models=MobileNetV2",), "", 90),
        Benchmark(
            "arm_agreement",
            ("--work_dir=runs/arm",),
            ("--work_dir=runs/arm", "--inputs=2"),
            "",
            10,
        ),
        Benchmark("channel_sparsity_cost", (), ("--nets=student", "--steps=5"), "", 5),
        Benchmark("channels_accuracy", (), ("--quick",), "a net from scratch", 180),
        Benchmark("channels_coverage", (), ("--cases=MobileNetV2",), "", 24),
        Benchmark("channels_random_graphs", (), ("--graphs=2",), "", 18),
        Benchmark(
            "channels_speed",
            (),
            ("--nets=vgg_like", "--surgery=", "--shares=0.5", "--rounds=1"),
            "",
            2,
        ),
        Benchmark(
            "distillation_accuracy",
            ("--examples=20000", "--epochs=4"),
            ("--examples=2000", "--epochs=1", "--seeds=1", "--methods=0,1"),
            "",
            12,
        ),
        Benchmark("distillation_overhead", (), ("--steps=5", "--rounds=1"), "", 3),
        Benchmark("export_cost", (), ("--repeats=1",), "TFLiteConverter", 2),
        Benchmark("factorize_cost", (), ("--nets=ResNet50", "--rounds=1"), "", 5),
        Benchmark(
            "mediapipe_accepts",
            ("--env_dir=runs/mediapipe",),
            ("--env_dir=runs/mediapipe", "--images=100", "--epochs=1"),
            "MediaPipe",
            5,
        ),
        Benchmark(
            "peer_distiller",
            (),
            ("--steps=5", "--rounds=1"),
            "keras.distillation",
            4,
        ),
        Benchmark(
            "peer_export",
            ("--env_dir=runs/ai_edge_quantizer",),
            ("--env_dir=runs/ai_edge_quantizer", "--nets=student", "--quick"),
            "TFLiteConverter, ai-edge-quantizer",
            8,
        ),
        Benchmark("pruning_accuracy", _DEPTHWISE, ("--quick",), "TFMOT", 60),
        Benchmark("pruning_cost", (), ("--steps=5", "--novgg16"), "", 6),
        Benchmark("qat_accuracy", _QAT, (*_QAT, "--quick"), "TFMOT", 60),
        Benchmark("qat_cost", (), ("--steps=5", "--nets=depthwise"), "TFMOT", 10),
        Benchmark("qat_coverage", (), ("--cases=u_net", "--notfmot"), "TFMOT", 90),
    )
}

# Scripts that benchmarks run in processes of their own, and a tool for one model.
HELPERS = (
    "arm_child",
    "mediapipe_child",
    "peer_export_child",
    "pruning_tfmot_child",
    "qat_coverage_child",
    "qat_layers",
    "qat_tfmot_child",
)
