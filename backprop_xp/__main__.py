"""The command ``backprop-xp``, which is ``python -m backprop_xp`` as well."""

import sys


def main() -> None:
    """Run the command line; without the extra ``cli``, say how to install it and exit with 1."""
    try:
        from backprop_xp import cli
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("typer", "rich"):
            raise
        sys.stderr.write(
            f"error: the command backprop-xp needs {missing}, which is not installed: "
            "pip install 'backprop_xp[cli]'\n"
        )
        sys.exit(1)
    cli.app(prog_name="backprop-xp")


if __name__ == "__main__":
    main()
