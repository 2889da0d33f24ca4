"""Writes the weights of all VGG variants as torchvision names them, and torchvision.json: their logits.

    pip install torch torchvision timm safetensors && python torchvision_vgg.py

The networks are torchvision's own class with few channels. vgg16 and vgg16_bn are written as safetensors too, vgg16 in
the layout of torch before 1.6 as well, and vgg11_bn under timm's names by timm's own class.
"""

import json

import safetensors.torch
import timm.models.vgg
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import VGG, cfgs, make_layers

WIDTHS = {64: 2, 128: 3, 256: 4, 512: 5, "M": "M"}
LETTERS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
CLASSES = 4


def fill(network, seed):
    torch.manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            # So small that a wrong epsilon shows.
            tensor.copy_(10 ** torch.empty_like(tensor).uniform_(-2, 0))
        elif tensor.dim() == 1:
            tensor.uniform_(0.0, 0.3)
        elif tensor.dim() > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
    return network.eval()


def of_torchvision(name, batch_norm):
    cfg = [WIDTHS[width] for width in cfgs[LETTERS[name]]]
    network = VGG(make_layers(cfg, batch_norm), num_classes=CLASSES)
    dropout, relu = nn.Dropout(), nn.ReLU()
    dense = [nn.Linear(5 * 7 * 7, 8), relu, dropout, nn.Linear(8, 6), relu, dropout, nn.Linear(6, CLASSES)]
    network.classifier = nn.Sequential(*dense)
    return network


def of_timm(network):
    """timm's class with the weights of torchvision's."""
    cfg = [WIDTHS[width] for width in cfgs["A"]]
    twin = timm.models.vgg.VGG(cfg, num_classes=CLASSES, norm_layer=nn.BatchNorm2d)
    twin.pre_logits = timm.models.vgg.ConvMlp(5, 8, 7)
    twin.pre_logits.fc1, twin.pre_logits.fc2 = nn.Conv2d(5, 8, 7), nn.Conv2d(8, 6, 1)
    twin.head.fc = nn.Linear(6, CLASSES)
    shapes = [tensor.shape for tensor in twin.state_dict().values()]
    tensors = [tensor.reshape(shape) for tensor, shape in zip(network.state_dict().values(), shapes, strict=True)]
    twin.load_state_dict(dict(zip(twin.state_dict(), tensors)))
    return twin.eval()


def written(network):
    logits = network.double()(pictures)
    network.float()
    return [float(f"{value:.9g}") for value in logits.detach().flatten()]


index = torch.arange(2 * 3 * 224 * 224, dtype=torch.float64)
pictures = torch.sin(0.7 * index + 0.3).float().double().reshape(2, 3, 224, 224)
logits = {}
for seed, (name, batch_norm) in enumerate((name, norm) for norm in (False, True) for name in LETTERS):
    variant = name + ("_bn" if batch_norm else "")
    network = fill(of_torchvision(name, batch_norm), seed)
    torch.save(network.state_dict(), f"{variant}.pth")
    if name == "vgg16":
        safetensors.torch.save_file(network.state_dict(), f"{variant}.safetensors")
    if variant == "vgg16":
        torch.save(network.state_dict(), "vgg16.legacy.pth", _use_new_zipfile_serialization=False)
    if variant == "vgg11_bn":
        twin = of_timm(network)
        safetensors.torch.save_file(twin.state_dict(), "vgg11_bn.timm.safetensors")
        assert torch.allclose(twin(pictures.float()), network(pictures.float()), atol=1e-5)
    logits[variant] = written(network)
with open("torchvision.json", "w") as file:
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
    json.dump({**versions, "logits": logits}, file)
    file.write("\n")
