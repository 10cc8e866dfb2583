"""Train a GAN: compositional (`--cfg=semantic`) or plain StyleGAN2-ADA."""

from typing import Any

import click

from dnnlib import Command, EasyDict
from dnnlib.option_types import Number, Share, kernels_option
from training.registry import CONFIGURATIONS

AUGMENTATIONS = ("blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc")

EPILOG = """\b
Examples:
  # Train the compositional GAN on faces with masks
  python train.py --cfg=semantic --data=celebamask.zip --mirror=1
\b
  # Train it without data of your own, small enough for a laptop
  python dataset_tool.py --source=procedural --dest=faces64.zip --width=64 --height=64 --max-images=2000
  python train.py --cfg=semantic --data=faces64.zip --kimg=50
\b
  # Resume the newest run exactly where it stopped
  python train.py --resume=latest
\b
  # Start plain StyleGAN2-ADA on images alone from a trained network
  python train.py --data=cats.zip --resume=ffhq256 --gpus=4
\b
  # Train on two machines with 8 GPUs each. After a failure, torchrun starts again and the run resumes
  torchrun --nnodes=2 --nproc-per-node=8 --rdzv-endpoint=HOST:29400 --rdzv-backend=c10d --max-restarts=3 \\
      train.py --resume=latest --outdir=runs/faces --data=...

\b
Exit codes:
  0   finished
  75  stopped by Ctrl-C, SIGTERM or a closed terminal, with everything saved: resume with --resume=latest
  1   an error, explained in one line, or stopped at once by a second signal
  2   wrong options
"""


@click.command(cls=Command, epilog=EPILOG, context_settings={"max_content_width": 110, "show_default": True})
@click.option("--outdir", default="training-runs", metavar="DIR", help="Folder for the run directories.")
@click.option("--cfg", type=click.Choice(list(CONFIGURATIONS)), default="auto", help="Configuration.")
@click.option("--data", metavar="PATH", help="Training data: an archive or folder made by dataset_tool.py.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, metavar="INT", help="Processes on this machine.")
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Device for training."
)
@click.option("--dry-run", "-n", is_flag=True, help="Print the options of the run and stop.")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="INT", help="Seed of all random draws.")
@click.option("--kimg", type=Number(min=0, min_open=True), metavar="KIMG", help="Length in thousands of images.")
@click.option("--batch", type=click.IntRange(min=1), metavar="INT", help="Images per step, over all processes.")
@click.option(
    "--batch-gpu",
    type=Share(),
    help="Images that a process handles at a time. 'auto' finds the largest number that fits into memory.",
)
@click.option(
    "--tick",
    type=Number(min=0, min_open=True),
    metavar="KIMG",
    help="Thousands of images between progress lines.  [default: 4, or a 20th of the run; for semantic-adapt a 16th]",
)
@click.option(
    "--snap",
    type=click.IntRange(min=1),
    metavar="TICKS",
    help="Ticks between snapshots.  [default: 50, or 5 in runs under 1000 kimg; for semantic-adapt 1]",
)
@click.option(
    "--keep-states", type=click.IntRange(min=1), default=2, metavar="INT", help="Number of newest states to keep."
)
@click.option(
    "--max-bad-steps",
    type=click.IntRange(min=1),
    default=10,
    metavar="INT",
    help="Skipped steps in a row after which the run rolls back to its last good state.",
)
@click.option(
    "--metrics", default="none", metavar="LIST", help="Metrics at every snapshot, comma-separated, or 'none'."
)
@click.option("--cond", type=bool, default=False, metavar="BOOL", help="Train with the labels of the data.")
@click.option(
    "--subset", type=click.IntRange(min=1), metavar="INT", help="Number of images to train on.  [default: all]"
)
@click.option("--mirror", type=bool, default=False, metavar="BOOL", help="Add the mirror image of every image.")
@click.option("--regions", metavar="JSON", help="Region names and colours, file or text.  [default: from the archive]")
@click.option("--transparent", metavar="LIST", help="Regions that show other regions behind, e.g. glasses,earring.")
@click.option(
    "--recipe",
    type=click.Choice(["tuned", "paper"]),
    help="Recipe of --cfg=semantic: tuned here, or the paper's.  [default: tuned below 256², else paper]",
)
@click.option("--gamma", type=Number(min=0), metavar="FLOAT", help="Weight of R1 on images.")
@click.option("--gamma-mask", type=Number(min=0), metavar="FLOAT", help="Weight of R1 on masks.")
@click.option(
    "--mask-weight",
    type=Number(min=0),
    metavar="FLOAT",
    help="Weight of the mask consistency term; for semantic-adapt, of the comparison with the source's masks.",
)
@click.option("--glr", type=Number(min=0, min_open=True), metavar="FLOAT", help="Learning rate of G.")
@click.option("--dlr", type=Number(min=0, min_open=True), metavar="FLOAT", help="Learning rate of D.")
@click.option(
    "--locality",
    type=Number(min=0),
    metavar="FLOAT",
    help="Weight of the term that keeps edits in their regions.  [default: 8 (tuned recipe, adaptation), else 0]",
)
@click.option(
    "--cbase",
    type=click.IntRange(min=32),
    metavar="INT",
    help="Width: CBASE / r channels at resolution r. A larger value widens the network of --resume.",
)
@click.option(
    "--octaves",
    type=click.IntRange(min=1),
    metavar="INT",
    help="Frequencies of the local generators' input (semantic). Fewer than in --resume drop its highest frequencies.",
)
@click.option("--aug", type=click.Choice(["noaug", "ada", "fixed"]), default="ada", help="Augmentation mode.")
@click.option("--p", type=Number(0, 1), metavar="FLOAT", help="Augmentation probability for --aug=fixed.")
@click.option("--target", type=Number(0, 1), metavar="FLOAT", help="Target of --aug=ada.  [default: 0.6]")
@click.option("--augpipe", type=click.Choice(AUGMENTATIONS), default="bgc", help="Set of augmentations.")
@click.option(
    "--resume",
    metavar="SOURCE",
    help="Network file, run directory, URL or name (ffhq256, ...) to start from. 'latest' resumes the newest run, or "
    "starts a run if there is none and --data is given.",
)
@click.option(
    "--freezed",
    type=click.IntRange(min=0),
    metavar="INT",
    help="Number of layers of D to freeze.  [default: 0; for semantic-adapt the 4 of full resolution]",
)
@click.option(
    "--adapt",
    type=click.Choice(["style", "lowrank", "all", "frozen"]),
    help="Trained parts (semantic-adapt). style: styles, heads, rendering; lowrank: also rank-4 changes of local "
    "weights; all: all parts; frozen: rendering only.  [default: style]",
)
@click.option("--freeze-local", is_flag=True, help="Same as --adapt=frozen.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    help="Number format.  [default: fp32; on CUDA bf16 for semantic, else fp16; on a CPU with AMX bf16 for "
    "semantic-adapt]",
)
@click.option("--fp32", type=bool, default=False, metavar="BOOL", help="Same as --precision=fp32.")
@kernels_option
@click.option(
    "--nhwc", type=bool, default=False, metavar="BOOL", help="Use the channels-last memory format in half precision."
)
@click.option(
    "--nobench", type=bool, default=False, metavar="BOOL", help="Do not let cuDNN search for the fastest algorithm."
)
@click.option("--allow-tf32", type=bool, default=False, metavar="BOOL", help="Let PyTorch use TF32.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="INT",
    help="Loader processes.  [default: by number of cores, at most 3]",
)
@click.pass_context
def main(context: click.Context, **given: Any) -> None:
    """Train a GAN on an archive made by dataset_tool.py.

    --cfg=semantic trains the compositional GAN on images with masks: one small generator for each region, with image
    and mask rendered together. The other configurations train StyleGAN2-ADA on images alone. Each run writes its files
    into a new folder under --outdir.
    """
    import legacy
    from training.launch import launch

    explicit = {n for n in given if context.get_parameter_source(n) == click.core.ParameterSource.COMMANDLINE}
    launch(EasyDict(given), explicit, legacy.load_network)


if __name__ == "__main__":
    main()
