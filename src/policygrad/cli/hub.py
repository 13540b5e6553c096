"""`policygrad push` and `policygrad pull`: runs on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

from policygrad.cli.flags import add_root, add_run_directory
from policygrad.cli.parser import Parser
from policygrad.files import printable
from policygrad.stored.directory import RunDirectory, find_run


def push_parser() -> Parser:
    """`policygrad push`."""
    parser = Parser(
        "policygrad push",
        usage="policygrad push RUN OWNER/NAME [flags]",
        description="Upload a finished run to the Hugging Face hub, with a model card that is made from the run. The token is "
        "that of `hf auth login`, or of the variable HF_TOKEN.",
        epilog="examples:\n  policygrad push latest me/ppo-LunarLander-v3 --private",
    )
    add_run_directory(parser)
    parser.add_argument("repo", metavar="OWNER/NAME", help="model repository; it is made if it is not there")
    parser.add_argument("--private", action="store_true", help="make a repository that only its owner sees")
    add_root(parser)
    return parser


def pull_parser() -> Parser:
    """`policygrad pull`."""
    parser = Parser(
        "policygrad pull",
        usage="policygrad pull OWNER/NAME [flags]",
        description="Download a run from the Hugging Face hub. Nothing in it is executed.",
        epilog="examples:\n  policygrad pull me/ppo-LunarLander-v3\n  policygrad eval runs/hub/me/ppo-LunarLander-v3",
    )
    parser.add_argument("repo", metavar="OWNER/NAME", help="model repository")
    parser.add_argument("--out", metavar="DIR", help="new directory [runs/hub/OWNER/NAME]")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit [the newest]")
    return parser


PARSERS = {"push": push_parser, "pull": pull_parser}


def push_command(words: Sequence[str]) -> None:
    """`policygrad push`."""
    given = push_parser().parse(words)
    from policygrad.training.hub import push

    print(push(RunDirectory(find_run(given.run, given.runs_root)), given.repo, private=given.private))


def pull_command(words: Sequence[str]) -> None:
    """`policygrad pull`."""
    given = pull_parser().parse(words)
    from policygrad.training.hub import pull

    run = pull(given.repo, given.out, revision=given.revision)
    print(printable(str(run.path)))
