"""Begins a model with the weights of another, which may be smaller."""

from __future__ import annotations

from charlstm.nn import model
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Array, Arrays, Ids


def load_pretrained(params: Arrays, config: ModelConfig, pretrained: Arrays, places: Ids) -> None:
    """Copy the weights of a model whose character k is character places[k] here, **in place**; this one may be larger.

    A larger model begins as the same function (after Chen et al. 2016). In each layer its first cells are the other model's, and
    neither they nor the logits see the new cells. A new layer's candidate g is zero, so it adds nothing to its input. All other
    new weights stay as they were drawn, which for M is zero.

    Characters unknown to that model keep their input weights. As outputs they start with the bias of its least likely character, and
    with zero weights unless they are tied to an embedding.

    Args:
        params: this model's parameters; overwritten.
        config: its shape: no fewer cells and layers than the other's, and residual connections if it has more layers.
        pretrained: the other model's parameters.
        places: (V,) for the other model's V characters.
    """
    H = len(pretrained["layer1.b"]) // 4
    for name in model.layer_names(config):
        for key, p in model.part(params, name).items():
            if key == "M":
                continue
            ours = p.reshape(4, config.hidden, -1)
            if f"{name}.{key}" not in pretrained:
                ours[3] = 0  # g
                continue
            theirs = pretrained[f"{name}.{key}"].reshape(4, H, -1)
            if name == "layer1" and key == "W" and not config.embedding:
                ours[:, :H, places] = theirs
            else:
                _place(theirs, ours[:, :H])
    if "layer1.M" in pretrained:
        M = params["layer1.M"]
        M[:H, slice(None) if config.embedding else places] = pretrained["layer1.M"]
    if config.embedding:
        params["embed.E"][places] = pretrained["embed.E"]
        _place(pretrained["out.P"], params["out.P"])
    else:
        params["out.W"][...] = 0
        params["out.W"][places, :H] = pretrained["out.W"]
    params["out.b"][...] = pretrained["out.b"].min()
    params["out.b"][places] = pretrained["out.b"]


def _place(theirs: Array, ours: Array) -> None:
    """Copy columns to the first of a wider matrix, **in place**; its others become zero."""
    ours[...] = 0
    ours[..., : theirs.shape[-1]] = theirs
