"""Writes pytorch.json: what PyTorch computes, in double precision, for two tiny VGG networks.

    pip install torch && python pytorch.py > pytorch.json

The weights, pictures and labels follow from the formulas below, which the Rust test repeats.
"""

import json

import torch
from torch import nn
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)


def wave(shape, salt, scale=1.0, offset=0.0):
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (offset + scale * torch.sin(0.7 * index + salt)).float().double().reshape(shape)


class Tiny(nn.Module):
    """vgg with the blocks [[4], [6, 5]] for 3x9x7, and the head [7] or the mean of each channel."""

    def __init__(self, batch_norm):
        super().__init__()
        self.batch_norm = batch_norm
        self.convolutions = [("block1_conv1", 3, 4), ("block2_conv1", 4, 6), ("block2_conv2", 6, 5)]
        self.dense = [("predictions", 5, 3)] if batch_norm else [("fc1", 10, 7), ("predictions", 7, 3)]
        salt = 0
        for name, inputs, outputs in self.convolutions + self.dense:
            convolution = name.startswith("block")
            fan_in = inputs * (9 if convolution else 1)
            shape = (outputs, inputs, 3, 3) if convolution else (outputs, inputs)
            self.add(f"{name}.weight", wave(shape, salt, (3 / fan_in) ** 0.5))
            self.add(f"{name}.bias", wave((outputs,), salt + 1, 0.1))
            salt += 2
            if convolution and batch_norm:
                self.add(f"{name}_bn.weight", wave((outputs,), salt, 0.1, 1.0))
                self.add(f"{name}_bn.bias", wave((outputs,), salt + 1, 0.1))
                self.register_buffer(f"{name}_bn_mean", torch.zeros(outputs))
                self.register_buffer(f"{name}_bn_var", torch.ones(outputs))
                salt += 2

    def add(self, name, value):
        self.register_parameter(name.replace(".", "__"), nn.Parameter(value))

    def get(self, name):
        return getattr(self, name.replace(".", "__"))

    def forward(self, x, training=True):
        for name, _, _ in self.convolutions:
            x = F.conv2d(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"), padding=1)
            if self.batch_norm and not training:
                moments = (getattr(self, f"{name}_bn_mean"), getattr(self, f"{name}_bn_var"))
                scale, shift = self.get(f"{name}_bn.weight"), self.get(f"{name}_bn.bias")
                x = F.batch_norm(x, *moments, scale, shift, training=False, eps=1e-3)
            elif self.batch_norm:
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
                # The running moments as ours are updated: momentum 0.9 as here, biased variance as in Keras.
                running_mean, running_var = getattr(self, f"{name}_bn_mean"), getattr(self, f"{name}_bn_var")
                running_mean.mul_(0.9).add_(0.1 * mean.detach())
                running_var.mul_(0.9).add_(0.1 * var.detach())
                scale, shift = self.get(f"{name}_bn.weight"), self.get(f"{name}_bn.bias")
                x = F.batch_norm(x, None, None, scale, shift, training=True, eps=1e-3)
            x = F.relu(x)
            self.maps = x
            if name in ("block1_conv1", "block2_conv2"):
                x = F.max_pool2d(x, 2)
        x = x.mean((2, 3)) if self.batch_norm else x.flatten(1)
        for name, _, _ in self.dense:
            x = F.linear(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"))
            if name != "predictions":
                x = F.relu(x)
        return x


def grad_cam(network, pictures, classes):
    """Selvaraju et al. (2017), equations 1 and 2, of the last convolution."""
    logits = network(pictures, training=False)
    chosen = logits.gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, network.maps)
    return F.relu((gradient.mean((2, 3), keepdim=True) * network.maps).sum(1)).detach()


def named(values):
    return {name.replace("__", "."): [float(f"{v:.9g}") for v in value.flatten()] for name, value in values}


def regularised():
    """Three steps with decay, clipping, smoothing, weights of classes, and mixed labels, all at once."""
    network = Tiny(False)
    pictures, labels, second = wave((4, 3, 9, 7), 0.3), torch.tensor([0, 2, 1, 2]), torch.tensor([2, 1, 1, 0])
    decayed = [p for p in network.parameters() if p.dim() > 1]
    spared = [p for p in network.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": spared, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=1e-2, eps=1e-12)
    objective = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    losses, norms = [], []
    for _ in range(3):
        adam.zero_grad()
        logits = network(pictures)
        loss = 0.7 * objective(logits, labels) + 0.3 * objective(logits, second)
        loss.backward()
        losses.append(float(f"{loss.item():.9g}"))
        norms.append(float(f"{nn.utils.clip_grad_norm_(network.parameters(), 0.5).item():.9g}"))
        adam.step()
    return {"losses": losses, "norms": norms, "after_three_steps": named(network.named_parameters())}


def distilled():
    """Three steps towards the answers of a teacher (Hinton et al. 2015) and the labels."""
    network = Tiny(False)
    pictures, labels, teacher = wave((4, 3, 9, 7), 0.3), torch.tensor([0, 2, 1, 2]), wave((4, 3), 0.9, 3.0)
    adam = torch.optim.Adam(network.parameters(), lr=1e-2, eps=1e-12)
    losses = []
    for _ in range(3):
        adam.zero_grad()
        logits = network(pictures)
        soft = F.cross_entropy(logits / 2.5, F.softmax(teacher / 2.5, dim=1))
        loss = 0.4 * F.cross_entropy(logits, labels) + 0.6 * 2.5**2 * soft
        loss.backward()
        losses.append(float(f"{loss.item():.9g}"))
        adam.step()
    return {"losses": losses, "after_three_steps": named(network.named_parameters())}


def case(batch_norm):
    network = Tiny(batch_norm)
    pictures, labels = wave((4, 3, 9, 7), 0.3), torch.tensor([0, 2, 1, 2])
    logits = network(pictures)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    result = {
        "logits": [float(f"{v:.9g}") for v in logits.flatten()],
        "loss": float(f"{loss.item():.9g}"),
        "gradients": named((name, p.grad) for name, p in network.named_parameters()),
        "running": named(
            (name.replace("_bn_mean", "_bn.running_mean").replace("_bn_var", "_bn.running_var"), buffer)
            for name, buffer in network.named_buffers()
        ),
    }
    result["grad_cam"] = [float(f"{v:.9g}") for v in grad_cam(network, pictures, labels).flatten()]
    if not batch_norm:
        # With so small an epsilon, PyTorch's Adam and Keras's are the same formula.
        adam = torch.optim.Adam(network.parameters(), lr=1e-2, eps=1e-12)
        adam.step()
        for _ in range(2):
            adam.zero_grad()
            F.cross_entropy(network(pictures), labels).backward()
            adam.step()
        result["after_three_steps"] = named(network.named_parameters())
    return result


cases = {"plain": case(False), "batch_norm": case(True), "regularised": regularised(), "distilled": distilled()}
print(json.dumps({"torch": torch.__version__.split("+")[0], **cases}, indent=None))
