"""The command ``backprop-xp``, which is ``python -m backprop_xp`` as well."""

import sys

from backprop_xp.extras import install_command


def main() -> None:
    """Run the command line; Ctrl-C, also during the imports, ends it with the exit status 130.

    Without the extra ``cli``, print how to install it and exit with 1.
    """
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    try:
        from backprop_xp import cli
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "typer":
            raise
        sys.stderr.write(
            "error: the command backprop-xp needs typer, which is not installed: "
            f"{install_command('cli')}\n"
        )
        sys.exit(1)
    cli.app(prog_name="backprop-xp")


if __name__ == "__main__":
    main()
