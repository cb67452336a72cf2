"""Weights that a training starts from."""

from pathlib import Path
from typing import TypeVar

from digest import file_digest
from errors import InputError
from models.channels import PictureNetwork
from models.checkpoint import check_fit, load_network

Trained = TypeVar("Trained", bound=PictureNetwork)


def start_from(network: PictureNetwork, checkpoint: Path) -> None:
    """Load the weights of a network of the same class and shape. Raises InputError for others, see `load_start`."""
    state = load_start(checkpoint, type(network)).state_dict()
    check_fit(checkpoint, network, state)
    network.load_state_dict(state)


def start_digest(checkpoint: Path | None) -> str:
    """What tells the weights of --init from others, "" without any. Raises InputError where they cannot be read."""
    try:
        return "" if checkpoint is None else file_digest(checkpoint)
    except OSError as error:
        raise InputError(
            f"--init {checkpoint} cannot be read ({error.strerror}); expected the weights that the run starts from"
        ) from error


def load_start(checkpoint: Path, kind: type[Trained]) -> Trained:
    """Weights to start a training from. Raises InputError for those of another kind, and where they want BGR pictures:
    the data sets hold RGB.
    """
    network = load_network(checkpoint, kind=kind)
    if network.channel_order != "rgb":
        raise InputError(
            f"{checkpoint} was trained on {network.channel_order} pictures, this run trains on rgb; "
            "start from weights that were trained here"
        )
    return network
