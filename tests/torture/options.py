"""Option sets at random: contradictions, numbers out of range, text where numbers belong."""

from random import Random

import click

WRONG = ("", "nan", "inf", "-inf", "-1", "0", "1e400", "abc", "1,2", "0x10", "99999999999999999999", "1.5", "\x00", "ü")
"""What any option may get."""

TRAIN = {
    "--cfg": ("auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar", "semantic", "semantic-adapt", "none"),
    "--gpus": ("1", "2", "3", "8", "1000000"),
    "--device": ("cpu", "cuda", "mps", "tpu"),
    "--seed": ("0", "1", "4294967296", "18446744073709551616"),
    "--kimg": ("0.004", "25000", "1e-9", "1e300"),
    "--batch": ("1", "4", "7", "1000000000000"),
    "--batch-gpu": ("1", "2", "3", "auto"),
    "--tick": ("0.001", "4", "1e300", "1e-300"),
    "--snap": ("1", "50", "1000000000000"),
    "--metrics": ("none", "fid50k_full", "fid50k_full,none", "swd", "fid0k", "a,b", ",", "fid50k_full" * 50),
    "--cond": ("0", "1", "true", "maybe"),
    "--subset": ("1", "3", "8", "9", "1000000"),
    "--mirror": ("0", "1", "x"),
    "--regions": ("{}", "[]", '{"names": ["a", "b", "c"]}', '{"names": ["a", "a", "b"]}', "none.json", ".", "{" * 5000,
                  '{"names": ["a", "b", "c"], "colors": [[0, 0, 1e999], 1, 2]}', '{"regions": 1}',
                  '{"names": [[], {}]}', '{"names": ["a", "b", "c"], "colors": NaN}'),
    "--transparent": ("", "skin", "hair,skin", "0", "background", "9", "hat", ",,,"),
    "--gamma": ("0", "10", "1e300"),
    "--glr": ("0", "0.001", "1e300"),
    "--dlr": ("0.001", "nan"),
    "--recipe": ("tuned", "paper"),
    "--gamma-mask": ("0", "1"),
    "--mask-weight": ("0", "1"),
    "--locality": ("0", "8", "1e300"),
    "--cbase": ("32", "64", "16", "1000000000000"),
    "--octaves": ("1", "4", "0", "1000"),
    "--aug": ("noaug", "ada", "fixed", "other"),
    "--p": ("0", "0.5", "1", "1.1"),
    "--target": ("0", "0.6", "2"),
    "--augpipe": ("blit", "bgc", "bgcfnc", "all"),
    "--resume": ("noresume", "latest", "none.pkl", ".", "ffhq", "NET", "NET", "DATA"),
    "--freezed": ("0", "1", "13", "1000000"),
    "--freeze-local": (None,),
    "--adapt": ("style", "lowrank", "all", "frozen", "none"),
    "--kernels": ("auto", "plain", "strict", "fast"),
    "--precision": ("fp32", "fp16", "bf16", "int8"),
    "--fp32": ("0", "1"),
    "--nhwc": ("0", "1"),
    "--nobench": ("1",),
    "--allow-tf32": ("1",),
    "--workers": ("0", "3", "1000000000"),
}  # fmt: skip

GENERATE = {
    "--seeds": ("0", "0-1", "1,1", "3-1", "-1", "a", "", "0-99999999999", "0-4294967295", "4294967295", "1e3", "١"),
    "--trunc": ("0", "1", "0.7", "-1", "1e30", "nan"),
    "--class": ("0", "1", "-1"),
    "--noise-mode": ("const", "random", "none", "loud"),
    "--projected-w": ("none.npz", ".", "LATENTS", "LATENTS", "NET"),
    "--mix-regions": (None,),
    "--rows": ("0", "0,0", "a"),
    "--cols": ("5", "5-4", "5"),
    "--regions": ("hair", "hair,skin", "0", "7", "", "hat", ",", "background"),
    "--part": ("shape", "texture", "both", "all"),
    "--components": (None,),
    "--transform": ("hair:dx=0.1", "hair", "hair:", ":dx=1", "hat:dx=1", "hair:dx=nan", "hair:scale=0",
                    "hair:scale=1e400",
                    "hair:dx=a", "hair:dx=1,dx=2", "0:rotate=1e300", "hair:foo=1", "hair:scale=-1", "hair:dx=0.1:dy=1"),
    "--dataset": ("1", "2"),
    "--save-masks": (None,),
    "--save-latents": (None,),
    "--device": ("cpu", "cuda", "mps"),
    "--batch": ("1", "3", "1000000000000"),
}  # fmt: skip

DATASET = {
    "--max-images": ("1", "3", "1000000000000"),
    "--skip-images": ("0", "3", "1000000000000"),
    "--resize-filter": ("box", "lanczos", "cubic"),
    "--transform": ("center-crop", "center-crop-wide", "none"),
    "--width": ("16", "32", "31", "1", "8192", "1000000000000"),
    "--height": ("16", "32", "20", "1", "1000000000000"),
    "--masks": ("DATA", "none", ".", "NET"),
    "--palette": ("{}", "none.json", ".", "DATA", "JSON"),
    "--mask-map": ("{}", "none.json", ".", "DATA", "JSON"),
    "--split": ("train", "test", "val"),
    "--seed": ("0", "18446744073709551616"),
    "--workers": ("0", "1", "2"),
}

METRICS = {
    "--metrics": ("fid", "fid50k_full,", ",", "swd0k", "a" * 1000, "ppl2_wend,none"),
    "--data": ("DATA", "none", ".", "NET"),
    "--mirror": ("0", "1"),
    "--verbose": ("0", "1"),
    "--device": ("cuda", "mps"),
    "--detector": ("none", "NET", "."),
    "--plot": ("none", ".", "OUT", "DATA"),
    "--dest": ("OUT/x.png", "OUT/x.xyz", "OUT/none/x.png", "OUT"),
}


def strange_options(random: Random, table: dict[str, tuple[str | None, ...]], count: int, wrong: float) -> list[str]:
    """`count` options at random; each gets one of `WRONG` with the probability `wrong`."""
    found = []
    for name in random.choices(list(table), k=count):
        value = (
            random.choice(WRONG) if random.random() < wrong and table[name] != (None,) else random.choice(table[name])
        )
        found.append(name if value is None else f"{name}={value}")
    if random.random() < 0.05:
        found.insert(
            random.randrange(len(found) + 1), random.choice(("--unknown", "stray", "--", "-", "--seed", "-x=1"))
        )
    return found


def known_options(command: click.Command) -> set[str]:
    """The options of a command."""
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
