"""`policygrad export`: a trained policy for other runtimes."""

from __future__ import annotations

from collections.abc import Sequence

from policygrad.cli.flags import add_model, add_root
from policygrad.cli.parser import Parser
from policygrad.cli.playing import files_at, refuse_import
from policygrad.cli.reports import as_usage_error
from policygrad.cli.values import UsageError
from policygrad.files import printable

FORMATS = ("onnx", "torchscript", "numpy")


def export_parser() -> Parser:
    """`policygrad export`."""
    parser = Parser(
        "policygrad export",
        usage="policygrad export RUN --format FORMAT [flags]",
        description="Write a trained policy for other runtimes, with everything from the observation to the action inside: "
        "normaliser, action masks, scaling and clipping. Before the file is written, it is compared with the policy on 1,000 "
        "observations.",
        epilog="examples:\n  policygrad export latest --format onnx\n"
        "  policygrad export pretrained:ppo-CartPole-v1 --format numpy --out deployed/policy.npz",
    )
    add_model(parser)
    parser.add_argument(
        "--format",
        required=True,
        metavar="{" + ",".join(FORMATS) + "}",
        help="onnx (opset 17; needs policygrad[export]), torchscript, or numpy (weights, and a Python file that uses them)",
    )
    parser.add_argument("--out", metavar="FILE", help="output file, .onnx, .pt or .npz [policy.* in the run directory]")
    parser.add_argument(
        "--sample",
        action="store_true",
        help="sample actions, from noise as one input more, instead of the most likely one",
    )
    parser.add_argument("--recipe", metavar="MODULE:NAME", help="your own recipe, if the run was trained with one")
    add_root(parser)
    return parser


def export_command(words: Sequence[str]) -> None:
    """`policygrad export`."""
    given = export_parser().parse(words)
    if given.format not in FORMATS:
        raise UsageError(f"--format = {given.format!r} must be one of {', '.join(FORMATS)}.")
    if given.sample and given.format == "numpy":
        raise UsageError("--sample is for onnx and torchscript: the format numpy samples with predict(obs) as it is.")
    from policygrad.stored.found import located
    from policygrad.stored.states import open_state

    path = located(given.run, given.runs_root)
    with open_state(path) as file:
        meta = file.meta if isinstance(file.meta, dict) else {}
        refuse_import(
            "export", given.run, meta | {"env": None, "wrappers": None}, None, given.recipe, files=files_at(path)
        )
    from policygrad.serving.export import export

    with as_usage_error(ImportError, ValueError):
        made = export(path, given.format, given.out, sample=given.sample, recipe=given.recipe)
    print("\n".join(printable(str(file)) for file in made.files))
    for name, shape in made.inputs.items():
        print(f"  input {printable(name)}: {shape}")
    ties = f"; {made.ties} ties of two equally good actions" if made.ties else ""
    print(f"  the same actions as the policy's on 1,000 observations: largest difference {made.difference:.2g}{ties}")
