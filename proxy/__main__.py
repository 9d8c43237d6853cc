"""Entry of `fairlead` and `python -m proxy`."""

from proxy.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
