"""Train the encoder of a network: from an image to its codes at once."""

import sys
from pathlib import Path
from typing import Any

import click
import torch

import legacy
from dnnlib import Command, EasyDict, UserError
from semantic.adaptation.layer_swap import blend_option, load_blended
from semantic.encoder import save_encoder
from semantic.inversion.encoder_training import Trainer, Training
from semantic.inversion.photos import find_photos
from torch_utils.devices import select_device


@click.command(cls=Command, context_settings={"show_default": True}, no_args_is_help=True)
@click.option("--network", metavar="FILE|URL|DIR", required=True, help="Network, or run directory.")
@blend_option
@click.option("--data", metavar="ZIP|FOLDER", help="Real images for training, with or without masks.")
@click.option("--dest", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Encoder to write (.pkl).")
@click.option("--pairs", type=click.IntRange(min=100), default=8000, help="Generated pairs for the first fit.")
@click.option(
    "--kimg", type=click.FloatRange(min=0), default=10, help="Training after the fit, in thousands of images."
)
@click.option("--batch", type=click.IntRange(min=1), default=16, help="Images per training step.")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=1e-3, help="Learning rate at the start.")
@click.option("--passes", type=click.IntRange(1, 5), default=3, help="Corrections of the codes.")
@click.option("--rank", type=click.IntRange(1, 256), default=48, help="Rank of the map from descriptions to codes.")
@click.option("--seed", type=int, default=0, help="Seed of all random numbers.")
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Device for the computation."
)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="Number format of convolutions.")
def main(**options: Any) -> None:
    """Train the encoder of a network, which maps an image to its codes in one step.

    The encoder learns from generated pairs. Half of the pairs mix the regions of two images. With --data it also learns
    from real images. Each pass is first fitted to the pairs, and then trained.

    projector.py and the editor find the encoder of NAME.pkl as NAME-encoder.pkl in the same folder.

    \b
    Examples:
      python train_encoder.py --network=snapshot.pkl --dest=snapshot-encoder.pkl
      python train_encoder.py --network=snapshot.pkl --data=faces.zip --dest=snapshot-encoder.pkl --kimg=100
      python projector.py --network=snapshot.pkl --encoder=snapshot-encoder.pkl --target=me.jpg --outdir=me
    """
    run(EasyDict(options))


def run(opts: EasyDict) -> None:
    """Load the network, train its encoder, and write it. Ctrl-C writes the finished passes."""
    if opts.dest.suffix.lower() != ".pkl":
        raise UserError(f"Cannot write {opts.dest}. Choose a name that ends in .pkl.")
    photos = [] if opts.data is None else find_photos(opts.data)
    device = select_device(opts.device)
    networks = legacy.load_network(opts.network)
    networks["G_ema"] = load_blended(networks, opts.blend, legacy.load_network)
    training = Training(
        pairs=opts.pairs,
        kimg=opts.kimg,
        batch=opts.batch,
        learning_rate=opts.lr,
        num_passes=opts.passes,
        rank=opts.rank,
        context=opts.rank,
        bf16=opts.precision == "bf16",
        seed=opts.seed,
    )
    trainer = Trainer(networks, device, training, photos, say=click.echo)
    try:
        trainer.run()
    except KeyboardInterrupt:
        if not trainer.passes_done:
            click.echo("Stopped before the first pass was finished. No file was written.", err=True)
            sys.exit(130)
        save_encoder(opts.dest, trainer.encoder)
        click.echo(f"Stopped. {opts.dest} holds {trainer.passes_done} of {opts.passes} passes.", err=True)
        sys.exit(130)
    except torch.OutOfMemoryError as error:
        raise UserError(f"The GPU is out of memory at --batch={opts.batch}. Choose a smaller batch.") from error
    save_encoder(opts.dest, trainer.encoder)
    click.echo(f"Wrote {opts.dest} ({opts.dest.stat().st_size / 2**20:.1f} MiB).")


if __name__ == "__main__":
    main()
