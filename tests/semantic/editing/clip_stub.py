"""A module with the interface of open_clip and a CLIP of random weights."""

from types import ModuleType, SimpleNamespace

import torch


class TinyClip(torch.nn.Module):
    """Features of images and texts by random convolutions and random words."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.visual = torch.nn.Sequential(
                torch.nn.Conv2d(3, 16, 4, stride=4), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.LazyLinear(8)
            )
            self.visual(torch.zeros(1, 3, 24, 24))
            self.words = torch.nn.Embedding(1000, 8)
        self.visual.image_size = (24, 24)
        self.visual.image_mean, self.visual.image_std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)

    def encode_image(self, images):
        return self.visual(images)

    def encode_text(self, tokens):
        return self.words(tokens).mean(dim=1)


def open_clip_stub() -> ModuleType:
    """Returns the module. Its attribute `opened` lists the models that were asked for."""
    module = ModuleType("open_clip")
    module.opened = []

    def create_model(name, pretrained=None, device="cpu"):
        module.opened.append(SimpleNamespace(name=name, weights=pretrained))
        if name != "tiny":
            raise RuntimeError(f"Model config for '{name}' not found.\nAvailable models: tiny")
        model = TinyClip()
        if pretrained != "random":
            model.load_state_dict(torch.load(pretrained, weights_only=True))
        return model.to(device)

    module.create_model = create_model
    module.get_tokenizer = lambda name: lambda texts: torch.tensor([[ord(c) % 1000 for c in t[:8]] for t in texts])
    return module
