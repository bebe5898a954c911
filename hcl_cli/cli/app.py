"""The `hcl` program: its commands, and the one place that knows exit codes.

0 done; 1 a fault of ours (with its stack); 2 usage or bad input (one line); 3 finished with failed shards;
4 the environment refused; 130 interrupted; 143 terminated.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

# typer asks pydantic to check option values, and pydantic looks for plugins in every installed package: none is ours.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import typer

from hcl_cli import __version__
from hcl_cli.cli import cat, catalogues, hcb, sample, score, settings, show, store
from hcl_cli.cli.terminal import error_line
from hcl_cli.errors import EnvironmentRefused, HclError

app = typer.Typer(
    name="hcl",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="What would a language model say if it stopped at this layer? How often is that wrong, how many different "
    "right answers does it find, and which layer balances the two best?\n\n"
    "Example: [bold]hcl sample | hcl score | hcl hcb --figure hcb.svg[/bold]",
)
_STAGES = "Stages"
_LOOK = "Looking at results"
app.command("sample", rich_help_panel=_STAGES)(sample.sample)
app.command("score", rich_help_panel=_STAGES)(score.score)
app.command("hcb", rich_help_panel=_STAGES)(hcb.hcb)
app.command("show", rich_help_panel=_LOOK)(show.show)
app.command("cat", rich_help_panel=_LOOK)(cat.cat)
app.command("export", rich_help_panel=_LOOK)(cat.export)
app.add_typer(store.app, name="store", rich_help_panel=_LOOK)
app.command("datasets", rich_help_panel="What can be named")(catalogues.datasets)
app.command("models", rich_help_panel="What can be named")(catalogues.models)


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


def program() -> Any:
    """The command tree, with a variable `HCL_<NAME>` bound to every option that may be set from outside."""
    command = typer.main.get_command(app)
    for sub in command.commands.values():  # type: ignore[attr-defined]
        for param in sub.params:
            if param.param_type_name == "option" and param.name not in settings.NOT_SETTABLE and param.envvar is None:
                param.envvar = settings.variable(param.name)
                param.show_envvar = False
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
    sys.exit(code)


def _run() -> int:
    command = program()
    settable = {
        name: {p.name for p in sub.params if p.param_type_name == "option"} - settings.NOT_SETTABLE
        for name, sub in command.commands.items()
    }
    try:
        defaults = settings.default_map(Path.cwd(), settable)
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
    except MemoryError:
        error_line(str(EnvironmentRefused("out of memory; try a smaller --batch-tokens or --limit")))
        return EnvironmentRefused.exit_code
    return code if isinstance(code, int) else 0


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
    return f"{text}; see {getattr(context, 'command_path', None) or 'hcl'} --help"
