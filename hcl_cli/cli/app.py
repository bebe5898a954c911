"""The `hcl` program: its commands, and the one place that knows exit codes.

0 done; 1 a fault of ours (with its stack); 2 usage or bad input (one line); 3 finished with failed shards;
4 the environment refused; 130 interrupted; 143 terminated.
"""

import importlib
import os
import signal
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NoReturn

# typer asks pydantic to check option values, and pydantic looks for plugins in every installed package: none is ours.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import typer
from typer.core import TyperCommand, TyperGroup

from hcl_cli import __version__
from hcl_cli.cli import settings
from hcl_cli.cli.terminal import error_line
from hcl_cli.errors import EnvironmentRefused, HclError

_STAGES, _LOOK, _NAMES = "Stages", "Looking at results", "What can be named"

# name -> (module in hcl_cli.cli, panel, first line of its help). Modules are imported when their command is called;
# a test holds the help lines to the commands' own docstrings.
COMMANDS = {
    "sample": ("sample", _STAGES, "Sample answers from every exit layer in one pass."),
    "score": ("score", _STAGES, "Judge responses and cluster the right ones by meaning."),
    "hcb": ("hcb", _STAGES, "Balance creativity against hallucination at each exit layer."),
    "entropy": ("entropy", _STAGES, "Measure how unsure layers and attention heads are, and compare groups."),
    "lens": ("lens", _STAGES, "Show what every layer would say next, token by token."),
    "probe": ("probe", _STAGES, "Train truthfulness probes on the hidden states of every layer."),
    "dola": ("dola", _STAGES, "Answer questions by contrasting the last layer with an earlier one."),
    "prune": ("prune", _STAGES, "Rank the blocks of a model, remove some, and measure what is kept."),
    "mitigate": (
        "mitigate",
        _STAGES,
        "Train hallucination-prone blocks contrastively, and compare with training others.",
    ),
    "show": ("show", _LOOK, "Show an artifact's recipe, size and lineage."),
    "cat": ("cat", _LOOK, "Print an artifact's rows as JSONL, CSV or Arrow."),
    "export": ("cat", _LOOK, "Write a copy in another format: .csv, .jsonl, .arrow, .parquet."),
    "store": ("store", _LOOK, "Look after the store of artifacts."),
    "datasets": ("catalogues", _NAMES, "List the built-in data sets with size and licence."),
    "models": (
        "catalogues",
        _NAMES,
        "List the bundled models, LayerSkip checkpoints and the models of the reproduced papers.",
    ),
}


class Program(TyperGroup):
    """The command tree, each command imported when it is called; until then its name and help line stand for it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, panel, line) in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=line, rich_help_panel=panel, rich_markup_mode="rich")
        self._loaded: set[str] = set()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """With nothing to do, the help goes to stderr: exit code 2 leaves stdout empty."""
        with redirect_stdout(sys.stderr) if not args else nullcontext():
            return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which they are used, not of the alphabet."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` names, imported."""
        if args and args[0] in COMMANDS:
            self.load(args[0])
        return super().resolve_command(ctx, args)

    def load(self, name: str) -> Any:
        """The real command, with a variable `HCL_<NAME>` bound to every option that may be set from outside."""
        if name not in self._loaded:
            module = importlib.import_module(f"hcl_cli.cli.{COMMANDS[name][0]}")
            tree = getattr(module, "app", None)
            if tree is None:
                tree = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
                tree.command(name)(getattr(module, name))
            command = typer.main.get_command(tree)
            command.name = name
            for one in getattr(command, "commands", {name: command}).values():
                for option, param in settings.settable(name, one.params).items():
                    if not param.envvar:
                        param.envvar = settings.variable(option)
                        param.show_envvar = False
            self.commands[name] = command
            self._loaded.add(name)
        return self.commands[name]


app = typer.Typer(
    name="hcl",
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="What would a language model say if it stopped at this layer? How often is that wrong, how many different "
    "right answers does it find, and which layer balances the two best?\n\n"
    "Example: [bold]hcl sample | hcl score | hcl hcb --figure hcb.svg[/bold]",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"hcl {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Only here so that `hcl --version` works."""


class Terminated(BaseException):
    """SIGTERM arrived: unwinds like KeyboardInterrupt, so that temporary files and locks are cleaned up."""


def _on_sigterm(signum: int, frame: object) -> NoReturn:
    raise Terminated


def program() -> Program:
    """The command tree."""
    command = typer.main.get_command(app)
    assert isinstance(command, Program)
    return command


def main() -> NoReturn:
    """Entry point of the `hcl` program. Never returns; see the module for the exit codes."""
    # A SIGTERM that was ignored by whoever started us stays ignored.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        code = _run()
    except Terminated:
        code = 143
    except KeyboardInterrupt:
        code = 130
    if code in (130, 143):
        error_line("interrupted; what was finished is kept, and the same command goes on from there")
    sys.exit(code)


def _run() -> int:
    command = program()
    try:
        defaults = settings.default_map(Path.cwd(), lambda: _settable(command))
        code = command.main(standalone_mode=False, default_map=defaults, prog_name="hcl")
    except HclError as error:
        error_line(str(error))
        return error.exit_code
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            return 2
        error_line(_usage_message(error))
        return 2
    except typer.Abort:
        return 130
    except SystemExit as end:  # how rich, which writes the help, answers a closed pipe: with 1
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        return 0
    except MemoryError:
        error_line(str(EnvironmentRefused("out of memory; try a smaller --batch-tokens or --limit")))
        return EnvironmentRefused.exit_code
    return code if isinstance(code, int) else 0


def _settable(program: Program) -> dict[str, dict[str, str]]:
    """Every command, those of groups too ("store ls"), with its settable options and their parameters' names."""
    found = {}
    for name in COMMANDS:
        command = program.load(name)
        for inner, one in getattr(command, "commands", {"": command}).items():
            params = settings.settable(name, one.params)
            found[f"{name} {inner}".strip()] = {option: str(param.name) for option, param in params.items()}
    return found


def _usage_message(error: typer.TyperException) -> str:
    """The parser's message with the value that was met and where help is."""
    text = error.format_message().rstrip(".")
    param, context = getattr(error, "param", None), getattr(error, "ctx", None)
    names = tuple(getattr(param, "opts", ()))
    for index, word in enumerate(sys.argv):
        name, equals, value = word.partition("=")
        if name in names and (equals or index + 1 < len(sys.argv)):
            text = f"{name} {value if equals else sys.argv[index + 1]!r}: {getattr(error, 'message', text)}".rstrip(".")
            break
    else:
        if (origin := _origin(param, context)) is not None:
            text = f"{origin}: {getattr(error, 'message', text)}".rstrip(".")
    return f"{text}; see {getattr(context, 'command_path', None) or 'hcl'} --help"


def _origin(param: Any, context: Any) -> str | None:
    """Where a value that is not on the command line came from, and what it is: `HCL_SAMPLES 'x'`."""
    if param is None or context is None:
        return None
    variable = getattr(param, "envvar", None)
    if isinstance(variable, str) and os.environ.get(variable):
        return f"{variable} {os.environ[variable]!r}"
    if param.name in (context.default_map or {}):
        return f"{settings.FILE}: {param.opts[0].lstrip('-')} = {context.default_map[param.name]!r}"
    return None
