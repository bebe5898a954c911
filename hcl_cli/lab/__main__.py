"""`python -m hcl_cli.lab`: train the lab models again. One CPU thread, some minutes a seed."""

import argparse
from pathlib import Path

from hcl_cli.lab.recipe import KEPT_SEED, RECIPE
from hcl_cli.resources import data_file


def main() -> None:
    """Parse the options and make the models."""
    parser = argparse.ArgumentParser(
        prog="python -m hcl_cli.lab", description="Train, measure and describe the lab models."
    )
    parser.add_argument("--out", type=Path, default=data_file("models"), help="folder for lab-base/ and lab/")
    parser.add_argument("--seeds", default="0", help="seeds to train, e.g. 0,1,2 (default: %(default)s)")
    parser.add_argument(
        "--kept-seed", type=int, default=0, help="the seed whose models are kept (default: %(default)s)"
    )
    parser.add_argument("--cards", action="store_true", help="only write the cards again, from seeds.json")
    options = parser.parse_args()

    from hcl_cli.lab.make import make, write_cards
    from hcl_cli.lab.world import load_world

    if not options.cards:
        for seed in map(int, options.seeds.split(",")):
            make(load_world(), RECIPE, seed, KEPT_SEED, options.out)
    else:
        write_cards(options.out, RECIPE, KEPT_SEED)


if __name__ == "__main__":
    main()
